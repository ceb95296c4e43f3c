"""The steps from a trained classifier to masks in the form in which public code has them: facts of IRNet's, VWL's and DeepLab's scripts.

One process; one image, one scale and one horizontal flip at a time through the network as it was trained; float32 maps at full size in
`.npy` files between the steps; pydensecrf from nothing for each pass; the dense random walk; the CRF after DeepLab over all classes.
"""

import itertools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from random_walk import SQUARINGS, dense
from scipy.sparse import csr_array
from torch.nn import functional as F

from vwl.config.recipe import CrfKernels, Recipe
from vwl.constants import IGNORE, map_size
from vwl.crf.mean_field_pydensecrf import import_pydensecrf
from vwl.data.index import Index, Row
from vwl.data.transforms import normalise, resize, scaled_size
from vwl.maps.affinity import affinities, pair_offsets
from vwl.models.classifier import Classifier
from vwl.models.deeplab import DeepLabV2
from vwl.models.irnet import BoundaryNet

DENSE_CELLS = 2500
"""Up to so many cells the dense walk is run. Beyond, its time is that of one squaring of `TIMED_CELLS`, by the number of operations, and
its result that of 256 products with the sparse matrix, which is the same up to rounding."""
TIMED_CELLS = 6000


@dataclass
class Seconds:
    """Wall-clock and processor time."""

    wall: float = 0.0
    cpu: float = 0.0

    def timed(self, work: Callable[[], object]) -> None:
        """Add the time of a function in this process, with its threads."""
        wall, cpu = time.perf_counter(), time.process_time()
        work()
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu

    def scaled(self, factor: float) -> "Seconds":
        return Seconds(self.wall * factor, self.cpu * factor)

    def __add__(self, other: "Seconds") -> "Seconds":
        return Seconds(self.wall + other.wall, self.cpu + other.cpu)

    def __str__(self) -> str:
        return f"{self.wall:,.1f} s ({self.cpu:,.1f} s CPU)"


