"""Images as cameras store them: pixels turned or mirrored, and the EXIF orientation that makes them upright again."""

import io
from collections.abc import Callable

import numpy as np
from PIL import Image

STORED: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(upright, 2).swapaxes(0, 1),
    8: lambda upright: np.rot90(upright, -1),
}
"""From the upright pixels (H, W, ...) to those in the file, by EXIF orientation (tag 0x0112 of the standard)."""
TURNED = tuple(STORED)[1:]


def turned(upright: np.ndarray, orientation: int, kind: str = "PNG", **options) -> bytes:
    """Return an image file that holds `upright` under an orientation."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    sink = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).save(sink, kind, exif=exif, **options)
    return sink.getvalue()
