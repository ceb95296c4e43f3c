"""Inference of `benchmarks/gpu.py`: class activation maps, dense CRF and random walk, on the device and as the CPU does them."""

import copy
from collections.abc import Iterator

import numpy as np
import torch
from _gpu_result import Result, milliseconds, peak_gib, reset_peak
from _paired import real_images

from vwl.config.files import load_recipe
from vwl.config.recipe import Cam, CrfKernels
from vwl.crf.dense_crf import crf_probabilities
from vwl.inference.cam import CamPredictor
from vwl.maps import random_walk as compiled_walk
from vwl.maps import random_walk_torch
from vwl.models.classifier import Classifier
from vwl.training.numerics import Numerics, arithmetic

LABELS = [3, 8, 15]
CPU = torch.device("cpu")


def cam(device: torch.device, small: bool, repeats: int) -> Result:
    """Return the time of an image's class activation maps at 4 scales with mirror, ResNet-101, float32."""
    changes = ["classifier.backbone.weights=none", *(["classifier.backbone.name=timm:test_resnet"] if small else [])]
    recipe = load_recipe("paper-voc", changes)
    torch.manual_seed(0)
    network = Classifier(recipe.classifier, 20).eval().requires_grad_(False)
    image = sized(small)
    on_cpu = CamPredictor(Cam(), network)
    on_device = CamPredictor(Cam(), copy.deepcopy(network).to(device))
    torch.set_num_threads(1)
    reset_peak(device)
    ours = milliseconds(lambda: on_device.maps(image, LABELS), device, repeats)
    memory = peak_gib(device)
    theirs = milliseconds(lambda: on_cpu.maps(image, LABELS), CPU, 1)
    with arithmetic(Numerics(tf32="none")):
        apart = float(np.abs(on_device.maps(image, LABELS).astype(float) - on_cpu.maps(image, LABELS)).max())
    speed = f"{ours:.1f} ms an image"
    return Result(
        "CAM, 4 scales with mirror", speed, ours, f"maps within {apart:.0e}", apart <= 4e-3, None, None, memory, theirs, theirs / ours
    )


def crf(device: torch.device, small: bool, repeats: int) -> Iterator[Result]:
    """Yield the times of the dense CRF in torch against the compiled one."""
    image = sized(small)
    for num_labels in (3,) if small else (2, 4, 21):
        probabilities = blocks(num_labels, image)

        def form(name: str, probabilities: np.ndarray = probabilities) -> np.ndarray:
            return crf_probabilities(image, probabilities, CrfKernels(implementation=name))

        reset_peak(device)
        ours = milliseconds(lambda form=form: form("torch"), device, repeats)
        memory = peak_gib(device)
        theirs = milliseconds(lambda form=form: form("native"), CPU, min(repeats, 3))
        found, expected = form("torch"), form("native")
        apart, same = float(np.abs(found - expected).max()), float((found.argmax(0) == expected.argmax(0)).mean())
        parity, right = f"dQ {apart:.0e}, labels {same:.3%}", apart <= 1e-3 and same >= 0.999
        yield Result(f"dense CRF, {num_labels} labels", f"{ours:.1f} ms", ours, parity, right, None, None, memory, theirs, theirs / ours)


def random_walk(device: torch.device, small: bool, repeats: int) -> Iterator[Result]:
    """Yield the times of IRNet's walk in torch against the compiled one."""
    rng = np.random.default_rng(0)
    for num_maps, shape in ((2, (18, 25)),) if small else ((3, (94, 125)), (20, (94, 125)), (3, (256, 256))):
        maps, edge = rng.random((num_maps, *shape)).astype(np.float32), rng.random(shape).astype(np.float32) ** 4

        def on_device(maps: np.ndarray = maps, edge: np.ndarray = edge) -> np.ndarray:
            return random_walk_torch.walk(maps, edge, 5, 10.0, 256, 1e-5, device)

        def on_cpu(maps: np.ndarray = maps, edge: np.ndarray = edge) -> np.ndarray:
            return compiled_walk.walk(maps, edge)

        reset_peak(device)
        ours = milliseconds(on_device, device, repeats)
        memory = peak_gib(device)
        theirs = milliseconds(on_cpu, CPU, repeats)
        apart = float(np.abs(on_device() - on_cpu()).max() / maps.max())
        what = f"random walk, {num_maps} maps of {shape[0]} x {shape[1]}"
        yield Result(what, f"{ours:.1f} ms", ours, f"maps within {apart:.0e}", apart <= 1e-4, None, None, memory, theirs, theirs / ours)


def sized(small: bool) -> np.ndarray:
    """Return an image of 375 x 500 pixels, or a part of it."""
    (image,) = real_images(1)
    return np.ascontiguousarray(image[:72, :96]) if small else image


def blocks(num_labels: int, image: np.ndarray) -> np.ndarray:
    """Draw probabilities (L, H, W) in blocks of 16 pixels, as coarse as a network's maps."""
    height, width, _ = image.shape
    coarse = np.random.default_rng(0).dirichlet(np.full(num_labels, 0.5), (height // 16 + 1, width // 16 + 1))
    return coarse.transpose(2, 0, 1).repeat(16, 1).repeat(16, 2)[:, :height, :width].astype(np.float32)
