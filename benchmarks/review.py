"""What a review of masks is worth: whether the top of the queue holds bad masks, and what correcting it adds to the segmentation model.

On a finished run with ground truth (`vwl run`): for several rankings the mean IoU of the masks of the queue's first tenth against that of
all, on train and val. Then, for each seed, the segmentation model is trained on the pseudo masks as they are, with the first tenth of the
training images with ground truth corrected by it, and with a tenth drawn at random, and scored on val. All trainings have the same
settings. Finished cells are kept in --out; the run is only read.
"""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vwl.config.files import overridden
from vwl.config.layout import Layout
from vwl.config.recipe import Recipe
from vwl.data.corrections import add_masks
from vwl.data.index import read_index, write_index
from vwl.engine import local
from vwl.engine.base import Engine
from vwl.inference.build import InferenceSpec, build_stage
from vwl.maps.confusion import confusion_matrix, scores
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask
from vwl.training.build import TrainSpec
from vwl.tuning.statistics import differences, mean_and_sd
from vwl.workflow.pipeline import run_stages
from vwl.workflow.reuse import reuse_stages
from vwl.workflow.review import ReviewedImage, ranking_quality, review
from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import score_table
from vwl.workflow.stages import scored_rows

ARMS = ("none", "top", "random", "all")
SETTINGS = (
    "segmenter.batch_size=8",
    "segmenter.crop=193",
    "segmenter.long_side=240",
    "segment.long_side=256",
    "segment.hflip=false",
    "segment.crf=false",
)


@dataclass(frozen=True)
class Arm:
    """A set of corrected images, and the masks to train on with them.

    Attributes:
        name: of `ARMS`.
        seed: of the draw of a random tenth; of the others 0.
    """

    name: str
    seed: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="A finished run whose data set has ground truth.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--iterations", type=int, default=150)
    parser.add_argument("--share", type=float, default=0.1, help="Of the training images with ground truth that is corrected.")
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=["none", "top", "random"])
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    run = Run.open(options.run)
    found: dict[str, dict[int, float]] = {}
    for seed in range(options.seeds):
        for name in options.arms:
            found.setdefault(name, {})[seed] = cell(run, options, name, seed)
            print(f"{name} seed {seed}: val mIoU {found[name][seed]:.2f}", flush=True)
    lines = rankings_of(run)
    compared = {
        base: {name: asdict(value) for name, value in differences(found, base).items()} for base in ("none", "random") if base in found
    }
    results = {
        "run_scores": [{"stage": line.stage, "split": line.split, "images": line.images, "miou": line.miou} for line in score_table(run)],
        "settings": [*SETTINGS, f"segmenter.iterations={options.iterations}"],
        "share": options.share,
        "rankings": lines,
        "val_miou": found,
        "differences": compared,
    }
    (options.out / "review.json").write_text(json.dumps(results, indent=1))
    print("\n| corrected training images | val mIoU | to none | to random |\n|---|--:|--:|--:|")
    for name, by_seed in found.items():
        mean, sd = mean_and_sd(list(by_seed.values()))
        print(f"| {name} | {mean:.2f} ± {sd or 0:.2f} | {shown(compared, 'none', name)} | {shown(compared, 'random', name)} |")
    print("\n| split | ranking | masks of | top tenth | all | worst tenth found |\n|---|---|---|--:|--:|--:|")
    for line in lines:
        figures = (f"{line[key]:.1f}" for key in ("miou_top", "miou_all", "share_of_worst"))
        print(f"| {' | '.join([line['split'], line['ranking'], line['stage'], *figures])} |")


def shown(compared: dict[str, dict[str, dict[str, float | None]]], base: str, name: str) -> str:
    """Return a difference with its interval, a dash where there is none."""
    found = compared.get(base, {}).get(name)
    if found is None:
        return "-"
    return f"{found['value']:+.2f}" + ("" if found["half_width"] is None else f" ± {found['half_width']:.2f}")


def rankings_of(run: Run) -> list[dict[str, Any]]:
    """Return how bad the first tenth of the queue is, by split, ranking and stage."""
    lines = []
    images = review(run).images
    for split in ("train", "val"):
        own = [image for image in images if image.row.split == split and image.mious]
        for ranking, ordered in rankings(own).items():
            lines += [{"split": split, "ranking": ranking, **asdict(line)} for line in ranking_quality(ordered)]
    return lines


