"""Search spaces: one YAML file per table, with the settings to compare, the base setting, and the mIoU that the paper reports.

A space is either a list of settings (one recipe key and its values, or rows that set several keys) or, with the strategy `search`,
one domain per recipe key. `tune_spaces/*.yaml` are those of the paper's Tables 4 and 5 and Fig. 12; a user's own file is given by its
path. The settings change the recipe that the search is started with, so that a table can be computed with a model of any size. Rows can
be crossed with columns, each a stage to score with the keys that it needs (Table 1: seeds by refinement).
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from vwl.config.files import overridden
from vwl.config.named_files import is_path, names_in, read_named
from vwl.config.recipe import Recipe
from vwl.config.strict import StrictModel, describe_errors
from vwl.config.yaml_text import parse_yaml
from vwl.errors import VwlError
from vwl.tuning.rows import PaperColumns, PaperScores, Scored, Setting, SpaceColumn, SpaceRow, identity

Value = str | int | float | bool | None


class Domain(StrictModel):
    """The values that a recipe key is drawn from: choices, or a closed range."""

    choices: list[Value] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False
    """Draw the logarithm uniformly."""
    whole: bool = False
    """Draw integers; set automatically where the recipe key is an integer."""

    @model_validator(mode="after")
    def _is_choices_or_range(self) -> "Domain":
        if self.choices is not None:
            if not self.choices or self.low is not None or self.high is not None or self.log:
                raise ValueError("needs either a list of choices that is not empty, or low and high")
        elif self.low is None or self.high is None or not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("needs choices, or low below high (above 0 with log)")
        return self


class EarlyStopping(StrictModel):
    """Asynchronous successive halving over epochs: at each rung only the better trials continue."""

    grace_epochs: int = Field(1, gt=0)
    """No trial is stopped before this epoch."""
    keep: float = Field(0.5, gt=0, lt=1)
    """Share of the trials that continues at a rung; rungs are at the epochs grace_epochs / keep ** n."""


class Space(StrictModel):
    """A search space."""

    name: str
    """The file's name without its suffix."""
    title: str
    source: str = ""
    """Where the paper reports its mIoU."""
    remark: str = ""
    """A note below the table."""
    recipe: str | None = None
    """Recipe to use if the command gives none."""
    base: dict[str, Any] = {}
    """Recipe keys and values that all settings share."""
    strategy: Literal["grid", "search"] = "grid"
    stage: Scored = "cam"
    """The stage whose score is compared; each trial runs it and the stages before it."""
    parameter: str | None = None
    """The recipe key that `values` set."""
    symbol: str = ""
    """The paper's symbol of the parameter."""
    values: list[Any] = []
    paper: PaperColumns = PaperColumns()
    rows: list[SpaceRow] = []
    """Instead of `values`: settings of several keys."""
    columns: list[SpaceColumn] = []
    """With `rows`: a second axis. Each row is scored in each column, and shares its classifier and maps between them."""
    left_out: dict[str, str] = {}
    """Why a row is not in the table, by its label; set by the command."""
    compare_with: Any = None
    """The value or label of the base setting, which differences are taken to; none: the first setting."""
    search: dict[str, Domain] = {}
    """Strategy `search`: the domain of each recipe key."""
    samples: int = Field(16, gt=0)
    """Strategy `search`: how many settings are drawn."""
    early_stopping: EarlyStopping | None = None
    """Strategy `search`: none runs every trial to its end."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "Space":
        shape = {"values": bool(self.values), "rows": bool(self.rows), "search": bool(self.search)}
        given = [name for name, is_given in shape.items() if is_given]
        if self.strategy == "search":
            if given != ["search"]:
                raise ValueError(f"strategy search needs the field search and no values or rows (given: {', '.join(given) or 'none'})")
        elif len(given) != 1 or self.search:
            raise ValueError(f"strategy grid needs either values or rows (given: {', '.join(given) or 'none'})")
        if self.values and self.parameter is None:
            raise ValueError("values need the field parameter, the recipe key that they set")
        for split, scores in (("train", self.paper.train), ("val", self.paper.val)):
            if scores and len(scores) != len(self.values):
                raise ValueError(f"paper.{split} has {len(scores)} scores for {len(self.values)} values")
        if self.columns and not self.rows:
            raise ValueError("columns need rows")
        names = [column.label for column in self.columns]
        if len(set(names)) < len(names):
            raise ValueError("two columns have the same label")
        for row in self.rows:
            unknown = row.papers.keys() - {column.label for column in self.columns}
            if unknown:
                raise ValueError(f"the row {row.label} has papers of {min(unknown)}, which is none of the columns")
            if self.columns and (row.stage is not None or row.paper != PaperScores()):
                raise ValueError(f"the row {row.label} has a stage or paper of its own; with columns these are the columns', and papers")
        labels = [row.label for row in self.rows] or [setting.label for setting in self.settings()]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"the setting {twice[0]} is given twice; give each setting another label")
        if self.compare_with is not None and _text(self.compare_with) not in labels:
            raise ValueError(f"compare_with is {_text(self.compare_with)}, which is none of the settings {', '.join(labels)}")
        return self

    def settings(self) -> list[Setting]:
        """Return the rows of the table; empty with the strategy `search`."""
        if self.columns:
            return [
                Setting(
                    row.label,
                    {**self.base, **row.set, **column.set},
                    row.papers.get(column.label, PaperScores()).train,
                    row.papers.get(column.label, PaperScores()).val,
                    column.label,
                    column.stage,
                    row.imported,
                )
                for row in self.rows
                for column in self.columns
            ]
        if self.rows:
            return [
                Setting(row.label, {**self.base, **row.set}, row.paper.train, row.paper.val, "", row.stage, row.imported)
                for row in self.rows
            ]
        train = self.paper.train or [None] * len(self.values)
        val = self.paper.val or [None] * len(self.values)
        return [
            Setting(_text(value), {**self.base, str(self.parameter): value}, of_train, of_val)
            for value, of_train, of_val in zip(self.values, train, val, strict=True)
        ]

    @property
    def base_label(self) -> str | None:
        """The label of the base setting; none with the strategy `search`."""
        if self.compare_with is not None:
            return _text(self.compare_with)
        settings = self.settings()
        return settings[0].label if settings else None

    def field_lost_in(self, other: "Space") -> str | None:
        """Return a changed field that leaves trials of this space out of the other; none if the other only adds settings or samples."""
        theirs, ours = ({identity(setting) for setting in space.settings()} for space in (other, self))
        lost = {
            "strategy": self.strategy != other.strategy,
            "stage": self.stage != other.stage,
            "domains": self.search != other.search,
            "base": bool(self.search) and self.base != other.base,
            "settings": not ours <= theirs,
        }
        return next((name for name, is_lost in lost.items() if is_lost), None)

    @property
    def parameter_name(self) -> str:
        """Heading of the first column."""
        return self.symbol or (self.parameter or "setting").rpartition(".")[2]

    def keeping_given(self, stored: "Space") -> "Space":
        """Return this space with the rows that an earlier command has added to the stored one, or whose weights it has given."""
        labels = {row.label for row in self.rows}
        kept = [row for row in stored.rows if row.label not in labels and (row.imported or row.weights)]
        back = {row.label for row in kept}
        left_out = {label: reason for label, reason in self.left_out.items() if label not in back}
        return self.model_copy(update={"rows": [*self.rows, *kept], "left_out": left_out}) if kept else self


def _text(value: Any) -> str:
    """Return a value as text for a table."""
    return str(value)


def with_keys(recipe: Recipe, keys: Mapping[str, Any], source: str) -> Recipe:
    """Return a recipe with some keys changed; `source` names them in an error.

    Raises:
        VwlError: a key or value is wrong.
    """
    try:
        return overridden(recipe, [f"{key}={json.dumps(value)}" for key, value in keys.items()])
    except VwlError as error:
        raise VwlError(f"{source}: {str(error).removeprefix(f'recipe {recipe.name}: ')}") from None


def builtin_spaces() -> list[str]:
    """Return the names of the spaces that come with the package."""
    return names_in("vwl.tune_spaces")


def load_space(name_or_path: str) -> Space:
    """Return the built-in space of a name, or the space in a file, checked against the default recipe.

    Raises:
        VwlError: it does not exist, is no YAML mapping, has an unknown or missing field, or sets an unknown recipe key.
    """
    name = Path(name_or_path).stem if is_path(name_or_path) else name_or_path
    source = f"space {name_or_path}"
    values = parse_yaml(read_named(name_or_path, "space", "vwl.tune_spaces", "vwl tune spaces"), source)
    if not isinstance(values, dict):
        raise VwlError(f"{source} is no mapping of fields; write one per line, e.g. title: My table")
    return space_from({"name": name, **values}, source)


def space_from(values: Mapping[str, Any], source: str) -> Space:
    """Return the space of a mapping; `source` names it in an error.

    Raises:
        VwlError: as `load_space`.
    """
    try:
        space = Space.model_validate(values)
    except ValidationError as error:
        raise VwlError(f"{source}: {describe_errors(error, Space, 'field')}") from None
    for setting in space.settings():
        with_keys(Recipe(), setting.overrides, f"{source}, setting {setting.label}")
    with_keys(Recipe(), space.base, f"{source}, base")
    return space.model_copy(update={"search": {key: _checked(key, domain, f"{source}, search") for key, domain in space.search.items()}})


def _checked(key: str, domain: Domain, source: str) -> Domain:
    """Return the domain after checking its values in the default recipe, with `whole` set where the key takes only integers."""
    for value in domain.choices or (domain.low, domain.high):
        with_keys(Recipe(), {key: value}, source)
    if domain.low is None or domain.high is None:
        return domain
    between = domain.low + (domain.high - domain.low) / math.pi
    try:
        with_keys(Recipe(), {key: between}, source)
    except VwlError:
        with_keys(Recipe(), {key: int(between)}, source)
        return domain.model_copy(update={"whole": True})
    return domain
