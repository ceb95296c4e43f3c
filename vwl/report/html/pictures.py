"""Pictures of the report as data URIs: photos as WebP, masks as PNG with a palette of few colours, heat maps as WebP with transparency.

Masks and heat maps are layers: transparent where they have nothing to say, and laid over the photo by the page. Pure functions of arrays.
"""

import base64
import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from vwl.constants import IGNORE
from vwl.maps.cam import best_class


def photo(image: np.ndarray, long_side: int, quality: int = 60) -> str:
    """Return an image (H, W, 3) uint8 RGB as WebP of at most `long_side` pixels."""
    height, width = fitted(image.shape[0], image.shape[1], long_side)
    small = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    return _encoded(small, "WEBP", quality=quality, method=4)


def mask_layer(mask: np.ndarray, palette: Sequence[int], long_side: int) -> str:
    """Return a mask (H, W) uint8 of class ids as PNG, the background transparent, at most `long_side` pixels (nearest).

    Args:
        mask: class ids, 255 ignored.
        palette: 768 values, RGB of each of the 256 class ids.
        long_side: of the result, pixels.
    """
    small = subsampled(mask, long_side)
    ids, positions = np.unique(np.append(small.ravel(), np.uint8(0)), return_inverse=True)  # the background is always entry 0
    layer = Image.fromarray(positions[:-1].reshape(small.shape).astype(np.uint8))
    colours = np.asarray(palette, np.uint8).reshape(256, 3)[ids]
    layer.putpalette(colours.ravel().tolist())
    bits = 1 if len(ids) <= 2 else 2 if len(ids) <= 4 else 4 if len(ids) <= 16 else 8
    alpha = bytes(0 if class_id == 0 else 150 if class_id == IGNORE else 255 for class_id in ids.tolist())
    return _encoded(layer, "PNG", bits=bits, transparency=alpha, optimize=True)


def heat_layer(maps: np.ndarray, class_ids: Sequence[int], palette: Sequence[int], long_side: int, quality: int = 50) -> str:
    """Return score maps as WebP: each pixel has the colour of its strongest class, and its score as opacity.

    Args:
        maps: (K, h, w) float scores; clipped to 0..1, NaN counts as 0.
        class_ids: class id of each map; the map of the background (0) is not drawn.
        palette: 768 values, RGB of each of the 256 class ids.
        long_side: of the result, pixels; maps are not enlarged.
        quality: of WebP, 0 to 100.
    """
    objects = [position for position, class_id in enumerate(class_ids) if class_id != 0]
    best, value = best_class(np.nan_to_num(maps[objects].astype(np.float32), posinf=1.0), [class_ids[position] for position in objects])
    colours = np.asarray(palette, np.uint8).reshape(256, 3)[best]
    layer = Image.fromarray(np.dstack([colours, (value.clip(0, 1) * 255).round().astype(np.uint8)]), "RGBA")
    height, width = fitted(best.shape[0], best.shape[1], long_side)
    return _encoded(layer.resize((width, height), Image.Resampling.BILINEAR), "WEBP", quality=quality, alpha_quality=quality, method=4)


def fitted(height: int, width: int, long_side: int) -> tuple[int, int]:
    """Return height and width scaled down to a long side, at least 1; smaller ones stay."""
    scale = min(1.0, long_side / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))


def subsampled(mask: np.ndarray, long_side: int) -> np.ndarray:
    """Return a mask (H, W) at a long side of at most `long_side`, nearest pixels."""
    height, width = fitted(mask.shape[0], mask.shape[1], long_side)
    rows = ((np.arange(height) + 0.5) * mask.shape[0] / height).astype(int)
    columns = ((np.arange(width) + 0.5) * mask.shape[1] / width).astype(int)
    return np.ascontiguousarray(mask[rows][:, columns])


def _encoded(image: Image.Image, kind: str, **settings: object) -> str:
    sink = io.BytesIO()
    image.save(sink, format=kind, **settings)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(sink.getvalue()).decode()}"
