"""Rows and columns of a search space, and the settings that they make."""

import json
from dataclasses import fields
from typing import Annotated, Any, Literal, NamedTuple, get_args

from pydantic import AliasChoices, BeforeValidator, Field

from vwl.config.strict import StrictModel
from vwl.inference.seeds import SeedBackground
from vwl.workflow.imported import ImportedMaps

Scored = Literal["cam", "crf", "walk", "segment"]
Cell = tuple[str, str]
"""A row's label and a column's, which is empty where the space has no columns."""


def _import(value: Any) -> Any:
    """Complete what a row says of its maps to the fields of `ImportedMaps`, which are empty until the files have been looked at."""
    given = {"folder": value} if isinstance(value, str) else value
    if not isinstance(given, dict):
        return given
    unknown = given.keys() - {field.name for field in fields(ImportedMaps)}
    if unknown or not isinstance(given.get("folder"), str):
        raise ValueError(f"should be a folder, or folder, format and background{f' (not {min(unknown)})' if unknown else ''}")
    if given.get("background") not in {None, "", *get_args(SeedBackground)}:
        raise ValueError(f"has the background {given['background']}, which is none of {', '.join(get_args(SeedBackground))}")
    return {"content": "", "files": 0, **given, "format": given.get("format") or "", "background": given.get("background") or ""}


class PaperScores(StrictModel):
    """The paper's mIoU of a setting, in percent."""

    train: float | None = None
    val: float | None = None


class PaperColumns(StrictModel):
    """The paper's mIoU of each of `values`, in percent."""

    train: list[float | None] = []
    val: list[float | None] = []


class SpaceRow(StrictModel):
    """A setting of several recipe keys, or the maps of another method."""

    label: str
    set: dict[str, Any] = {}
    paper: PaperScores = PaperScores()
    papers: dict[str, PaperScores] = {}
    """The paper's mIoU by the label of the column, where the space has columns."""
    stage: Scored | None = None
    """The scored stage of this row; none: that of the space."""
    imported: Annotated[ImportedMaps | None, BeforeValidator(_import)] = Field(None, validation_alias=AliasChoices("import", "imported"))
    """`import: FOLDER`, or `{folder: FOLDER, format: ..., background: ...}`: maps (`vwl seeds import`) in place of classifier and CAM."""
    weights: dict[str, str] = {}
    """Names by recipe key of files that the command gives (`--weights NAME=FILE`); without them the row is left out."""


class SpaceColumn(StrictModel):
    """A column of a table with two axes: the stage that is scored there, and what it needs."""

    label: str
    stage: Scored
    set: dict[str, Any] = {}


class Setting(NamedTuple):
    """One row of a table.

    Attributes:
        label: text of the first column.
        overrides: recipe keys and values.
        paper_train, paper_val: the paper's mIoU, percent.
        column: the column's label, where the space has columns.
        stage: whose score is compared; none: the space's.
        imported: maps that take the place of classifier and CAM stage.
    """

    label: str
    overrides: dict[str, Any]
    paper_train: float | None = None
    paper_val: float | None = None
    column: str = ""
    stage: Scored | None = None
    imported: ImportedMaps | None = None

    @property
    def cell(self) -> Cell:
        """Where the setting is in the table."""
        return self.label, self.column


def identity(setting: Setting) -> tuple[Any, ...]:
    """Return what makes a setting another one."""
    maps = setting.imported and (setting.imported.folder, setting.imported.content, setting.imported.format, setting.imported.background)
    return (*setting.cell, setting.stage, maps, json.dumps(setting.overrides, sort_keys=True))
