"""A run folder ready for `vwl infer cam`: images repeated under new ids, and a classifier that was never trained."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _paired import real_images
from PIL import Image

from vwl.config.recipe import Recipe
from vwl.data.index import Row, make_index, write_index
from vwl.models.classifier import Classifier
from vwl.training.checkpoint import save
from vwl.training.pretrained import load_pretrained
from vwl.workflow.run_folder import Run

NUM_IMAGES, NUM_OBJECTS = 20, 20


def cam_run(folder: Path, recipe: Recipe, num_images: int) -> Run:
    """Make index, run folder and weights below `folder`; image n is image n modulo 20, and its labels follow from that."""
    folder.mkdir(parents=True)
    rows = []
    for number, image in enumerate(real_images(NUM_IMAGES)):
        Image.fromarray(image).save(folder / f"{number}.jpg", quality=92)
        labels = np.random.default_rng(number).choice(NUM_OBJECTS, 1 + number % 3, replace=False) + 1
        rows.append(Row(str(number), f"{number}.jpg", tuple(sorted(int(label) for label in labels)), None, "train"))
    rows = [replace(rows[number % NUM_IMAGES], image_id=f"{number:05d}") for number in range(num_images)]
    classes = ["background", *(f"class{number}" for number in range(NUM_OBJECTS))]
    write_index(make_index(rows, classes, folder, "a benchmark"), folder / "index.parquet")
    run = Run.start(str(folder / "run"), recipe, str(folder / "index.parquet"))
    manifest = run.start_stage("classifier")
    torch.manual_seed(0)
    network = Classifier(recipe.classifier, NUM_OBJECTS)
    load_pretrained(network, recipe.classifier)
    save(run.folder / "classifier", "weights.pt", {"model": network.state_dict()})
    run.write_manifest(replace(manifest, state="done"))
    return run
