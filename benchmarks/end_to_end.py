"""From a trained classifier to segmentation masks: the forms of public code in one process against vwl's stages on two cores.

20 images of VOC, ResNet-50 in all three networks, settings of the recipe `reference-voc`. `_public_chain.py` says what the public forms
are. Trainings are left out on both sides, and the networks have made-up weights, since none can be had without network: drawn from a
seed, with batch norm statistics of eight of the images, and a last layer that least squares fits to labels, boundaries or masks of all
images. Maps and masks follow the objects, so that the CRF and the walk have real work.

Ours are the stages as `vwl infer --backend local` runs them, with the start of their processes, in shards of two images instead of 16
because 20 images would be too few for two processes. Parity: maps within 0.002, and the masks of each stage agree on 98 % of the
pixels: ours are enlarged from float16 at stride 4, and the CRF after DeepLab leaves out classes that no pixel has.

Processor time is that of all processes; where the machine is busy with other work, it is the fairer figure.
"""

import argparse
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from _paired import DATA, Line, show
from _public_chain import PublicChain, Seconds, agreement, largest_difference
from torch import nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _BatchNorm

from vwl.config.files import load_recipe
from vwl.config.recipe import Recipe
from vwl.constants import MAP_STRIDE
from vwl.data.index import Index, make_index, write_index
from vwl.data.scenes import prepare_scenes
from vwl.data.transforms import normalise
from vwl.data.voc import prepare_voc
from vwl.engine import local
from vwl.inference.build import InferenceSpec
from vwl.inference.runner import Shard
from vwl.models.classifier import Classifier
from vwl.models.deeplab import DeepLabV2
from vwl.models.irnet import BoundaryNet
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask
from vwl.storage.score_maps import MapReader
from vwl.training.checkpoint import save

