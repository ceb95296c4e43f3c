"""Estimate the cost of a stage: operations of its network and CPU seconds of its other work per image, and the bytes it writes.

Networks are built on the meta device and their convolutions are counted, which works for every backbone. The throughput of a CPU core
and a GPU are assumptions, and the times of the CRF were measured once on one core; `plan.calibrate` corrects both by an earlier run.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from statistics import mean
from typing import Any

import torch
from torch import nn

from vwl.config.recipe import Cam, CrfKernels, Recipe, Segment
from vwl.constants import MAP_STRIDE
from vwl.data.index import Index, Row
from vwl.data.transforms import long_side_scale, scaled_size
from vwl.errors import VwlError
from vwl.inference.build import PROCESSES_PER_GPU
from vwl.maps.advcam import steps_at
from vwl.models.classifier import Classifier
from vwl.models.deeplab import DeepLabV2
from vwl.models.irnet import BoundaryNet
from vwl.models.psa import AffinityNet

CPU_CORE = 25e9
"""Operations a second of a CPU core in convolutions, float32: an estimate from EfficientNet-Lite0 on AVX-512."""
GPU = {"float32": 15e12, "bf16": 60e12}
"""Operations a second of a data-centre GPU in convolutions: an estimate, not measured."""
_CRF_PIXELS = 500 * 375
_CRF_SECONDS = {"native": (0.12, 0.028), "pydensecrf": (0.35, 0.043)}
"""Seconds for an image of `_CRF_PIXELS`, and per label: ten iterations on one core (`benchmarks/dense_crf.py`). The two passes for
IRNet's labels have kernels with fewer points, and together take as long as one."""
_CLASSES_WITH_MASS = 7
"""Number of classes that the segmenter predicts in an image with a probability that counts (`benchmarks/pruning.py`)."""
_WALK_SECONDS = 0.04
_IMAGE_SECONDS = 0.02
"""Seconds for reading, decoding and resizing an image and writing a result."""
_MASK_BYTES = 0.04
"""Bytes per pixel of an indexed PNG."""
_MAP_BYTES = 2 * 0.9
"""Bytes per value of a score map, float16 compressed by zstd."""
_KEPT_CHECKPOINTS = 2
_TRAINED_SHARE = 3.0
"""Operations of a training step over a forward pass: forward, backward to features, backward to weights."""
_STEP_SHARE = 2.3
"""Cost of a step of AdvCAM, relative to a forward pass (measured with Lite0 on a CPU)."""
_FROZEN_SHARE = 1.2
"""The same with a frozen backbone."""
_SIDE = 256
_SAMPLED = 24
_TYPICAL = (375, 500)


@dataclass(frozen=True)
class Cost:
    """Cost of one stage.

    Attributes:
        images: number of images processed; for a training, steps x batch size.
        operations: floating-point operations of the network per image.
        cpu_seconds: seconds of all other work per image, on one core.
        bytes: size of the results.
        activations: bytes of memory per image that the network needs in training; 0 for inference.
    """

    images: int
    operations: float
    cpu_seconds: float
    bytes: float
    activations: float = 0.0

    def seconds(self, cpus: float, gpus: int, precision: str = "float32") -> float:
        """Return the seconds: with GPUs, the network runs on them while their processes' cores do the rest; without, all runs on cores."""
        if not gpus or not self.operations:
            return self.images * (self.operations / CPU_CORE + self.cpu_seconds) / cpus
        processes = max(gpus, min(cpus, gpus * PROCESSES_PER_GPU))
        return self.images * max(self.operations / GPU[precision] / gpus, self.cpu_seconds / processes)


@dataclass(frozen=True)
class ImageStats:
    """Typical size (pixels) and number of labels of a data set's images, on which costs depend."""

    height: int
    width: int
    labels: float

    @property
    def pixels(self) -> int:
        """Pixels of a typical image."""
        return self.height * self.width


