"""Dense CRF (Krähenbühl and Koltun 2011): refines score maps so that masks follow the image's colours.

The paper uses it after the class activation maps (Table 1, +CRF), for IRNet's training labels and after DeepLabV2 (section 4.2). This is
the one entry to three implementations of the same mean-field inference: `mean_field_numba` (native), `mean_field_torch` and
`mean_field_pydensecrf`.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from vwl.config.recipe import CrfKernels, IrnetLabels, PsaLabels
from vwl.constants import IGNORE
from vwl.crf.mean_field_numba import NumbaMeanField
from vwl.crf.mean_field_pydensecrf import PydensecrfMeanField, import_pydensecrf
from vwl.crf.mean_field_torch import TorchMeanField
from vwl.data.transforms import resize
from vwl.errors import VwlError
from vwl.maps.cam import argmax_with_background, best_class, upsampled_argmax, with_power_background

_MIN_PROBABILITY = 1e-5
"""Smaller probabilities are raised to this one, so that the unary term rules no label out."""


class MeanField(Protocol):
    """The dense CRF of one image without unary energies."""

    def infer(self, unary: np.ndarray) -> np.ndarray:
        """Return probabilities (L, N) float32 of N = H W pixels for unary energies (L, N) float32."""
        ...


def mean_field(image: np.ndarray, num_labels: int, kernels: CrfKernels) -> MeanField:
    """Build the mean-field inference of an image (H, W, 3) uint8 by the implementation that `kernels` names.

    `auto` is `torch` if this process has a GPU, else `native`.

    Raises:
        VwlError: pydensecrf is not installed, or a kernel is too narrow for the native and torch implementations.
    """
    implementation = kernels.implementation
    if implementation == "auto":
        implementation = "torch" if torch.cuda.is_available() else "native"
    if implementation == "pydensecrf":
        return PydensecrfMeanField(image, num_labels, kernels)
    return _OneImage(image, kernels) if implementation == "torch" else NumbaMeanField(image, kernels)


class _OneImage:
    """`TorchMeanField` of a batch of one image, on the GPU if this process has one."""

    def __init__(self, image: np.ndarray, kernels: CrfKernels) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self._size = image.shape[:2]
        self._field = TorchMeanField(torch.from_numpy(np.array(image))[None].to(device), kernels)
        self._device = device

    def infer(self, unary: np.ndarray) -> np.ndarray:
        batch = torch.from_numpy(np.ascontiguousarray(unary)).view(1, len(unary), *self._size)
        return self._field.infer(batch.to(self._device))[0].flatten(1).cpu().numpy()


def check_implementation(kernels: CrfKernels) -> None:
    """Check that the implementation is installed, before a stage starts.

    Raises:
        VwlError: it is pydensecrf, which is not installed.
    """
    if kernels.implementation == "pydensecrf":
        import_pydensecrf()


def crf_probabilities(image: np.ndarray, probabilities: np.ndarray, kernels: CrfKernels) -> np.ndarray:
    """Refine label probabilities by mean-field inference.

    Args:
        image: (H, W, 3) uint8.
        probabilities: (L, H, W), L >= 1; their negative logarithms are the unary energies.
        kernels: pairwise terms (Potts), number of iterations, implementation.

    Returns:
        (L, H, W) float32, summing to 1 over the labels.

    Raises:
        ValueError: image and probabilities differ in size.
        VwlError: as `mean_field`.
    """
    unary = _energies(probabilities)
    return _Field(image, len(unary), kernels).infer(unary)


def _energies(probabilities: np.ndarray) -> np.ndarray:
    """Return the unary energies (L, H, W) float32 of probabilities."""
    return -np.log(np.clip(probabilities, _MIN_PROBABILITY, 1), dtype=np.float32)


def label_energies(labels: np.ndarray, num_labels: int, confidence: float) -> np.ndarray:
    """Return the unary energies (L, H, W) float32 of hard labels (H, W).

    A pixel's own label has probability `confidence`; the others share the rest.

    Raises:
        VwlError: the confidence is out of range.
    """
    if not 0 < confidence < 1:
        raise VwlError(f"irnet_labels.confidence = {confidence} must be above 0 and below 1")
    assert labels.max(initial=0) < num_labels
    others = (1 - confidence) / max(num_labels - 1, 1)
    own = np.arange(num_labels)[:, None, None] == labels
    return np.where(own, -np.log(confidence), -np.log(others)).astype(np.float32)


def cam_crf(
    image: np.ndarray, maps: np.ndarray, class_ids: Sequence[int], background: float, sharpness: float, kernels: CrfKernels
) -> np.ndarray:
    """Turn class activation maps into a mask: softmax over a constant background and the maps, dense CRF, argmax.

    Args:
        image: (H, W, 3) uint8.
        maps: (K, h, w) scores, 0..1, at the image's size or a smaller one, at which the image is then refined.
        class_ids: class of each map; if 0 is the first, the maps have their own background, and `background` is not used.
        background: score of the background.
        sharpness: factor of the scores before the softmax.
        kernels: pairwise terms, number of iterations, implementation.

    Returns:
        (H, W) uint8 class ids.
    """
    own, maps, class_ids = _split_background(maps, class_ids)
    first = np.full((1, *maps.shape[1:]), background, np.float32) if own is None else own[None]
    scores = np.concatenate([first, maps.astype(np.float32)]) * np.float32(sharpness)
    exponentials = np.exp(scores - scores.max(axis=0))
    refined = crf_probabilities(_reduced(image, maps), exponentials / exponentials.sum(axis=0), kernels)
    return _ids(upsampled_argmax(refined, *image.shape[:2]), class_ids)


def irnet_labels(image: np.ndarray, maps: np.ndarray, class_ids: Sequence[int], settings: IrnetLabels) -> np.ndarray:
    """Return IRNet's training labels: confident objects and confident background, each from a threshold and a dense CRF.

    A pixel has an object's label if the foreground threshold gives it one, is background if the (lower) background threshold gives
    it none, and is ignored otherwise.

    Args:
        image: (H, W, 3) uint8.
        maps: (K, h, w) scores, 0..1, at the image's size or a smaller one, at which the image is then refined.
        class_ids: class of each map; if 0 is the first, the maps have their own background, which a confident object must also exceed.
        settings: thresholds, confidence and kernels.

    Returns:
        (H, W) uint8 class ids, 255 ignored.
    """
    own, maps, class_ids = _split_background(maps, class_ids)
    # One field for both thresholds: building the image's lattice takes a third of the time.
    field = _Field(_reduced(image, maps), len(maps) + 1, settings.kernels)
    positions = range(1, len(maps) + 1)
    confident, possible = (
        argmax_with_background(maps, positions, threshold) for threshold in (settings.foreground_threshold, settings.background_threshold)
    )
    if own is not None:
        confident[best_class(maps, positions)[1] <= own] = 0
    foreground, background = (_relabel(field, labels, settings.confidence, image.shape[:2]) for labels in (confident, possible))
    unsure = (foreground == 0) & (background != 0)
    return np.where(unsure, np.uint8(IGNORE), _ids(foreground, class_ids))


def psa_labels(image: np.ndarray, maps: np.ndarray, class_ids: Sequence[int], settings: PsaLabels) -> np.ndarray:
    """Return PSA's training labels: confident objects and confident background, each from a score of the background and a dense CRF.

    A pixel has an object's label if it has it beside the large background score (low alpha), is background if it is that beside the
    small one (high alpha), and is ignored otherwise. As in the published code the scores enter the CRF as probabilities.

    Args:
        image: (H, W, 3) uint8.
        maps: (K, h, w) scores, 0..1, at the image's size or a smaller one, at which the image is then refined.
        class_ids: class of each map; if 0 is the first, the maps have their own background, which is used for both.
        settings: exponents and kernels.

    Returns:
        (H, W) uint8 class ids, 255 ignored.
    """
    field, found = None, []
    for alpha in (settings.low_alpha, settings.high_alpha):
        ids, scores = with_power_background(tuple(class_ids), maps, alpha)
        field = field or _Field(_reduced(image, maps), len(scores), settings.kernels)
        refined = field.infer(_energies(scores))
        found.append(np.array(ids, np.uint8)[upsampled_argmax(refined, *image.shape[:2])])
    confident, possible = found
    return np.where(possible == 0, np.uint8(0), np.where(confident == 0, np.uint8(IGNORE), confident))


def _split_background(maps: np.ndarray, class_ids: Sequence[int]) -> tuple[np.ndarray | None, np.ndarray, Sequence[int]]:
    """Return the map of class 0 (h, w) float32, or none if there is none, and the objects' maps and classes."""
    if len(class_ids) and class_ids[0] == 0:
        return maps[0].astype(np.float32), maps[1:], class_ids[1:]
    return None, maps, class_ids


