"""Class activation maps (paper section 3.2, Eq. 1) as arrays: computed, normalised, enlarged, and turned into masks.

Maps are (K, h, w), one per class id of an image. An image without labels has K = 0 and is all background.
"""

from collections.abc import Sequence

import numpy as np
import torch
from scipy.linalg import solveh_banded
from scipy.sparse import csr_array
from torch.nn import functional

from vwl.constants import MAP_STRIDE, map_size

_STRIP = 64
"""Rows of a large image that are enlarged at a time."""


def class_activation(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the class activation maps (B, C, h, w) of Eq. 1: ReLU of the features weighted by each class's row of the classifier.

    Args:
        features: F, (B, d, h, w).
        weight: W, (C, d), the classifier without bias.
    """
    return functional.relu(functional.conv2d(features, weight[:, :, None, None]))


def normalise(maps: np.ndarray) -> np.ndarray:
    """Normalise each class's map (K, h, w) to 0..1, float32: negative scores become 0, then division by the maximum + 1e-5."""
    positive = np.maximum(maps, 0, dtype=np.float32)
    return positive / (positive.max(axis=(1, 2), keepdims=True, initial=0) + np.float32(1e-5))


def with_power_background(classes: tuple[int, ...], maps: np.ndarray, alpha: float) -> tuple[tuple[int, ...], np.ndarray]:
    """Return classes and maps (K + 1, h, w) float32 with the background first: (1 - the largest score) ** alpha (PSA).

    Maps that have a background already, as class 0, are returned as they are.
    """
    maps = maps.astype(np.float32)
    if classes and classes[0] == 0:
        return classes, maps
    background = np.clip(1 - maps.max(axis=0, initial=0), 0, 1) ** np.float32(alpha)
    return (0, *classes), np.concatenate([background[None], maps])


def working_size(height: int, width: int, max_pixels: int) -> tuple[int, int]:
    """Return the size at which an image of `height` x `width` pixels is refined: its own, or one of about `max_pixels` pixels."""
    scale = min(1.0, (max_pixels / (height * width)) ** 0.5)
    return max(1, round(height * scale)), max(1, round(width * scale))


def upsample(values: np.ndarray, height: int, width: int, max_pixels: int | None = None) -> np.ndarray:
    """Enlarge a score map's values (K, h, w) at stride 4 to the image's size (K, height, width), float32.

    The map is enlarged by exactly 4 and then cropped, so that cells stay over their pixels. For an image of more than `max_pixels` the
    result has its `working_size`, and only one class at a time is held at full size.
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


def downsample(maps: np.ndarray) -> np.ndarray:
    """Return the score map (K, ceil(H / 4), ceil(W / 4)) float32 whose enlargement by `upsample` is nearest to maps (K, H, W).

    The nearest by least squares, so that maps which `upsample` has enlarged come back as they were. Beside sharp edges it may leave the
    range of the maps a little, as any such map does.
    """
    if len(maps) == 0:
        return np.zeros((0, *map_size(*maps.shape[1:])), np.float32)
    return np.stack([_downsample_rows(_downsample_rows(own.astype(np.float64)).T).T for own in maps]).astype(np.float32)


def _downsample_rows(values: np.ndarray) -> np.ndarray:
    """Return the rows (ceil(H / 4), W) whose linear enlargement is nearest to values (H, W) float64."""
    length, cells = len(values), map_size(len(values), 1)[0]
    if cells == 1:  # enlarged by repetition
        return values.mean(axis=0, keepdims=True)
    position = np.clip((np.arange(length) + 0.5) / MAP_STRIDE - 0.5, 0, cells - 1)
    above = position.astype(int)
    share = position - above
    where = np.concatenate([above, np.minimum(above + 1, cells - 1)]), np.tile(np.arange(length), 2)
    enlargement = csr_array((np.concatenate([1 - share, share]), where), shape=(cells, length))
    normal = enlargement @ enlargement.T  # tridiagonal: a row of pixels lies between two of cells
    bands = np.stack([np.append(0, normal.diagonal(1)), normal.diagonal()])
    return solveh_banded(bands, enlargement @ values)


def upsampled_argmax(probabilities: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return the label position of each pixel's largest probability (height, width) uint8; the first of equal ones.

    Args:
        probabilities: (L, h, w) at any size; if it is not the image's, they are enlarged bilinearly, some rows at a time.
        height, width: the image's size, pixels.
    """
    if probabilities.shape[1:] == (height, width):
        return probabilities.argmax(axis=0).astype(np.uint8)
    num_rows = probabilities.shape[1]
    mask = np.empty((height, width), np.uint8)
    for top in range(0, height, _STRIP):
        strip = mask[top : top + _STRIP]
        position = np.clip((np.arange(top, top + len(strip)) + 0.5) * num_rows / height - 0.5, 0, num_rows - 1).astype(np.float32)
        above = position.astype(int)
        share = (position - above)[:, None]
        below = np.minimum(above + 1, num_rows - 1)
        rows = probabilities[:, above] * (1 - share) + probabilities[:, below] * share
        strip[...] = _resize(rows, (len(strip), width)).argmax(axis=0)
    return mask


def best_class(maps: np.ndarray, class_ids: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Return each pixel's strongest class and its score: (H, W) uint8 class ids, the first of equal ones, and (H, W) float32.

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
    """Return the mask (H, W) uint8: the argmax over a constant background and the maps.

    Args:
        maps: (K, H, W) scores.
        class_ids: the class of each map. If 0 is among them, the maps have their own background and `threshold` is not used.
        threshold: score of the background, compared in float32; a pixel that equals it is background.
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
