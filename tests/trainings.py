"""The trainings at a size where a step takes a fraction of a second, on tiny scenes, without pre-trained weights."""

import json
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import torch

from tests.helpers import tiny_scenes
from vwl.config.layout import Layout
from vwl.config.recipe import Backbone, Classifier, Codebook, Irnet, Optimiser, Psa, Recam, Recipe, Section, Segmenter
from vwl.data.index import write_index
from vwl.models.classifier import Classifier as ClassifierNet
from vwl.storage.folder import Folder
from vwl.training import checkpoint, loop
from vwl.training.build import TrainSpec, build_task
from vwl.training.task import Task

NUM_TRAIN, BATCH = 8, 4
STEPS_PER_EPOCH = NUM_TRAIN // BATCH
PLAIN = Backbone(name="timm:test_resnet", weights="none")
"""A residual network of 0.4 million parameters in five stages, made for tests."""

RECIPE = Recipe(
    name="tiny",
    seed=3,
    classifier=Classifier(
        backbone=PLAIN,
        linear_probe="none",
        frozen_stages=3,
        codebook=Codebook(num_codewords=16, momentum=0.1),
        optimiser=Optimiser(learning_rate=0.02),
        batch_size=BATCH,
        crop=64,
        resize=(48, 96),
    ),
    recam=Recam(optimiser=Optimiser(learning_rate=0.01), batch_size=BATCH),
    irnet=Irnet(backbone=PLAIN, optimiser=Optimiser(learning_rate=0.1, head_lr_mult=1), batch_size=BATCH, crop=64, radius=5),
    psa=Psa(backbone=PLAIN, optimiser=Optimiser(learning_rate=0.01, weight_decay=5e-4), batch_size=BATCH, crop=64, radius=3),
    segmenter=Segmenter(
        backbone=PLAIN,
        atrous_rates=(2, 4),
        input_scales=(0.5,),
        optimiser=Optimiser(learning_rate=0.01, weight_decay=5e-4),
        batch_size=BATCH,
        crop=49,
    ),
)
"""Crops are larger than some of the resized scenes, so that padding is met."""

FLOAT64 = Layout(precision="float64")

SectionType = TypeVar("SectionType", bound=Section)


def with_changes(section: SectionType, **changes: Any) -> SectionType:
    """Return a section of a recipe with other values, validated; a dictionary changes values of a section inside it."""
    values = section.model_dump()
    for name, value in changes.items():
        values[name] = {**values[name], **value} if isinstance(value, dict) else value
    return type(section).model_validate(values)


KINDS = ("classifier-L", "classifier-M", "recam-L", "recam-M", "irnet", "psa", "segmenter")
"""The trainings; the classifier's two strategies of the codebook are two of them, and ReCAM goes on with both."""


def make_data(folder: Path, num_val: int = 3) -> Path:
    """Draw the scenes, save a classifier of each strategy for ReCAM and LPCAM to go on with, and return the path of the index."""
    index = tiny_scenes(folder / "scenes", NUM_TRAIN, num_val)
    write_index(index, folder / "index.parquet")
    for strategy in ("learning", "memory"):
        with torch.random.fork_rng():
            torch.manual_seed(1)
            network = ClassifierNet(with_changes(RECIPE.classifier, codebook={"strategy": strategy}), index.num_objects)
            checkpoint.save(Folder(folder / f"classifier-{strategy}"), loop.WEIGHTS, {"model": network.state_dict()})
    return folder / "index.parquet"


def tiny_spec(kind: str, index_path: Path, folder: Path, num_steps: int = 6) -> TrainSpec:
    """Return one of the `KINDS` of training; the scenes' own masks stand for the labels of earlier stages, an
    untrained classifier for a trained one."""
    epochs = -(-num_steps // STEPS_PER_EPOCH)
    stage, _, strategy = kind.partition("-")
    strategy = "memory" if strategy == "M" else "learning"
    codebook = RECIPE.classifier.codebook.model_copy(update={"strategy": strategy})
    recipe = RECIPE.model_copy(
        update={
            "classifier": RECIPE.classifier.model_copy(update={"codebook": codebook, "epochs": epochs}),
            "recam": RECIPE.recam.model_copy(update={"epochs": epochs if stage == "recam" else 0}),
            "irnet": RECIPE.irnet.model_copy(update={"epochs": epochs}),
            "psa": RECIPE.psa.model_copy(update={"epochs": epochs}),
            "segmenter": RECIPE.segmenter.model_copy(update={"iterations": num_steps}),
        }
    )
    reads = f"classifier-{strategy}" if stage in ("recam", "lpcam") else "scenes/masks"
    return TrainSpec(stage, recipe, str(index_path), Folder(folder), Folder(index_path.parent / reads), kind)


def train_to_end(
    spec: TrainSpec, layout: Layout = FLOAT64, callbacks: loop.Callbacks | None = None, log_every: int = 1
) -> tuple[Task, loop.TrainResult]:
    """Train in this process, or as a worker of its process group; return the task and the loop's result."""
    torch.set_num_threads(layout.cpus_per_worker)  # the last bit depends on it, and a test before may have left another number
    task = build_task(spec)
    with mock.patch.object(loop, "LOG_EVERY", log_every):
        return task, loop.train(task, layout, spec.folder, spec.fingerprint, callbacks)


def metrics(folder: Path) -> list[dict[str, Any]]:
    """Return the lines of a training's metrics without those that tell of time."""
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in {"images_per_second", "data_wait_share"}} for line in lines]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    """Return the trained network's parameters and buffers."""
    return torch.load(folder / "weights.pt", weights_only=True)["model"]
