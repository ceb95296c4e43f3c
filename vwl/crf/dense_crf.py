"""Dense CRF: masks follow the photograph's colours (Krähenbühl and Koltun 2011); refines CAMs, IRNet's labels and the segmentation.

The paper uses it after the class activation maps (Table 1, +CRF), for IRNet's training labels and after DeepLabV2 (section 4.2).
The inference is our own (`vwl.crf.mean_field`) or the package pydensecrf's, as `kernels.implementation` says. This is the one wrapper
round that package: it copies what Ray hands out read-only and keeps the cases that package fails on.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from vwl.config.recipe import CrfKernels, IrnetLabels
from vwl.constants import IGNORE
from vwl.crf.mean_field import MeanField
from vwl.data.transforms import resize
from vwl.errors import VwlError
from vwl.maps.cam import argmax_with_background, upsampled_argmax

_LEAST_PROBABILITY = 1e-5
"""Smaller probabilities are taken as this one, so that no label is ruled out before the colours are looked at."""


def check_implementation(kernels: CrfKernels) -> None:
    """Check that what is asked for is installed, before there is work.

    Raises:
        VwlError: pydensecrf is asked for and not installed.
    """
    if kernels.implementation == "pydensecrf":
        _densecrf()


def crf_probabilities(image: np.ndarray, probabilities: np.ndarray, kernels: CrfKernels) -> np.ndarray:
    """Refine the labels' probabilities by mean-field inference.

    Args:
        image: (H, W, 3) uint8 photograph.
        probabilities: (L, H, W), at least one label; their negative logarithms are the unary energies.
        kernels: pairwise terms (Potts), number of iterations, and who computes them.

    Returns:
        (L, H, W) float32, summing to 1 over the labels.

    Raises:
        ValueError: image and probabilities do not fit each other.
        VwlError: pydensecrf is asked for and not installed, or a kernel is too narrow for our own form.
    """
    unary = -np.log(np.clip(probabilities, _LEAST_PROBABILITY, 1), dtype=np.float32)
    return _Field(image, len(unary), kernels).infer(unary)


def crf_labels(image: np.ndarray, labels: np.ndarray, num_labels: int, confidence: float, kernels: CrfKernels) -> np.ndarray:
    """Refine a hard labelling, each pixel's label having the probability `confidence` and the others sharing the rest evenly.

    Args:
        image: (H, W, 3) uint8 photograph.
        labels: (H, W) uint8 positions 0..num_labels - 1.
        num_labels: L, 1 or more.
        confidence: between 0 and 1, both excluded.
        kernels: pairwise terms and number of iterations.

    Returns:
        (H, W) uint8 positions.

    Raises:
        ValueError: image and labels do not fit each other.
        VwlError: the confidence is out of range, or as `crf_probabilities`.
    """
    return _relabel(_Field(image, num_labels, kernels), labels, confidence, labels.shape)


def label_energies(labels: np.ndarray, num_labels: int, confidence: float) -> np.ndarray:
    """Return the unary energies (L, H, W) float32 of a hard labelling (H, W), see `crf_labels`.

    Raises:
        VwlError: the confidence is out of range.
    """
    if not 0 < confidence < 1:
        raise VwlError(f"irnet_labels.confidence = {confidence} must lie between 0 and 1, both excluded")
    assert labels.max(initial=0) < num_labels
    others = (1 - confidence) / max(num_labels - 1, 1)
    own = np.arange(num_labels)[:, None, None] == labels
    return np.where(own, -np.log(confidence), -np.log(others)).astype(np.float32)


def cam_crf(
    image: np.ndarray, maps: np.ndarray, class_ids: Sequence[int], background: float, sharpness: float, kernels: CrfKernels
) -> np.ndarray:
    """Turn class activation maps into a mask: softmax over a constant background and the maps, dense CRF, argmax.

    Args:
        image: (H, W, 3) uint8 photograph.
        maps: (K, h, w) scores, 0..1, at the photograph's size or a smaller one, at which it is then refined (`_reduced`).
        class_ids: the object class of each map.
        background: score of the background; 0.15 in the published code.
        sharpness: the scores are multiplied by this before the softmax; 1 in the published code.
        kernels: pairwise terms and number of iterations.

    Returns:
        (H, W) uint8 class ids.
    """
    scores = np.concatenate([np.full((1, *maps.shape[1:]), background, np.float32), maps.astype(np.float32)]) * np.float32(sharpness)
    exponentials = np.exp(scores - scores.max(axis=0))
    refined = crf_probabilities(_reduced(image, maps), exponentials / exponentials.sum(axis=0), kernels)
    return _ids(upsampled_argmax(refined, *image.shape[:2]), class_ids)


def irnet_labels(image: np.ndarray, maps: np.ndarray, class_ids: Sequence[int], settings: IrnetLabels) -> np.ndarray:
    """Return IRNet's training labels: only what two thresholds agree on after dense CRF.

    A pixel has an object's label if the strict foreground threshold gives it one, is background if the lenient background
    threshold gives it none, and is ignored in between.

    Args:
        image: (H, W, 3) uint8 photograph.
        maps: (K, h, w) scores, 0..1, at the photograph's size or a smaller one, at which it is then refined (`_reduced`).
        class_ids: the object class of each map.
        settings: thresholds, confidence and kernels.

    Returns:
        (H, W) uint8 class ids, 255 ignored.
    """
    # One field for both: the photograph's lattice, a third of the time, is built once.
    field = _Field(_reduced(image, maps), len(maps) + 1, settings.kernels)
    positions = range(1, len(maps) + 1)
    strict, lenient = (
        _relabel(field, argmax_with_background(maps, positions, threshold), settings.confidence, image.shape[:2])
        for threshold in (settings.foreground_threshold, settings.background_threshold)
    )
    unsure = (strict == 0) & (lenient != 0)
    return np.where(unsure, np.uint8(IGNORE), _ids(strict, class_ids))


class _Field:
    """A photograph's dense CRF, without unary energies."""

    def __init__(self, image: np.ndarray, num_labels: int, kernels: CrfKernels) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ValueError(f"a photograph is (H, W, 3) uint8, this is {image.shape} {image.dtype}")
        self.shape = (num_labels, image.shape[0], image.shape[1])
        self.form: MeanField | _Package | None = None
        if num_labels > 1:  # one label needs no inference, and pydensecrf divides by zero
            packaged = kernels.implementation == "pydensecrf"
            self.form = _Package(image, num_labels, kernels) if packaged else MeanField(image, kernels)

    def infer(self, unary: np.ndarray) -> np.ndarray:
        """Return probabilities (L, H, W) float32 for unary energies (L, H, W) float32."""
        if unary.shape != self.shape:
            raise ValueError(f"unary energies {unary.shape} do not fit labels and photograph {self.shape}")
        if self.form is None:
            return np.ones(self.shape, np.float32)
        return self.form.infer(unary.reshape(len(unary), -1)).reshape(self.shape)


