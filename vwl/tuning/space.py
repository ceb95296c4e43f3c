"""Search spaces: one YAML file a table, with the settings that are compared, what they are compared with, and the paper's figures.

A space is either a list of settings (one key and its values, or rows that set several keys) or, with the strategy `search`, a
domain a key. `tune_spaces/*.yaml` are those of the paper's tables; a user's own file is given by its path. The settings are
applied to whatever recipe the search is started with, so that a table can be made at any size. Tables 4 and 5, Fig. 12.
"""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, ValidationError, model_validator

from vwl.config.files import overridden
from vwl.config.named_files import is_path, names_in, read_named
from vwl.config.recipe import Recipe
from vwl.config.strict import StrictModel, describe_errors
from vwl.config.yaml_text import parse_yaml
from vwl.errors import VwlError

Scored = Literal["cam", "crf", "walk", "segment"]
Value = str | int | float | bool | None


class Figures(StrictModel):
    """What the paper reports, mIoU in percent."""

    train: float | None = None
    val: float | None = None


class PaperColumns(StrictModel):
    """What the paper reports for each of `values`, in their order."""

    train: list[float | None] = []
    val: list[float | None] = []


class RowOfFile(StrictModel):
    """A setting of several keys."""

    label: str
    set: dict[str, Any] = {}
    paper: Figures = Figures()


class Domain(StrictModel):
    """What a key is drawn from: choices, or a closed range."""

    choices: list[Value] | None = None
    low: float | None = None
    high: float | None = None
    log: bool = False
    """Draw the logarithm uniformly."""
    whole: bool = False
    """Draw whole numbers; found from the key."""

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "Domain":
        if self.choices is not None:
            if not self.choices or self.low is not None or self.high is not None or self.log:
                raise ValueError("has either a list of choices that is not empty, or low and high")
        elif self.low is None or self.high is None or not self.low < self.high or (self.log and self.low <= 0):
            raise ValueError("needs choices, or low below high (above 0 with log)")
        return self


class EarlyStopping(StrictModel):
    """Asynchronous successive halving over epochs: at each rung the better trials go on."""

    grace_epochs: int = Field(1, gt=0)
    """No trial is stopped before."""
    keep: float = Field(0.5, gt=0, lt=1)
    """Share of the trials that goes on at a rung; rungs are at grace_epochs / keep ** n."""


class Setting(NamedTuple):
    """One row of a table.

    Attributes:
        label: what stands in its first column.
        overrides: recipe keys and values.
        paper_train, paper_val: the paper's mIoU, percent.
    """

    label: str
    overrides: dict[str, Any]
    paper_train: float | None = None
    paper_val: float | None = None


