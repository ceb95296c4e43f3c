"""Overlays of score maps and masks on an image, as in Figs. 6 to 9 of the paper.

Pure functions of arrays: they read no files and know no runs. `vwl.report.sheets` puts their results side by side, and `vwl predict`
saves them as they are.
"""

import colorsys
from collections.abc import Sequence

import numpy as np
from PIL import Image
from scipy import ndimage

from vwl.constants import IGNORE


def display_palette() -> tuple[int, ...]:
    """Return 768 values, RGB of each of the 256 class ids: bright colours that show on grey and on dark images.

    Palettes of data sets are made for masks on black; VOC's has (128, 128, 0) and (64, 0, 0), which hardly show on an image. Neighbouring
    ids differ by 0.433 of the circle of hues, and every 7 ids are lighter than the 7 before. 0 is black, ignored pixels are white.
    """
    colours = [colorsys.hsv_to_rgb((class_id - 1) * 0.433 % 1, (0.95, 0.55)[(class_id - 1) // 7 % 2], 1.0) for class_id in range(1, IGNORE)]
    return (0, 0, 0, *(round(255 * channel) for colour in colours for channel in colour), 255, 255, 255)


def heat_overlay(image: np.ndarray, maps: np.ndarray, class_ids: Sequence[int], palette: Sequence[int], alpha: float = 0.85) -> np.ndarray:
    """Return a grey version of the image with its score maps on it: each pixel has the colour of its highest-scoring class.

    The opacity is `alpha` times the score, so a score of 0 leaves the grey image. Scores are clipped to 0..1, NaN counts as 0.

    Args:
        image: (H, W, 3) uint8 RGB.
        maps: (K, h, w) float scores of any size; they are resized to the image (bilinear).
        class_ids: class id of each map; the map of the background (0) is not drawn.
        palette: 768 values, RGB of each of the 256 class ids.
        alpha: opacity of the score 1, 0..1.

    Returns:
        (H, W, 3) uint8 RGB.
    """
    height, width = image.shape[:2]
    grey = np.repeat((image @ np.array([0.299, 0.587, 0.114]) * 0.8 + 40)[..., None], 3, axis=2)
    objects = [number for number, class_id in enumerate(class_ids) if class_id != 0]
    if not objects:
        return grey.round().astype(np.uint8)
    scores = np.stack([_resize_scores(maps[number], height, width) for number in objects])
    heat = _colours(palette)[np.array([class_ids[number] for number in objects])][scores.argmax(axis=0)]
    opacity = alpha * scores.max(axis=0)[..., None]
    return ((1 - opacity) * grey + opacity * heat).round().astype(np.uint8)


def mask_overlay(image: np.ndarray, mask: np.ndarray, palette: Sequence[int], alpha: float = 0.55) -> np.ndarray:
    """Return the image with its mask on it: objects tinted and outlined, ignored pixels tinted, the background unchanged.

    Args:
        image: (H, W, 3) uint8 RGB.
        mask: (H, W) uint8 class ids, 255 ignored.
        palette: 768 values, RGB of each of the 256 class ids.
        alpha: opacity of the tint, 0..1; outlines are opaque.

    Returns:
        (H, W, 3) uint8 RGB.

    Raises:
        ValueError: image and mask differ in size.
    """
    if image.shape[:2] != mask.shape:
        raise ValueError(f"the mask is {mask.shape[1]} x {mask.shape[0]} pixels, its image {image.shape[1]} x {image.shape[0]}")
    colours = _colours(palette)[mask]
    opacity = np.where(mask == 0, 0.0, alpha)
    opacity[_outline(mask) & (mask != 0) & (mask != IGNORE)] = 1.0
    return ((1 - opacity[..., None]) * image + opacity[..., None] * colours).round().astype(np.uint8)


def _colours(palette: Sequence[int]) -> np.ndarray:
    """Return the palette as (256, 3) float."""
    return np.asarray(palette, dtype=np.float64).reshape(256, 3)


def _resize_scores(scores: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return one map (h, w) at the size of the image, clipped to 0..1."""
    scores_0_1 = Image.fromarray(np.nan_to_num(scores.astype(np.float32), posinf=1.0).clip(0, 1))
    return np.asarray(scores_0_1.resize((width, height), Image.Resampling.BILINEAR))


def _outline(mask: np.ndarray) -> np.ndarray:
    """Return (H, W) bool, true where a pixel's class differs from that of one of its four neighbours."""
    return ndimage.morphological_gradient(mask, footprint=ndimage.generate_binary_structure(2, 1)) > 0