def rankings(images: list[ReviewedImage]) -> dict[str, list[ReviewedImage]]:
    """Return the images in the order of several rankings that use no ground truth."""
    values: dict[str, list[float]] = {"disagreement": [image.disagreement for image in images]}
    for pair in sorted({pair for image in images for pair in image.pairs}):
        values[" / ".join(pair)] = [1 - image.pairs.get(pair, 1.0) for image in images]
    values["entropy of the walk"] = [image.entropy or 0.0 for image in images]
    ranks = [np.argsort(np.argsort(values[name])) for name in ("disagreement", "entropy of the walk")]
    values["disagreement + entropy (mean rank)"] = list(np.mean(ranks, axis=0))
    return {name: [images[i] for i in np.argsort(-np.array(value), kind="stable")] for name, value in values.items()}


def cell(run: Run, options: argparse.Namespace, name: str, seed: int) -> float:
    """Train the segmentation model of one arm with one seed and return its val mIoU in percent, or the stored one."""
    stored = options.out / "cells" / f"{name} {options.iterations} {seed}.json"
    if stored.exists():
        return float(json.loads(stored.read_text())["miou"])
    arm = Arm(name, seed if name == "random" else 0)
    masks = run_with_masks(run, options, arm)
    recipe = recipe_of(run, options.iterations, seed)
    folder = Folder(options.out / "trained" / f"{name}-{options.iterations}-{seed}")
    spec = TrainSpec(
        "segmenter", recipe, masks.index_path, folder / "segmenter", masks.folder / "masks", f"{name} {options.iterations} {seed}"
    )
    local.fit(spec, Layout(cpus_per_worker=1), lambda progress: None)
    stage, rows = build_stage(InferenceSpec("segment", recipe, masks.index_path, folder)), scored_rows(run.index, "val")
    confusion = sum(confusion_matrix(run.index.read_mask(row), np.asarray(stage(row)), len(run.index.classes)) for row in rows)
    names = recipe.evaluation.classes
    miou = 100 * scores(np.asarray(confusion), None if names is None else run.index.class_ids(names)).miou
    stored.parent.mkdir(parents=True, exist_ok=True)
    stored.write_text(
        json.dumps({"arm": name, "seed": seed, "miou": miou, "iterations": options.iterations, "corrected": corrected_count(masks)})
    )
    return miou


def recipe_of(run: Run, iterations: int, seed: int) -> Recipe:
    return overridden(run.recipe, [*SETTINGS, f"segmenter.iterations={iterations}", f"seed={seed}"])


def corrected_count(run: Run) -> int:
    return sum(row.corrected is not None for row in run.index.rows)


def run_with_masks(run: Run, options: argparse.Namespace, arm: Arm) -> Run:
    """Return a run whose masks stage has taken the corrected masks of an arm; earlier stages are those of the reviewed run."""
    folder = options.out / "runs" / f"{arm.name}-{arm.seed}"
    index_path = folder.with_suffix(".parquet")
    if not index_path.exists():
        index = read_index(run.index_path)
        chosen = corrected_ids(run, options, arm)
        (options.out / "truth" / folder.name).mkdir(parents=True, exist_ok=True)
        for row in index.rows:
            if row.image_id in chosen:
                (options.out / "truth" / folder.name / f"{row.image_id}.png").write_bytes(encode_mask(index.read_mask(row), index.palette))
        if chosen:
            index = add_masks(index, Folder(options.out / "truth" / folder.name)).index
        write_index(index, index_path)
    opened = Run.start(str(folder), run.recipe, str(index_path))
    reuse_stages(opened, run.folder)
    run_stages(opened, ["masks"], Engine(local, local), Layout(cpus_per_worker=1), lambda progress: None, lambda line: None)
    return opened


def corrected_ids(run: Run, options: argparse.Namespace, arm: Arm) -> set[str]:
    """Return the ids of the training images that an arm corrects."""
    ids = [row.image_id for row in scored_rows(run.index, "train")]
    number = round(options.share * len(ids))
    if arm.name == "top":
        ranked = [image.row.image_id for image in review(run).images]
        return set([image_id for image_id in ranked if image_id in set(ids)][:number])
    if arm.name == "random":
        return set(np.random.default_rng(arm.seed).choice(ids, number, replace=False).tolist())
    return set(ids) if arm.name == "all" else set()


if __name__ == "__main__":
    main()
