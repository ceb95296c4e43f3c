"""Resizing, cropping, flipping and normalising of images and masks: pure functions of arrays and a random generator.

Images are (H, W, 3) uint8 RGB, masks (H, W) uint8 class ids. The three trainings use all of them, inference the resizing and normalising.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image


def resize(image: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return an image (H, W, 3) resized to (height, width, 3), bicubic."""
    if image.shape[:2] == (height, width):
        return image
    return np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))


def resize_mask(mask: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return a mask (H, W) resized to (height, width), nearest neighbour."""
    if mask.shape == (height, width):
        return mask
    return np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))


def scaled_size(size: Sequence[int], scale: float) -> tuple[int, int]:
    """Return (height, width) times `scale`, rounded, at least 1. `size` may be the shape of an image; only two elements are used."""
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def long_side_scale(size: Sequence[int], long_side: int | None) -> float:
    """Return the factor that scales the longer of height and width to `long_side` pixels; 1 if that is None.

    Args:
        size: (height, width) or the shape of an image.
        long_side: target length, in pixels.
    """
    return 1.0 if long_side is None else long_side / max(size[:2])


def random_crop(
    arrays: Sequence[np.ndarray], fills: Sequence[int | Sequence[float]], crop: int, rng: np.random.Generator
) -> tuple[list[np.ndarray], np.ndarray]:
    """Crop the same random square from several arrays of one size; smaller arrays are placed at a random offset and padded.

    Args:
        arrays: each (H, W) or (H, W, 3).
        fills: the padding value of each array.
        crop: side of the square, in pixels.
        rng: source of the offsets.

    Returns:
        The crops, and (crop, crop) bool, true on pixels that are not padding.
    """
    height, width = arrays[0].shape[:2]
    top, left = (int(rng.integers(0, abs(size - crop) + 1)) for size in (height, width))
    source_y, target_y = _overlap(height, crop, top)
    source_x, target_x = _overlap(width, crop, left)
    crops = []
    for array, fill in zip(arrays, fills, strict=True):
        canvas = np.empty((crop, crop, *array.shape[2:]), array.dtype)
        canvas[...] = fill
        canvas[target_y, target_x] = array[source_y, source_x]
        crops.append(canvas)
    valid = np.zeros((crop, crop), bool)
    valid[target_y, target_x] = True
    return crops, valid


def _overlap(size: int, crop: int, offset: int) -> tuple[slice, slice]:
    """Return the slices of source and crop, along one axis, that hold the same pixels."""
    if size >= crop:
        return slice(offset, offset + crop), slice(0, crop)
    return slice(0, size), slice(offset, offset + size)


def random_hflip(arrays: Sequence[np.ndarray], rng: np.random.Generator) -> list[np.ndarray]:
    """Flip all arrays horizontally with probability one half, else return them unchanged."""
    flip = bool(rng.integers(0, 2))
    return [array[:, ::-1] if flip else array for array in arrays]


def normalise(image: np.ndarray, mean: Sequence[float], std: Sequence[float], valid: np.ndarray | None = None) -> torch.Tensor:
    """Return the image as a network's input.

    Args:
        image: (H, W, 3) uint8 RGB.
        mean: of each channel, in 0..1.
        std: of each channel, in 0..1.
        valid: (H, W) bool; pixels that are not valid (padding) become 0.

    Returns:
        (3, H, W) float32, (value / 255 - mean) / std for each channel.
    """
    scale = 1 / (255 * np.asarray(std, np.float32))
    shift = np.asarray(mean, np.float32) / np.asarray(std, np.float32)
    values = image.astype(np.float32) * scale - shift
    if valid is not None:
        values *= valid[:, :, None]
    return torch.from_numpy(values).permute(2, 0, 1)
