"""From a stage's name to its training task: what a worker needs to know fits in a picklable spec."""

from dataclasses import dataclass

from vwl.config.recipe import Recipe
from vwl.data.index import Row, read_index
from vwl.errors import VwlError
from vwl.models.weights import load_weights
from vwl.storage.folder import Folder
from vwl.training.classifier import ClassifierTask
from vwl.training.irnet import IrnetTask
from vwl.training.segmenter import SegmenterTask
from vwl.training.task import Task

TRAIN_SPLIT = "train_aug"
"""Photographs that are trained on: `train` and `aug`."""


@dataclass(frozen=True)
class TrainSpec:
    """A training, as it is sent to workers.

    Attributes:
        stage: `classifier`, `irnet` or `segmenter`.
        recipe: all settings.
        index_path: the data set's index table; workers read it themselves.
        folder: where checkpoints, metrics and weights go.
        masks: folder of the label PNGs (irnet, segmenter).
        fingerprint: of settings and inputs.
    """

    stage: str
    recipe: Recipe
    index_path: str
    folder: Folder
    masks: Folder | None
    fingerprint: str


def build_task(spec: TrainSpec) -> Task:
    """Build a training's network and samples.

    Raises:
        VwlError: no photographs to train on, some without labels, labels of earlier stages missing, or weights of another network.
    """
    task = _new_task(spec)
    start_from = getattr(spec.recipe, spec.stage).start_from
    if start_from is not None:
        load_weights(task.model, start_from)
    return task


def _new_task(spec: TrainSpec) -> Task:
    index = read_index(spec.index_path)
    rows = index.split(TRAIN_SPLIT)
    if spec.stage == "classifier":
        _need_labels(rows)
        held_out = [row for row in index.rows if row.split == "val" and row.labels]
        return ClassifierTask(spec.recipe, index, rows, held_out)
    assert spec.masks is not None
    there = set(spec.masks.names(".png"))
    rows = [row for row in rows if f"{row.image_id}.png" in there]
    if not rows:
        raise VwlError(f"{spec.masks} holds no labels to train {spec.stage} on; run the stages before it first (vwl run does)")
    return (IrnetTask if spec.stage == "irnet" else SegmenterTask)(spec.recipe, index, rows, spec.masks)


def _need_labels(rows: list[Row]) -> None:
    bare = [row.image_id for row in rows if not row.labels]
    if bare:
        raise VwlError(
            f"image {bare[0]} has no label ({len(bare)} of {len(rows)} training images); give it one or leave it out of the index"
        )