class _Package:
    """The same through pydensecrf; the interface is `MeanField`'s."""

    def __init__(self, image: np.ndarray, num_labels: int, kernels: CrfKernels) -> None:
        self.iterations = kernels.iterations
        self.field = _densecrf().DenseCRF2D(image.shape[1], image.shape[0], num_labels)
        self.field.addPairwiseGaussian(sxy=kernels.gaussian_sxy, compat=kernels.gaussian_compat)
        self.field.addPairwiseBilateral(
            sxy=kernels.bilateral_sxy,
            srgb=kernels.bilateral_srgb,
            rgbim=np.array(image, order="C"),
            compat=kernels.bilateral_compat,
        )

    def infer(self, unary: np.ndarray) -> np.ndarray:
        self.field.setUnaryEnergy(np.array(unary, dtype=np.float32, order="C"))
        return np.array(self.field.inference(self.iterations), dtype=np.float32)


def _reduced(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """The photograph at its maps' size: lattice and labels of a large one would fill the memory, see `CrfKernels.max_pixels`."""
    return resize(image, *maps.shape[1:])


def _relabel(field: _Field, labels: np.ndarray, confidence: float, size: Sequence[int]) -> np.ndarray:
    """Positions (H, W) uint8 at `size` of a labelling refined at its own."""
    return upsampled_argmax(field.infer(label_energies(labels, field.shape[0], confidence)), size[0], size[1])


def _ids(positions: np.ndarray, class_ids: Sequence[int]) -> np.ndarray:
    return np.array([0, *class_ids], np.uint8)[positions]


def _densecrf() -> Any:
    try:
        from pydensecrf import densecrf
    except ImportError:
        raise VwlError(
            "implementation: pydensecrf needs the package pydensecrf2, which is built with a C++ compiler: pip install pydensecrf2 "
            "(or go without it: implementation: native)"
        ) from None
    return densecrf