CORES, PER_SHARD, CALIBRATED, BOUND = 2, 2, 8, 2e-3
NETWORKS = ("classifier", "irnet", "segmenter")
STEPS = {"cam": ("cam",), "crf": ("crf",), "irnet-labels": ("irnet-labels",), "walk": ("walk", "masks"), "segment": ("segment",)}
"""The steps of the public chain, and our stages that do the same."""
AGREE = {"crf": 0.98, "irnet-labels": 0.98, "masks": 0.98, "segment": 0.98}
"""Least share of pixels on which the masks of a stage agree."""
AGREE_SMALL = 0.9
"""The same for scenes of 80 pixels, whose features are 5 x 6 cells: enlarged at once or by way of stride 4, maps differ more."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="ResNet-18 and drawn scenes of 72 to 96 pixels, for the tests")
    options = parser.parse_args()
    torch.set_num_threads(CORES)
    with tempfile.TemporaryDirectory() as folder:
        index = scenes(Path(folder), options.images) if options.small else voc_images(options.images)
        backbone = "resnet18" if options.small else "resnet50"
        keys = [f"{name}.backbone.{key}" for name in NETWORKS for key in (f"name={backbone}", "weights=none")]
        recipe = load_recipe("reference-voc", [*keys, *(["walk.pad_to=128"] if options.small else [])])
        path, run = Path(folder, "index.parquet"), Folder(Path(folder, "run"))
        write_index(index, path)
        networks = made_up(recipe, index, run)
        public = PublicChain(recipe, index, Path(folder, "public"), *networks)
        theirs = {step: timed_here(getattr(public, step.replace("-", "_"))) for step in STEPS}
        ours = {step: timed_stages(stages, recipe, path, run, index) for step, stages in STEPS.items()}
        theirs["walk"] += public.dense_walk
        apart, shares = parity(public, run, index)
    right = apart <= BOUND and all(shares[stage] >= (AGREE_SMALL if options.small else least) for stage, least in AGREE.items())
    said = {"cam": f"maps within {apart:.1e}"} | {
        step: f"{shares[stages[-1]]:.2%} of pixels equal" for step, stages in STEPS.items() if step != "cam"
    }
    lines = [line(step, theirs[step], ours[step], said[step]) for step in STEPS]
    whole = [sum((times[step] for step in STEPS), Seconds()) for times in (theirs, ours)]
    without = [sum((times[step] for step in STEPS if step != "walk"), Seconds()) for times in (theirs, ours)]
    lines += [line("all but the walk", *without, ""), line("whole chain", *whole, "", "20")]
    how = "the dense walk by its number of operations" if public.dense_walk.cpu else "the dense walk run"
    show(f"From classifier to masks, {len(index.rows)} images, {backbone}: public forms, vwl on {CORES} cores; {how}", lines, right)


def line(what: str, theirs: Seconds, ours: Seconds, said: str, wanted: str = "") -> Line:
    """Return a line whose ratio is that of the wall-clock times; that of processor time is in its name."""
    return Line(f"{what} (CPU: {theirs.cpu / ours.cpu:,.1f})", str(theirs), str(ours), theirs.wall / ours.wall, wanted, said)


def voc_images(num: int) -> Index:
    """Return an index of images of VOC, one after another of each number of labels."""
    index, _ = prepare_voc(DATA / "voc12mini")
    rows = [row for row in index.rows if row.labels and row.mask is not None]
    chosen = rows[:: max(1, len(rows) // num)][:num]
    return make_index([replace(row, split="train") for row in chosen], index.classes, index.root, "a benchmark")


def scenes(folder: Path, num: int) -> Index:
    return prepare_scenes(folder / "scenes", num, 0, heights=(64, 80), widths=(72, 96), num_classes=2)[0]


def made_up(recipe: Recipe, index: Index, run: Folder) -> tuple[Classifier, BoundaryNet, DeepLabV2]:
    """Build the networks, fit their last layers, and save them as a run's weights."""
    torch.manual_seed(0)
    classifier = Classifier(recipe.classifier, index.num_objects)
    boundary, segmenter = BoundaryNet(recipe.irnet.backbone), DeepLabV2(recipe.segmenter, len(index.classes))
    images = [np.array(index.read_image(row)) for row in index.rows]
    for network in (classifier, boundary, segmenter):
        calibrate(network, [tensor(network, image) for image in images[:CALIBRATED]])
        network.eval().requires_grad_(False)
    fit_classifier(classifier, index, images)
    fit_boundary(boundary, index, images)
    fit_segmenter(segmenter, index, images)
    for name, network in zip(NETWORKS, (classifier, boundary, segmenter), strict=True):
        save(run / name, "weights.pt", {"model": network.state_dict()})
    return classifier, boundary, segmenter


def tensor(network: nn.Module, image: np.ndarray) -> torch.Tensor:
    backbone = network.get_submodule("backbone")
    return normalise(image, backbone.mean, backbone.std)[None].contiguous()  # type: ignore[arg-type]


@torch.no_grad()
def calibrate(network: nn.Module, images: Sequence[torch.Tensor]) -> None:
    """Give batch norm the mean statistics of some images, so that features of drawn weights keep their scale."""
    norms = [module for module in network.modules() if isinstance(module, _BatchNorm)]
    for norm in norms:
        norm.momentum = None  # the mean over all passes
        norm.train()
    for image in images:
        network.get_submodule("backbone")(image)
    for norm in norms:
        norm.eval()


@torch.no_grad()
def fit_classifier(network: Classifier, index: Index, images: Sequence[np.ndarray]) -> None:
    """Fit the image-label head to the labels, by ridge regression of the mean features."""
    features = torch.cat([network.features(tensor(network, image)).mean((2, 3)) for image in images])
    targets = torch.zeros(len(images), index.num_objects)
    for target, row in zip(targets, index.rows, strict=True):
        target[[label - 1 for label in row.labels]] = 1
    network.image_head.weight.copy_(ridge(features, targets).T)


