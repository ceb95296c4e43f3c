"""What images without objects add: class activation maps of one class, learned with and without them, on VOC images.

A task of two classes is made from VOC: dog or no dog. The classifier learns from images of dogs alone, or from these and images without
a dog (negatives), with the same settings, seeds and number of steps. The maps of val are scored (background and dog) at Otsu's threshold
of the maps of the training images, which needs no ground truth:

- dogs: images of dogs, whose label is given;
- all: all images, whose labels are given, so that an image without a dog is background everywhere;
- all, predicted: all images, the label being dog where the classifier says so (its logit is above 0).

A cell is one training. Finished cells are kept in --out, an interrupted training goes on from its last checkpoint.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _paired import DATA

from vwl.config.files import load_recipe
from vwl.config.layout import Layout
from vwl.config.recipe import Recipe, fingerprint
from vwl.data.index import Index, Row, make_index, write_index
from vwl.data.transforms import long_side_scale, normalise, resize, scaled_size
from vwl.data.voc import prepare_voc
from vwl.engine import local
from vwl.inference.build import load_classifier
from vwl.inference.cam import CamPredictor
from vwl.maps.cam import best_class, upsample
from vwl.maps.thresholds import Otsu, ThresholdHistogram
from vwl.models.classifier import Classifier
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, encode_mask
from vwl.training.build import TrainSpec
from vwl.tuning.statistics import differences, mean_and_sd

BATCH, STEPS = 16, 84
NUM_DOGS, NUM_NEGATIVES = 121, 327
"""Training images: 7 steps an epoch without negatives and 28 with them, of which 84 is a multiple."""
SETTINGS = (
    "classifier.crop=192",
    "classifier.resize=[192,256]",
    "classifier.image_bias=false",
    f"classifier.batch_size={BATCH}",
    "classifier.codebook.histogram=sum",
    "classifier.optimiser.learning_rate=0.002",
    "cam.long_side=288",
    "cam.scales=[1.0]",
)
ROWS = {"without": False, "with": True}
STARTS = {"random": "at random", "probe": "as a linear probe of the ImageNet features"}
PROBES = {"random": "none", "probe": "init"}
FIGURES = {
    "miou_dogs": "mIoU, dogs",
    "best_dogs": "its best threshold",
    "miou_all": "mIoU, all",
    "miou_predicted": "mIoU, all, predicted",
    "covered": "of images without a dog, covered",
    "called_dog": "of images without a dog, called dog",
}
Cells = dict[str, dict[int, dict[str, float]]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--start", choices=STARTS, nargs="+", default=[*STARTS], help="How the image-label head starts.")
    parser.add_argument("--results", type=Path, help="Folder for negatives.md and negatives.json.")
    options = parser.parse_args()
    torch.set_num_threads(1)
    index = dog_index(options.out / "data")
    found: dict[str, Cells] = {}
    for start in options.start:
        cells: Cells = {name: {} for name in ROWS}
        for seed in range(options.seeds):
            for name in ROWS:
                cells[name][seed] = cell(options.out, index, name, start, seed)
                print(f"{start} start, {name}, seed {seed}: {cells[name][seed]}", flush=True)
        found[start] = cells
        print(f"\nhead starts {STARTS[start]}\n\n{table(cells)}", flush=True)
    if options.results:
        (options.results / "negatives.json").write_text(json.dumps(found, indent=1) + "\n")


def dog_index(folder: Path) -> Index:
    """Return VOC's images as a data set of one class, dog; its masks are written to `folder`."""
    voc, _ = prepare_voc(DATA / "voc12mini")
    dog = voc.classes.index("dog")
    (folder / "masks").mkdir(parents=True, exist_ok=True)
    chosen = [row for split in ("train", "aug", "val") for row in voc.rows if row.split == split]
    rows = []
    for row in chosen:
        shows = dog in row.labels
        if row.split != "val" and sum(r.split == "train" and r.negative != shows for r in rows) == (NUM_DOGS if shows else NUM_NEGATIVES):
            continue
        mask, path = f"masks/{row.image_id}.png", folder / "masks" / f"{row.image_id}.png"
        if not path.exists():
            truth = voc.read_mask(row)
            path.write_bytes(encode_mask(np.where(truth == dog, 1, np.where(truth == 255, 255, 0)).astype(np.uint8), voc.palette))
        split = "val" if row.split == "val" else "train"
        rows.append(Row(row.image_id, row.image.rpartition("/")[2], (1,) if shows else (), mask, split, negative=not shows))
    return replace(make_index(rows, ("background", "dog"), voc.root / "JPEGImages", "VOC, dog or not"), source=str(folder))


