"""The table of stages: what each reads, which settings it depends on, and which images it processes."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from vwl.config.networks import cam_network, classifier_stage
from vwl.config.recipe import Recipe, hashed_settings
from vwl.data.index import Index, Rows
from vwl.data.rows import joined
from vwl.training.build import TRAIN_SPLIT

Kind = Literal["train", "maps", "masks"]


@dataclass(frozen=True)
class StageSpec:
    """One stage.

    Attributes:
        name: of the stage and of its folder in the run.
        kind: a training, or an inference stage that writes score maps or masks.
        reads: returns the stages whose results it reads.
        settings: returns the recipe's part that its result depends on, besides the settings of the stages it reads.
        rows: returns the images it processes; not used by trainings.
    """

    name: str
    kind: Kind
    reads: Callable[[Recipe], tuple[str, ...]]
    settings: Callable[[Recipe], Any]
    rows: Callable[[Index], Rows]


def _cam_settings(recipe: Recipe) -> dict[str, Any]:
    """The settings that score maps depend on: all but the threshold, which is applied to them later."""
    return {**hashed_settings(recipe, "cam"), "background_threshold": 0.0}


def _walk_settings(recipe: Recipe) -> dict[str, Any]:
    if recipe.refiner == "psa":
        return hashed_settings(recipe, "psa_walk")
    return {**hashed_settings(recipe, "walk"), "background_threshold": 0.0}


def _masks_settings(recipe: Recipe) -> Any:
    return {"irnet": recipe.walk.background_threshold, "psa": "own background", "none": recipe.cam.background_threshold}[recipe.refiner]


def _reads(*stages: str) -> Callable[[Recipe], tuple[str, ...]]:
    return lambda recipe: stages


def refined_maps(recipe: Recipe) -> str:
    """Return the stage whose maps become the pseudo masks."""
    return "cam" if recipe.refiner == "none" else "walk"


def training_rows(index: Index) -> Rows:
    """Return the images to train on."""
    return index.split(TRAIN_SPLIT)


def scored_rows(index: Index, split: str) -> Rows:
    """Return the images of a split that are labelled, negative ones among them, and have ground truth, corrected masks included."""
    rows = index.rows
    return rows.where(rows.in_splits(split) & rows.has_truth & rows.is_labelled)


def _with_mask(index: Index, split: str) -> Rows:
    """Return the labelled images of a split that have a mask of the data set: the same ones when masks are corrected later."""
    rows = scored_rows(index, split)
    return rows.where(rows.has_mask)


def _training_and_scored(index: Index) -> Rows:
    return index.rows.where(index.rows.includes(training_rows(index), _with_mask(index, "val")))


def _scored_and_test(index: Index) -> Rows:
    usual = joined(_scored_or_training(index), index.rows.where(index.rows.in_splits("test")))
    return joined(usual, index.rows.where(index.rows.is_corrected & ~index.rows.includes(usual)))


def _scored_or_training(index: Index) -> Rows:
    with_mask = joined(_with_mask(index, "train"), _with_mask(index, "val"))
    return with_mask if len(with_mask) else training_rows(index)


STAGES: dict[str, StageSpec] = {
    spec.name: spec
    for spec in (
        StageSpec("classifier", "train", _reads(), lambda r: r.classifier, training_rows),
        StageSpec("recam", "train", _reads("classifier"), lambda r: r.recam, training_rows),
        StageSpec("lpcam", "train", lambda r: (classifier_stage(r),), lambda r: r.lpcam, training_rows),
        StageSpec("cam", "maps", lambda r: (cam_network(r),), _cam_settings, _training_and_scored),
        StageSpec("crf", "masks", _reads("cam"), lambda r: r.crf, _scored_or_training),
        StageSpec("irnet-labels", "masks", _reads("cam"), lambda r: r.irnet_labels, training_rows),
        StageSpec("irnet", "train", _reads("irnet-labels"), lambda r: r.irnet, training_rows),
        StageSpec("psa-labels", "masks", _reads("cam"), lambda r: r.psa_labels, training_rows),
        StageSpec("psa", "train", _reads("psa-labels"), lambda r: r.psa, training_rows),
        StageSpec("walk", "maps", lambda r: ("cam",) if r.refiner == "none" else ("cam", r.refiner), _walk_settings, _training_and_scored),
        StageSpec("masks", "masks", lambda r: (refined_maps(r),), _masks_settings, training_rows),
        StageSpec("segmenter", "train", _reads("masks"), lambda r: hashed_settings(r, "segmenter"), training_rows),
        StageSpec("segment", "masks", _reads("segmenter"), lambda r: r.segment, _scored_and_test),
    )
}
"""All stages by name, in the order in which `vwl run` runs them."""
_REFINER_STAGES = {"irnet-labels": "irnet", "irnet": "irnet", "psa-labels": "psa", "psa": "psa"}
"""Stages that only one refiner has."""
SCORED = ("cam", "crf", "walk", "segment")
"""Stages whose results are scored against ground truth."""
SPLITS = ("train", "val")
"""Splits that are scored."""


def stages_of(recipe: Recipe) -> list[str]:
    """Return the names of the stages of a recipe, in order: those of its refiner and its maps, and all that every recipe has."""
    others = {name for name, refiner in _REFINER_STAGES.items() if refiner != recipe.refiner}
    if recipe.refiner == "none":
        others.add("walk")
    others |= {"recam", "lpcam"} - {classifier_stage(recipe), cam_network(recipe)}
    return [name for name in STAGES if name not in others]
