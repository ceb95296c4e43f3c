"""The table of stages: what each reads, which settings it depends on, and which images it processes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from vwl.config.recipe import Cam, Recipe, Walk
from vwl.data.index import Index, Row
from vwl.training.build import TRAIN_SPLIT

Kind = Literal["train", "maps", "masks"]


@dataclass(frozen=True)
class StageSpec:
    """One stage.

    Attributes:
        name: of the stage and of its folder in the run.
        kind: a training, or an inference stage that writes score maps or masks.
        reads: the stages whose results it reads.
        settings: returns the recipe's part that its result depends on, besides the settings of the stages it reads.
        rows: returns the images it processes; not used by trainings.
    """

    name: str
    kind: Kind
    reads: tuple[str, ...]
    settings: Callable[[Recipe], Any]
    rows: Callable[[Index], list[Row]]


def _without_threshold(section: Cam | Walk) -> Cam | Walk:
    """The settings that score maps depend on: all but the threshold, which is applied to them later."""
    return section.model_copy(update={"background_threshold": 0.0})


def training_rows(index: Index) -> list[Row]:
    """Return the images to train on."""
    return index.split(TRAIN_SPLIT)


def scored_rows(index: Index, split: str) -> list[Row]:
    """Return the images of a split that have labels and ground truth, corrected masks included."""
    return [row for row in index.rows if row.split == split and row.has_truth and row.labels]


def _with_mask(index: Index, split: str) -> list[Row]:
    """Return the images of a split that have labels and a mask of the data set: the same ones when masks are corrected later."""
    return [row for row in scored_rows(index, split) if row.mask is not None]


def _training_and_scored(index: Index) -> list[Row]:
    wanted = {row.image_id for row in [*training_rows(index), *_with_mask(index, "val")]}
    return [row for row in index.rows if row.image_id in wanted]


def _scored_and_test(index: Index) -> list[Row]:
    usual = [*_scored_or_training(index), *(row for row in index.rows if row.split == "test")]
    processed = {row.image_id for row in usual}
    return [*usual, *(row for row in index.rows if row.corrected is not None and row.image_id not in processed)]


def _scored_or_training(index: Index) -> list[Row]:
    return [*_with_mask(index, "train"), *_with_mask(index, "val")] or training_rows(index)


STAGES: dict[str, StageSpec] = {
    spec.name: spec
    for spec in (
        StageSpec("classifier", "train", (), lambda r: r.classifier, training_rows),
        StageSpec("cam", "maps", ("classifier",), lambda r: _without_threshold(r.cam), _training_and_scored),
        StageSpec("crf", "masks", ("cam",), lambda r: r.crf, _scored_or_training),
        StageSpec("irnet-labels", "masks", ("cam",), lambda r: r.irnet_labels, training_rows),
        StageSpec("irnet", "train", ("irnet-labels",), lambda r: r.irnet, training_rows),
        StageSpec("walk", "maps", ("cam", "irnet"), lambda r: _without_threshold(r.walk), _training_and_scored),
        StageSpec("masks", "masks", ("walk",), lambda r: r.walk.background_threshold, training_rows),
        StageSpec("segmenter", "train", ("masks",), lambda r: r.segmenter, training_rows),
        StageSpec("segment", "masks", ("segmenter",), lambda r: r.segment, _scored_and_test),
    )
}
"""All stages by name, in the order in which `vwl run` runs them."""
SCORED = ("cam", "crf", "walk", "segment")
"""Stages whose results are scored against ground truth."""
SPLITS = ("train", "val")
"""Splits that are scored."""