def image_stats(index: Index) -> ImageStats:
    """Return the mean size of some images, evenly spread, and the mean number of labels; VOC's usual size if no image can be read here."""
    rows = index.rows[:: max(1, len(index.rows) // _SAMPLED)][:_SAMPLED]
    labels = index.rows.num_labels
    sizes = [size for row in rows if (size := _size(index, row))] or [_TYPICAL]
    height, width = (round(mean(side)) for side in zip(*sizes, strict=True))
    return ImageStats(height, width, float(labels[labels > 0].mean()) if labels.any() else 1.0)


def _size(index: Index, row: Row) -> tuple[int, int] | None:
    try:
        image = index.read_image(row)
    except VwlError:
        return None
    return image.height, image.width


def training_cost(recipe: Recipe, stage: str, num_images: int, num_classes: int) -> Cost:
    """Return the cost of a training on `num_images` images; `num_classes` counts the background."""
    if stage == "lpcam":  # a forward pass over some images of each class, at the mean size of training
        side, images = sum(recipe.classifier.resize) // 2, min(num_images, (num_classes - 1) * recipe.lpcam.images_per_class)
        operations, activations, parameters = _network(recipe, "classifier", num_classes)(side, side)
        return Cost(images, operations, _IMAGE_SECONDS, parameters * 4, activations)
    section = getattr(recipe, stage)
    steps = recipe.segmenter.iterations if stage == "segmenter" else section.epochs * -(-num_images // section.batch_size)
    share = _FROZEN_SHARE if stage == "irnet" else _TRAINED_SHARE
    network = "classifier" if stage == "recam" else stage
    crop = getattr(recipe, network).crop
    operations, activations, parameters = _network(recipe, network, num_classes)(crop, crop)
    kept = parameters * 4 * (1 + 2 * _KEPT_CHECKPOINTS)  # weights, and checkpoints with momentum
    return Cost(steps * section.batch_size, operations * share, 0.0, kept, activations * (1 if stage == "irnet" else 2))


def inference_cost(recipe: Recipe, stage: str, num_images: int, num_classes: int, stats: ImageStats) -> Cost:
    """Return the cost of an inference stage on `num_images` images; `num_classes` counts the background."""
    size = (stats.height, stats.width)
    map_values = stats.labels * -(-stats.height // MAP_STRIDE) * -(-stats.width // MAP_STRIDE)
    maps, masks = map_values * _MAP_BYTES * num_images, stats.pixels * _MASK_BYTES * num_images
    few = stats.labels + 1
    if stage == "cam":
        operations = _passes(_network(recipe, "classifier", num_classes), recipe.cam, size) * _climbs(recipe.cam, stats.labels)
        return Cost(num_images, operations, _IMAGE_SECONDS, maps)
    if stage == "walk":
        section = recipe.psa_walk if recipe.refiner == "psa" else recipe.walk
        scaled = scaled_size(size, long_side_scale(size, section.long_side))
        operations = _network(recipe, recipe.refiner, num_classes)(*scaled)[0]
        return Cost(num_images, operations, _WALK_SECONDS + _IMAGE_SECONDS, maps)
    if stage == "segment":
        crf = _crf(recipe.segment.kernels, stats.pixels, min(num_classes, _CLASSES_WITH_MASS)) if recipe.segment.crf else 0.0
        operations = _passes(_network(recipe, "segmenter", num_classes), recipe.segment, size)
        return Cost(num_images, operations, crf + _IMAGE_SECONDS, masks)
    seconds = {
        "crf": _crf(recipe.crf.kernels, stats.pixels, few),
        "irnet-labels": _crf(recipe.irnet_labels.kernels, stats.pixels, few),
        "psa-labels": 2 * _crf(recipe.psa_labels.kernels, stats.pixels, few),
        "masks": 0.0,
    }[stage]
    return Cost(num_images, 0.0, seconds + _IMAGE_SECONDS, masks)


Counted = Callable[[int, int], tuple[float, float, int]]
"""(height, width) -> operations and activation bytes of one image, and parameters."""


def _passes(network: Counted, section: Cam | Segment, size: tuple[int, int]) -> float:
    """Return the operations of the forward passes over all scales, twice with `hflip`."""
    once = network(*scaled_size(size, long_side_scale(size, section.long_side)))[0]
    return once * sum(scale**2 for scale in section.scales) * (2 if section.hflip else 1)


def _climbs(section: Cam, labels: float) -> float:
    """Return what AdvCAM multiplies the operations of the maps by; 1 without it."""
    squares = sum(scale**2 for scale in section.scales)
    return sum(scale**2 * (steps_at(scale, section.advcam) * labels * _STEP_SHARE or 1) for scale in section.scales) / squares


def _crf(kernels: CrfKernels, pixels: int, labels: float) -> float:
    image, label = _CRF_SECONDS["pydensecrf" if kernels.implementation == "pydensecrf" else "native"]
    return (image + label * labels) * min(pixels, kernels.max_pixels) / _CRF_PIXELS * kernels.iterations / 10


def _network(recipe: Recipe, stage: str, num_classes: int) -> Counted:
    """Return a function that gives the operations of a training's network."""
    return _built(stage, getattr(recipe, stage), num_classes)


@cache
def _built(stage: str, settings: Any, num_classes: int) -> Counted:
    with torch.device("meta"):  # no storage, no arithmetic
        if stage == "classifier":
            network: nn.Module = (classifier := Classifier(settings, num_classes - 1))
            forward: Callable[[torch.Tensor], object] = classifier.features
        elif stage == "irnet":
            network = forward = BoundaryNet(settings.backbone)
        elif stage == "psa":
            network = forward = AffinityNet(settings)
        else:
            network = forward = DeepLabV2(settings, num_classes)
    operations, activations = counted(network, forward, _SIDE)
    parameters = sum(parameter.numel() for parameter in network.parameters())

    def at(height: int, width: int) -> tuple[float, float, int]:
        share = height * width / _SIDE**2
        return operations * share, activations * share, parameters

    return at


def counted(network: nn.Module, forward: Callable[[torch.Tensor], object], side: int) -> tuple[float, float]:
    """Return the operations of a network's convolutions for one square image of `side` pixels, and the bytes of their outputs (float32)."""
    totals = [0.0, 0.0]

    def count(module: nn.Module, _: object, output: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        totals[0] += 2 * output.numel() * module.weight[0].numel()
        totals[1] += 4 * output.numel()

    hooks = [module.register_forward_hook(count) for module in _convolutions(network)]
    try:
        with torch.no_grad():
            forward(torch.zeros(1, 3, side, side, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return totals[0], totals[1]


def _convolutions(network: nn.Module) -> Iterable[nn.Conv2d]:
    return (module for module in network.modules() if isinstance(module, nn.Conv2d))
