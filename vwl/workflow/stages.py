"""The stages in order: what each reads, which settings it depends on, and which photographs it takes."""

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
        kind: a training, or an inference that leaves score maps or masks.
        reads: the stages whose results it reads.
        settings: the recipe's part that its result depends on (besides those of the stages it reads).
        rows: the photographs it takes; unused by trainings.
    """

    name: str
    kind: Kind
    reads: tuple[str, ...]
    settings: Callable[[Recipe], Any]
    rows: Callable[[Index], list[Row]]


def _undecided(section: Cam | Walk) -> Cam | Walk:
    """The settings that soft maps depend on: not the threshold, which is applied to them later."""
    return section.model_copy(update={"background_threshold": 0.0})


def training_rows(index: Index) -> list[Row]:
    """Photographs that are trained on."""
    return index.split(TRAIN_SPLIT)


def scored_rows(index: Index, split: str) -> list[Row]:
    """Photographs of a split that have labels and ground truth."""
    return [row for row in index.rows if row.split == split and row.mask is not None and row.labels]


def _training_and_scored(index: Index) -> list[Row]:
    wanted = {row.image_id for row in [*training_rows(index), *scored_rows(index, "val")]}
    return [row for row in index.rows if row.image_id in wanted]


def _scored_and_test(index: Index) -> list[Row]:
    return [*_scored_or_training(index), *(row for row in index.rows if row.split == "test")]


def _scored_or_training(index: Index) -> list[Row]:
    return [*scored_rows(index, "train"), *scored_rows(index, "val")] or training_rows(index)


STAGES: dict[str, StageSpec] = {
    spec.name: spec
    for spec in (
        StageSpec("classifier", "train", (), lambda r: r.classifier, training_rows),
        StageSpec("cam", "maps", ("classifier",), lambda r: _undecided(r.cam), _training_and_scored),
        StageSpec("crf", "masks", ("cam",), lambda r: r.crf, _scored_or_training),
        StageSpec("irnet-labels", "masks", ("cam",), lambda r: r.irnet_labels, training_rows),
        StageSpec("irnet", "train", ("irnet-labels",), lambda r: r.irnet, training_rows),
        StageSpec("walk", "maps", ("cam", "irnet"), lambda r: _undecided(r.walk), _training_and_scored),
        StageSpec("masks", "masks", ("walk",), lambda r: r.walk.background_threshold, training_rows),
        StageSpec("segmenter", "train", ("masks",), lambda r: r.segmenter, training_rows),
        StageSpec("segment", "masks", ("segmenter",), lambda r: r.segment, _scored_and_test),
    )
}
"""All stages by name, in the order in which `vwl run` does them."""
