"""Class activation maps as arrays: how they are computed, brought to stride 4, normalised, and turned into masks.

Stands between the classifier (or random walk, or segmenter) and everything that reads score maps; paper section 3.2, Eq. 1.
Maps are (K, h, w), one per class id of an image; an image without labels has K = 0 and is all background.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from vwl.constants import MAP_STRIDE, map_size

_STRIP = 64
"""Rows of a large image that are enlarged at a time."""


def class_activation(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the class activation maps (B, C, h, w) of Eq. 1: ReLU of the features weighted by each class's classifier row.

    Args:
        features: F, (B, d, h, w).
        weight: W, (C, d), the classifier without bias.
    """
    return functional.relu(functional.conv2d(features, weight[:, :, None, None]))


def normalise(maps: np.ndarray) -> np.ndarray:
    """Bring each class's map (K, h, w) to 0..1: negative scores become 0, then division by the map's maximum + 1e-5; float32."""
    positive = np.maximum(maps, 0, dtype=np.float32)
    return positive / (positive.max(axis=(1, 2), keepdims=True, initial=0) + np.float32(1e-5))


def to_stride4(maps: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize maps (K, a, b) of any size bilinearly to the stride-4 grid of an image of `height` x `width` pixels; float32."""
    return _resize(maps, map_size(height, width))


def working_size(height: int, width: int, max_pixels: int) -> tuple[int, int]:
    """Return the size at which an image of `height` x `width` pixels is refined: its own, or as many as `max_pixels`."""
    scale = min(1.0, (max_pixels / (height * width)) ** 0.5)
    return max(1, round(height * scale)), max(1, round(width * scale))


def upsample(values: np.ndarray, height: int, width: int, max_pixels: int | None = None) -> np.ndarray:
    """Bring a score map's values (K, h, w) at stride 4 to the image's pixels (K, height, width), float32.

    The map is enlarged by exactly 4 and then cropped, so that cells stay over the pixels they were made from. An image of more than
    `max_pixels` gets a map of its `working_size`; then no more than one class is ever held at full size.
    """
    if values.shape[1:] != map_size(height, width):
        raise ValueError(f"a score map of {values.shape[1:]} cells does not belong to {height} x {width} pixels")
    size = (height, width) if max_pixels is None else working_size(height, width, max_pixels)
    if size != (height, width):
        smaller = np.empty((len(values), *size), np.float32)
        for own, target in zip(values, smaller, strict=True):
            target[...] = _resize(upsample(own[None], height, width), size)[0]
        return smaller
    enlarged = _resize(values, (values.shape[1] * MAP_STRIDE, values.shape[2] * MAP_STRIDE))
    return np.ascontiguousarray(enlarged[:, :height, :width])


def upsampled_argmax(probabilities: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the position of each pixel's largest probability (height, width) uint8, the first among equals.

    Args:
        probabilities: (L, h, w) of an image at any size; if that is not its own they are enlarged bilinearly, some rows at a time.
        height, width: the image's size, pixels.
    """
    if probabilities.shape[1:] == (height, width):
        return probabilities.argmax(axis=0).astype(np.uint8)
    num_rows = probabilities.shape[1]
    found = np.empty((height, width), np.uint8)
    for top in range(0, height, _STRIP):
        strip = found[top : top + _STRIP]
        place = np.clip((np.arange(top, top + len(strip)) + 0.5) * num_rows / height - 0.5, 0, num_rows - 1).astype(np.float32)
        above = place.astype(int)
        share = (place - above)[:, None]
        below = np.minimum(above + 1, num_rows - 1)
        rows = probabilities[:, above] * (1 - share) + probabilities[:, below] * share
        strip[...] = _resize(rows, (len(strip), width)).argmax(axis=0)
    return found


def best_class(maps: np.ndarray, class_ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's strongest class (the first among equals) and its score: (H, W) uint8 class ids, (H, W) float32.

    Without maps (K = 0) the class is 0 and the score 0.
    """
    if len(class_ids) != len(maps):
        raise ValueError(f"{len(maps)} maps for {len(class_ids)} class ids")
    if len(maps) == 0:
        return np.zeros(maps.shape[1:], np.uint8), np.zeros(maps.shape[1:], np.float32)
    value = maps[0].astype(np.float32)
    best = np.full(value.shape, class_ids[0], np.uint8)
    for scores, class_id in zip(maps[1:], class_ids[1:], strict=True):
        best[scores > value] = class_id
        np.maximum(value, scores, out=value)
    return best, value


def argmax_with_background(maps: np.ndarray, class_ids: Sequence[int], threshold: float) -> np.ndarray:
    """Return the mask (H, W) uint8 of the strongest among a constant background and the maps.

    Args:
        maps: (K, H, W) scores.
        class_ids: the class of each map. If 0 is among them the maps have a background of their own: `threshold` is not used.
        threshold: the background's score, compared in float32; a pixel that only equals it is background.
    """
    best, value = best_class(maps, class_ids)
    if 0 in class_ids:
        return best
    return np.where(value > np.float32(threshold), best, np.uint8(0))


def _resize(maps: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    if len(maps) == 0:
        return np.zeros((0, *size), np.float32)
    tensor = torch.from_numpy(np.array(maps, dtype=np.float32))
    return functional.interpolate(tensor[None], size=size, mode="bilinear", align_corners=False)[0].numpy()
