"""Builds the task of a training from a picklable spec, on each worker."""

from dataclasses import dataclass

from vwl.config.recipe import Recipe
from vwl.data.index import Index, Rows, read_index
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.training.classifier import ClassifierTask
from vwl.training.irnet import IrnetTask
from vwl.training.lpcam import LpcamTask
from vwl.training.psa import PsaTask
from vwl.training.recam import RecamTask
from vwl.training.segmenter import SegmenterTask
from vwl.training.task import Task

TRAIN_SPLIT = "train_aug"
"""Images to train on: splits `train` and `aug`."""


@dataclass(frozen=True)
class TrainSpec:
    """A training as it is sent to workers.

    Attributes:
        stage: `classifier`, `recam`, `lpcam`, `irnet`, `psa` or `segmenter`.
        recipe: all settings.
        index_path: the data set's index table, which each worker reads.
        folder: where checkpoints, metrics and weights go.
        reads: folder of the stage that it reads: of label PNGs (irnet, psa, segmenter), or of a network (recam, lpcam).
        fingerprint: identifies settings and inputs.
    """

    stage: str
    recipe: Recipe
    index_path: str
    folder: Folder
    reads: Folder | None
    fingerprint: str


def build_task(spec: TrainSpec) -> Task:
    """Build the task of a training.

    Raises:
        VwlError: there are no training images, one has no label, masks of an earlier stage are missing, or the weights to start from
            cannot be loaded.
    """
    index = read_index(spec.index_path)
    rows = index.split(TRAIN_SPLIT)
    if spec.stage in ("classifier", "recam", "lpcam"):
        return _build_classifier(spec, index, rows)
    assert spec.reads is not None
    rows = rows.where(rows.among(name.removesuffix(".png") for name in spec.reads.each_name(".png")))
    if spec.stage == "irnet" or (spec.stage == "segmenter" and spec.recipe.segmenter.negatives == "exclude"):
        rows = rows.where(~rows.negative)
    if not rows:
        raise VwlError(f"{spec.reads} holds no masks to train {spec.stage} on; run the stages before it (vwl run does)")
    tasks: dict[str, type[IrnetTask | PsaTask | SegmenterTask]] = {"irnet": IrnetTask, "psa": PsaTask, "segmenter": SegmenterTask}
    return tasks[spec.stage](spec.recipe, index, rows, spec.reads)


def _build_classifier(spec: TrainSpec, index: Index, rows: Rows) -> ClassifierTask:
    require_labels(rows)
    held_out = index.rows.where(index.rows.in_splits("val") & index.rows.is_labelled)
    if spec.stage == "classifier":
        return ClassifierTask(spec.recipe, index, rows, held_out)
    assert spec.reads is not None
    return (RecamTask if spec.stage == "recam" else LpcamTask)(spec.recipe, index, rows, held_out, spec.reads)


def require_labels(rows: Rows) -> None:
    """Check that every image to train the classifier on has a label or is negative, and that not all are negative.

    Raises:
        VwlError: one has none, or none has one.
    """
    unlabelled = rows.where(~rows.is_labelled)
    if unlabelled:
        raise VwlError(
            f"image {unlabelled[0].image_id} has no label ({len(unlabelled)} of {len(rows)} training images); "
            "label it or remove it from the index"
        )
    if not rows.num_labels.any():
        raise VwlError(f"none of the {len(rows):,} training images has a label, all are negative; a class is learned from images of it")