class PublicChain:
    """The steps; each reads and writes files of `folder` and is called once for all images."""

    def __init__(
        self, recipe: Recipe, index: Index, folder: Path, classifier: Classifier, boundary: BoundaryNet, segmenter: DeepLabV2
    ) -> None:
        self.recipe, self.index, self.folder = recipe, index, folder
        self.classifier, self.boundary, self.segmenter = (network.eval() for network in (classifier, boundary, segmenter))
        self.dense_walk = Seconds()
        """Time of the dense walk where it was not run, by its number of operations."""

    def image(self, row: Row) -> np.ndarray:
        return np.array(self.index.read_image(row))

    @torch.no_grad()
    def cam(self) -> None:
        """Maps at stride 4 and at full size: maximum over the image and its flip, sum over scales, divided by the maximum."""
        backbone = self.classifier.backbone
        for row in self.index.rows:
            rgb, labels = self.image(row), [label - 1 for label in row.labels]
            size = rgb.shape[:2]
            small, large = torch.zeros(len(labels), *map_size(*size)), torch.zeros(len(labels), *size)
            for scale in self.recipe.cam.scales:
                view = normalise(resize(rgb, *scaled_size(size, scale)), backbone.mean, backbone.std).contiguous()
                upright = self.classifier.activation_maps(view[None])[:, labels]
                flipped = self.classifier.activation_maps(view.flip(2)[None])[:, labels].flip(3)
                fused = torch.maximum(upright, flipped)
                small += F.interpolate(fused, small.shape[1:], mode="bilinear", align_corners=False)[0]
                large += F.interpolate(fused, size, mode="bilinear", align_corners=False)[0]
            found = [(maps / (maps.amax((1, 2), keepdim=True) + 1e-5)).numpy() for maps in (small, large)]
            self.save("cam", row, {"keys": np.array(labels), "cam": found[0], "high_res": found[1]})

    def crf(self) -> None:
        """Masks of the maps: softmax over a constant background and the maps, one pass of the CRF."""
        settings = self.recipe.crf
        for row in self.index.rows:
            saved, rgb = self.load("cam", row), self.image(row)
            scores = np.concatenate([np.full((1, *rgb.shape[:2]), settings.background, np.float32), saved["high_res"]])
            refined = crf_pass(rgb, softmax_energies(scores), settings.kernels)
            self.write("crf", row, np.append(0, saved["keys"] + 1)[refined])

    def irnet_labels(self) -> None:
        """Labels of confident objects and background: two passes of the CRF over hard labels."""
        settings = self.recipe.irnet_labels
        for row in self.index.rows:
            saved, rgb = self.load("cam", row), self.image(row)
            ids, passes = np.append(0, saved["keys"] + 1), []
            for threshold in (settings.foreground_threshold, settings.background_threshold):
                padded = np.concatenate([np.full((1, *rgb.shape[:2]), threshold, np.float32), saved["high_res"]])
                unary = label_energies(padded.argmax(0), len(ids), settings.confidence)
                passes.append(ids[crf_pass(rgb, unary, settings.kernels)])
            label = passes[0].copy()
            label[passes[0] == 0] = IGNORE
            label[(passes[0] == 0) & (passes[1] == 0)] = 0
            self.write("irnet-labels", row, label)

    @torch.no_grad()
    def walk(self) -> None:
        """Pseudo masks: the boundary map of the padded image and its flip, the dense walk, maps at full size, the constant background."""
        settings, backbone = self.recipe.walk, self.boundary.backbone
        for row in self.index.rows:
            saved, rgb = self.load("cam", row), self.image(row)
            (height, width), (rows, columns) = rgb.shape[:2], map_size(*rgb.shape[:2])
            side = settings.pad_to or 0
            logits = []
            for view in (normalise(rgb, backbone.mean, backbone.std), normalise(rgb, backbone.mean, backbone.std).flip(2)):
                padded = F.pad(view[None], (0, max(0, side - width), 0, max(0, side - height)))
                logits.append(self.boundary(padded)[0, 0, :rows, :columns])
            edge = torch.sigmoid((logits[0] + logits[1].flip(1)) / 2).numpy()
            walked = torch.from_numpy(self.walked(saved["cam"], edge))
            large = F.interpolate(walked[None], scale_factor=4, mode="bilinear", align_corners=False)[0, :, :height, :width]
            large = torch.cat([torch.full((1, height, width), float(settings.background_threshold)), large / large.max()])
            self.write("masks", row, np.append(0, saved["keys"] + 1)[large.argmax(0).numpy()])

    def walked(self, maps: np.ndarray, edge: np.ndarray) -> np.ndarray:
        """Return the maps after the walk; counts the time of the dense form where it takes too long."""
        if edge.size <= DENSE_CELLS:
            return dense(maps, edge)
        self.dense_walk += self.one_squaring().scaled(SQUARINGS * (edge.size / TIMED_CELLS) ** 3)
        return sparse_walk(maps, edge).astype(np.float32)

    def one_squaring(self) -> Seconds:
        """Return the time of a matrix product of `TIMED_CELLS`, measured once."""
        if not hasattr(self, "_squaring"):
            matrix, self._squaring = torch.rand(TIMED_CELLS, TIMED_CELLS), Seconds()
            torch.mm(matrix[:600], matrix)  # starts the threads
            self._squaring.timed(partial(torch.mm, matrix, matrix))
        return self._squaring

    @torch.no_grad()
    def segment(self) -> None:
        """Masks of DeepLabV2: probabilities of all classes at full size in a file, then the CRF over all classes."""
        backbone, settings = self.segmenter.backbone, self.recipe.segment
        for row in self.index.rows:
            rgb = self.image(row)
            logits = self.segmenter.fused(normalise(rgb, backbone.mean, backbone.std)[None].contiguous())
            logits = F.interpolate(logits, rgb.shape[:2], mode="bilinear", align_corners=False)
            self.save("segment", row, {"scores": logits[0].numpy()})
        for row in self.index.rows:
            self.write("segment", row, crf_pass(self.image(row), softmax_energies(self.load("segment", row)["scores"]), settings.kernels))

    def save(self, step: str, row: Row, values: dict[str, np.ndarray]) -> None:
        path = self.folder / step
        path.mkdir(parents=True, exist_ok=True)
        np.savez(path / f"{row.image_id}.npz", **values)  # as large as pickled, and read without running code

    def load(self, step: str, row: Row) -> dict[str, np.ndarray]:
        with np.load(self.folder / step / f"{row.image_id}.npz") as saved:
            return dict(saved)

    def write(self, step: str, row: Row, mask: np.ndarray) -> None:
        path = self.folder / step
        path.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask.astype(np.uint8)).save(path / f"{row.image_id}.png")

    def read(self, step: str, row: Row) -> np.ndarray:
        with Image.open(self.folder / step / f"{row.image_id}.png") as image:
            return np.array(image)