class Space(StrictModel):
    """A search space."""

    name: str
    """The file's name without its suffix."""
    title: str
    source: str = ""
    """Where in the paper its figures stand."""
    remark: str = ""
    """Stands below the table."""
    recipe: str | None = None
    """Recipe to start from where the command names none."""
    base: dict[str, Any] = {}
    """Recipe keys that all settings share."""
    strategy: Literal["grid", "search"] = "grid"
    stage: Scored = "cam"
    """Whose score is compared; the stages before it are done for each trial."""
    parameter: str | None = None
    """The recipe key that `values` are of."""
    symbol: str = ""
    """The paper's symbol of the parameter."""
    values: list[Any] = []
    paper: PaperColumns = PaperColumns()
    rows: list[RowOfFile] = []
    """Instead of `values`: settings of several keys."""
    compare_with: Any = None
    """The value or label that differences are taken to; none: the first."""
    search: dict[str, Domain] = {}
    """Strategy `search`: a domain a key."""
    samples: int = Field(16, gt=0)
    """Strategy `search`: how many settings are tried."""
    early_stopping: EarlyStopping | None = None
    """Strategy `search`: none lets every trial end."""

    @model_validator(mode="after")
    def _is_consistent(self) -> "Space":
        shape = {"values": bool(self.values), "rows": bool(self.rows), "search": bool(self.search)}
        given = [name for name, there in shape.items() if there]
        if self.strategy == "search":
            if given != ["search"]:
                raise ValueError(f"strategy search needs the field search and no values or rows (given: {', '.join(given) or 'none'})")
        elif len(given) != 1 or self.search:
            raise ValueError(f"strategy grid needs either values or rows (given: {', '.join(given) or 'none'})")
        if self.values and self.parameter is None:
            raise ValueError("values need the field parameter, the recipe key they are of")
        for split, figures in (("train", self.paper.train), ("val", self.paper.val)):
            if figures and len(figures) != len(self.values):
                raise ValueError(f"paper.{split} has {len(figures)} figures for {len(self.values)} values")
        labels = [setting.label for setting in self.settings()]
        twice = sorted({label for label in labels if labels.count(label) > 1})
        if twice:
            raise ValueError(f"the setting {twice[0]} is given twice")
        if self.compare_with is not None and _text(self.compare_with) not in labels:
            raise ValueError(f"compare_with is {_text(self.compare_with)}, which is none of the settings {', '.join(labels)}")
        return self

    def settings(self) -> list[Setting]:
        """Return the rows of the table; none for a search."""
        if self.rows:
            return [Setting(row.label, {**self.base, **row.set}, row.paper.train, row.paper.val) for row in self.rows]
        train = self.paper.train or [None] * len(self.values)
        val = self.paper.val or [None] * len(self.values)
        return [
            Setting(_text(value), {**self.base, str(self.parameter): value}, *figures)
            for value, *figures in zip(self.values, train, val, strict=True)
        ]

    @property
    def base_label(self) -> str | None:
        """The label that differences are taken to; none for a search."""
        if self.compare_with is not None:
            return _text(self.compare_with)
        settings = self.settings()
        return settings[0].label if settings else None

    def field_lost_in(self, other: "Space") -> str | None:
        """Return the field that makes trials of this space none of the other's; more settings and more samples lose nothing."""
        theirs = {(setting.label, json.dumps(setting.overrides, sort_keys=True)) for setting in other.settings()}
        ours = {(setting.label, json.dumps(setting.overrides, sort_keys=True)) for setting in self.settings()}
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
        """What the first column is called."""
        return self.symbol or (self.parameter or "setting").rpartition(".")[2]


def _text(value: Any) -> str:
    """Return a value as it stands in a table."""
    return str(value)


def with_keys(recipe: Recipe, keys: Mapping[str, Any], source: str) -> Recipe:
    """Return a recipe with some keys changed.

    Raises:
        VwlError: naming `source` and the wrong key or value.
    """
    try:
        return overridden(recipe, [f"{key}={json.dumps(value)}" for key, value in keys.items()])
    except VwlError as error:
        raise VwlError(f"{source}: {str(error).removeprefix(f'recipe {recipe.name}: ')}") from None


def builtin_spaces() -> list[str]:
    """Return the names of the spaces that come with the package."""
    return names_in("vwl.tune_spaces")


def load_space(name_or_path: str) -> Space:
    """Read a space by built-in name or file path, and try its settings on the default recipe.

    Raises:
        VwlError: it does not exist, is no YAML mapping, has an unknown or missing field, or changes a key that no recipe has;
            the field is named.
    """
    name = Path(name_or_path).stem if is_path(name_or_path) else name_or_path
    source = f"space {name_or_path}"
    values = parse_yaml(read_named(name_or_path, "space", "vwl.tune_spaces", "vwl tune spaces"), source)
    if not isinstance(values, dict):
        raise VwlError(f"{source} holds no mapping of fields")
    return space_from({"name": name, **values}, source)


def space_from(values: Mapping[str, Any], source: str) -> Space:
    """Validate a mapping as a space; `source` names it in the error.

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
    return space.model_copy(update={"search": {key: _tried(key, domain, f"{source}, search") for key, domain in space.search.items()}})


def _tried(key: str, domain: Domain, source: str) -> Domain:
    """Return a domain whose values the recipe takes: whole numbers where it takes no others."""
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