class _Field:
    """An image's dense CRF without unary energies; checks shapes and handles the case of a single label."""

    def __init__(self, image: np.ndarray, num_labels: int, kernels: CrfKernels) -> None:
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or image.size == 0:
            raise ValueError(f"an image is (H, W, 3) uint8, this is {image.shape} {image.dtype}")
        self.shape = (num_labels, image.shape[0], image.shape[1])
        # one label needs no inference, and pydensecrf divides by zero
        self._mean_field = mean_field(image, num_labels, kernels) if num_labels > 1 else None

    def infer(self, unary: np.ndarray) -> np.ndarray:
        """Return probabilities (L, H, W) float32 for unary energies (L, H, W) float32."""
        if unary.shape != self.shape:
            raise ValueError(f"unary energies {unary.shape} do not fit labels and image {self.shape}")
        if self._mean_field is None:
            return np.ones(self.shape, np.float32)
        return self._mean_field.infer(unary.reshape(len(unary), -1)).reshape(self.shape)


def _reduced(image: np.ndarray, maps: np.ndarray) -> np.ndarray:
    """Return the image at the size of its maps, which bounds the memory (`CrfKernels.max_pixels`)."""
    return resize(image, *maps.shape[1:])


def _relabel(field: _Field, labels: np.ndarray, confidence: float, size: Sequence[int]) -> np.ndarray:
    """Return hard labels (H, W) uint8 after the CRF, enlarged to `size`."""
    return upsampled_argmax(field.infer(label_energies(labels, field.shape[0], confidence)), size[0], size[1])


def _ids(positions: np.ndarray, class_ids: Sequence[int]) -> np.ndarray:
    return np.array([0, *class_ids], np.uint8)[positions]