def softmax_energies(scores: np.ndarray) -> np.ndarray:
    """Return -log softmax (L, H, W) of scores."""
    return -torch.log_softmax(torch.from_numpy(scores), 0).clamp(min=float(np.log(1e-5))).numpy()


def label_energies(labels: np.ndarray, num_labels: int, confidence: float) -> np.ndarray:
    """Return the energies (L, H, W) of hard labels."""
    unary = np.full((num_labels, *labels.shape), -np.log((1 - confidence) / max(1, num_labels - 1)), np.float32)
    np.put_along_axis(unary, labels[None], np.float32(-np.log(confidence)), 0)
    return unary


def crf_pass(image: np.ndarray, unary: np.ndarray, kernels: CrfKernels) -> np.ndarray:
    """Return the label position (H, W) of each pixel after a dense CRF that is built for this pass."""
    (height, width), num_labels = image.shape[:2], len(unary)
    field = import_pydensecrf().DenseCRF2D(width, height, num_labels)
    field.setUnaryEnergy(np.ascontiguousarray(unary.reshape(num_labels, -1), np.float32))
    field.addPairwiseGaussian(sxy=kernels.gaussian_sxy, compat=kernels.gaussian_compat)
    field.addPairwiseBilateral(
        sxy=kernels.bilateral_sxy, srgb=kernels.bilateral_srgb, rgbim=np.array(image, order="C"), compat=kernels.bilateral_compat
    )
    return np.array(field.inference(kernels.iterations)).reshape(num_labels, height, width).argmax(0)


def sparse_walk(maps: np.ndarray, edge: np.ndarray, radius: int = 5, exponent: int = 10) -> np.ndarray:
    """Walk 2^8 steps with the sparse matrix of the dense form, in float64."""
    num, (height, width) = edge.size, edge.shape
    position = np.arange(num).reshape(edge.shape)
    entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = [(np.ones(num), position.ravel(), position.ravel())]
    for values, (dy, dx) in zip(affinities(edge.astype(np.float64), radius), pair_offsets(radius), strict=True):
        cells = slice(0, max(height - dy, 0)), slice(max(0, -dx), width - max(0, dx))
        here, value = position[cells].ravel(), values[cells].ravel() ** exponent
        entries += [(value, here, here + dy * width + dx), (value, here + dy * width + dx, here)]
    values, rows, columns = (np.concatenate(part) for part in zip(*entries, strict=True))
    powers = csr_array((values, (rows, columns)), shape=(num, num))
    transition = (powers / powers.sum(axis=0)).tocsc()
    found = (maps * (1 - edge)).reshape(len(maps), num).astype(np.float64)
    for _ in range(2**SQUARINGS):
        found = found @ transition
    return found.reshape(maps.shape)


def agreement(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """Return the share of pixels at which masks agree."""
    equal = [(one == other).ravel() for one, other in zip(ours, theirs, strict=True)]
    return float(np.concatenate(equal).mean())


def largest_difference(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> float:
    """Return the largest difference of maps."""
    return float(max(itertools.chain([0.0], (np.abs(one - other).max(initial=0) for one, other in zip(ours, theirs, strict=True)))))