def cell(out: Path, index: Index, name: str, start: str, seed: int) -> dict[str, float]:
    """Train and score a classifier, or return the figures that are stored."""
    trial = f"{name}-{seed}" if start == "random" else f"{name}-{start}-{seed}"
    stored = out / "cells" / f"{trial}.json"
    if stored.exists():
        return dict(json.loads(stored.read_text()))
    rows = [row for row in index.rows if row.split == "train" and (ROWS[name] or row.labels)]
    epochs, rest = divmod(STEPS, len(rows) // BATCH)
    assert rest == 0, "both trainings must have the same number of steps"
    recipe = load_recipe("small", [*SETTINGS, f"classifier.linear_probe={PROBES[start]}", f"classifier.epochs={epochs}", f"seed={seed}"])
    write_index(replace(index, rows=tuple(rows), source="VOC, dog or not"), out / f"{name}.parquet")
    run = Folder(out / "runs" / trial)
    spec = TrainSpec("classifier", recipe, str(out / f"{name}.parquet"), run / "classifier", None, fingerprint(recipe))
    if not (run / "classifier").exists("weights.pt"):
        local.fit(spec, Layout(cpus_per_worker=1), lambda progress: None)
    figures = score(index, recipe, load_classifier(recipe, index, run))
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_text(json.dumps(figures))
    return figures


def score(index: Index, recipe: Recipe, model: Classifier) -> dict[str, float]:
    """Return a classifier's figures in percent; its threshold is Otsu's of the maps of the dogs in train."""
    predictor, otsu = CamPredictor(recipe.cam, model), Otsu()
    for row in index.split("train"):
        if row.labels:
            _, value = best_class(predictor.maps(np.asarray(index.read_image(row)), (1,)).astype(np.float32), (1,))
            otsu.add(value)
    threshold = otsu.choose()
    steps = np.unique(np.append(np.linspace(0, 1, 101, dtype=np.float32), np.float32(threshold)))
    at = int(np.flatnonzero(steps == np.float32(threshold))[0])
    dogs, given, predicted = (ThresholdHistogram(2, steps) for _ in range(3))
    negatives, called, covered = 0, 0, []
    for row in index.split("val"):
        image, truth = np.asarray(index.read_image(row)), read_mask(index, row)
        says_dog = image_logit(recipe, model, image) > 0
        maps = predictor.maps(image, (1,))
        for histogram, labels in ((given, row.labels), (predicted, (1,) if says_dog else ()), *(((dogs, (1,)),) if row.labels else ())):
            best, value = best_class(upsample(maps[: len(labels)], *truth.shape), labels)
            histogram.add(truth, best, value)
        if not row.labels:
            negatives, called = negatives + 1, called + int(says_dog)
            covered.append(float((maps.astype(np.float32) > threshold).mean()) if says_dog else 0.0)
    return {
        "threshold": round(float(threshold), 4),
        "miou_dogs": percent(dogs.curve(None)[at]),
        "best_dogs": percent(np.nanmax(dogs.curve(None))),
        "miou_all": percent(given.curve(None)[at]),
        "miou_predicted": percent(predicted.curve(None)[at]),
        "covered": percent(np.mean(covered)),
        "called_dog": percent(called / negatives),
    }


def read_mask(index: Index, row: Row) -> np.ndarray:
    """Return the mask that `dog_index` has written."""
    path = Path(index.source) / str(row.mask)
    return decode_mask(path.read_bytes(), str(path))


@torch.inference_mode()
def image_logit(recipe: Recipe, model: Classifier, image: np.ndarray) -> float:
    """Return the logit of dog at the mean size of training."""
    backbone = model.backbone
    view = resize(image, *scaled_size(image.shape, long_side_scale(image.shape, sum(recipe.classifier.resize) // 2)))
    return float(model.image_head(model.pool(model.features(normalise(view, backbone.mean, backbone.std)[None])))[0, 0])


def percent(share: float) -> float:
    return round(100 * float(share), 2)


def table(cells: Cells) -> str:
    """Return the rows' means and deviations and their differences, as Markdown."""
    seeds: Sequence[int] = sorted(cells["with"])
    lines = [f"| figure, percent | {' | '.join(ROWS)} | difference, 95 % | by seed |", "|---|--:|--:|--:|---|"]
    for figure, described in FIGURES.items():
        values = {name: {seed: own[seed][figure] for seed in seeds} for name, own in cells.items()}
        parts = [f"{mean:.1f} ± {sd or 0:.1f}" for mean, sd in (mean_and_sd([*values[name].values()]) for name in ROWS)]
        found = differences(values, "without").get("with")
        shown = "-" if found is None else f"{found.value:+.1f} ± {found.half_width or 0:.1f}"
        each = ", ".join(f"{values['with'][seed] - values['without'][seed]:+.1f}" for seed in seeds)
        lines.append(f"| {described} | {' | '.join(parts)} | {shown} | {each} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