@torch.no_grad()
def fit_boundary(network: BoundaryNet, index: Index, images: Sequence[np.ndarray]) -> None:
    """Fit the last layer to the boundaries of the masks: logits of 2 there and of -4 elsewhere, by ridge regression."""
    found: list[torch.Tensor] = []
    hook = network.join.register_forward_pre_hook(lambda _, given: found.append(given[0][0].flatten(1).T))
    targets = []
    for row, image in zip(index.rows, images, strict=True):
        height, width = network(tensor(network, image)).shape[2:]
        mask = index.read_mask(row)[::MAP_STRIDE, ::MAP_STRIDE][:height, :width].astype(int)
        edge = np.zeros(mask.shape, bool)
        edge[1:] |= np.diff(mask, axis=0) != 0
        edge[:, 1:] |= np.diff(mask, axis=1) != 0
        targets.append(torch.from_numpy(np.where(edge, 2.0, -4.0)).flatten())
    hook.remove()
    features, target = torch.cat(found), torch.cat(targets)[:, None]
    solved = ridge(torch.cat([features, torch.ones(len(features), 1)], 1), target)
    network.join.weight.copy_(solved[:-1].T[:, :, None, None])
    assert network.join.bias is not None
    network.join.bias.copy_(solved[-1])


@torch.no_grad()
def fit_segmenter(network: DeepLabV2, index: Index, images: Sequence[np.ndarray]) -> None:
    """Fit the centres of the dilated convolutions to the masks, by ridge regression of the features of some cells."""
    found, targets = [], []
    for row, image in zip(index.rows, images, strict=True):
        features = network.backbone(tensor(network, image))[-1][0]
        truth = torch.from_numpy(index.read_mask(row).astype(np.float32))[None, None]
        truth = F.interpolate(truth, features.shape[1:], mode="nearest").flatten().long()
        known = (truth < len(index.classes)).nonzero().flatten()[::7]
        found.append(features.flatten(1)[:, known].T)
        targets.append(F.one_hot(truth[known], len(index.classes)).float())
    solved = 10 * ridge(torch.cat(found), torch.cat(targets)).T  # logits
    for weight in network.aspp_weights():
        weight.zero_()
        weight[:, :, 1, 1] = solved / len(network.aspp)


def ridge(features: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the weights (d, C) float32 of least squares with a penalty, in float64."""
    x, y = features.double(), targets.double()
    products = x.T @ x
    penalty = 1e-2 * products.diagonal().mean() * torch.eye(len(products), dtype=x.dtype)
    return torch.linalg.solve(products + penalty, x.T @ y).float()


def timed_here(work: Callable[[], object]) -> Seconds:
    """Return the time of a function in this process."""
    spent = Seconds()
    spent.timed(work)
    return spent


def timed_stages(stages: Sequence[str], recipe: Recipe, index_path: Path, run: Folder, index: Index) -> Seconds:
    """Run stages in processes of their own; return the time, with that of the processes."""
    slices = [tuple(index.rows[first : first + PER_SHARD]) for first in range(0, len(index.rows), PER_SHARD)]
    shards = [Shard(number, rows) for number, rows in enumerate(slices)]
    start, before = time.perf_counter(), processor_time()
    for stage in stages:
        threshold = {"crf": recipe.crf.background, "masks": recipe.walk.background_threshold}.get(stage)
        assert threshold is None or not isinstance(threshold, str)
        local.run_shards(InferenceSpec(stage, recipe, str(index_path), run, threshold, strict=True), shards, 0, lambda _: None, CORES)
        while multiprocessing.active_children():  # their time counts when they have ended
            time.sleep(0.01)
    return Seconds(time.perf_counter() - start, processor_time() - before)


def processor_time() -> float:
    """Return the processor time of this process and of those that it has started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def parity(public: PublicChain, run: Folder, index: Index) -> tuple[float, dict[str, float]]:
    """Return the largest difference of the maps, and by stage the share of pixels with equal masks."""
    maps = MapReader(run / "cam")
    apart = largest_difference(
        [maps.read(row.image_id).values.astype(np.float32) for row in index.rows], [public.load("cam", row)["cam"] for row in index.rows]
    )
    shares = {}
    for stage in AGREE:
        ours = [decode_mask((run / stage).read(f"{row.image_id}.png"), row.image_id) for row in index.rows]
        shares[stage] = agreement(ours, [public.read(stage, row) for row in index.rows])
    return apart, shares


if __name__ == "__main__":
    main()
