"""Masks as indexed PNG files of class ids, and the palette of their colours."""

import io
import struct
import zlib
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image

from vwl.errors import Damaged, VwlError
from vwl.storage.folder import Folder
from vwl.storage.images import load_upright
from vwl.storage.record import remake

_LOSSY = {"JPEG": "JPEG", "MPO": "JPEG", "JPEG2000": "JPEG 2000"}
_ADVICE = "save masks as indexed or 8-bit grey PNG"


def encode_mask(mask: np.ndarray, palette: Sequence[int]) -> bytes:
    """Return class ids (H, W) uint8 as an indexed PNG; `palette` holds 768 colour values."""
    assert mask.dtype == np.uint8, "class ids are bytes"
    assert mask.ndim == 2
    image = Image.fromarray(mask)
    image.putpalette(list(palette))
    sink = io.BytesIO()
    image.save(sink, format="PNG", optimize=False)
    return sink.getvalue()


def decode_mask(data: bytes, source: str) -> np.ndarray:
    """Return the class ids (H, W) uint8 of an indexed or grey PNG of at most 8 bits, upright like its image.

    Raises:
        VwlError: it is not an image, or its pixels are not 8-bit ids (RGB, 16-bit, JPEG).
    """
    image = load_upright(data, f"mask {source}")
    if image.format in _LOSSY:
        raise VwlError(f"mask {source} is a {_LOSSY[image.format]}, whose compression changes class ids; {_ADVICE}")
    if image.mode not in {"L", "P", "1"}:
        raise VwlError(f"mask {source} has mode {image.mode}; {_ADVICE}, one class id per pixel")
    ids = np.array(image, dtype=np.uint8)
    depth, is_grey = (data[24], data[25] == 0) if image.format == "PNG" else (8, True)
    if is_grey and depth in (2, 4):  # Pillow spreads such grey values over 0..255
        ids //= 255 // (2**depth - 1)
    return ids


def read_result(folder: Folder, image_id: str) -> bytes:
    """Return the PNG that a stage has written for an image, whose checksums are compared.

    Raises:
        Damaged: it was changed after it was written.
        VwlError: it does not exist or cannot be read.
    """
    name = f"{image_id}.png"
    data = folder.read(name)
    if not _is_whole_png(data):
        raise Damaged(f"mask {folder.uri_of(name)} is damaged; {remake(folder)}")
    return data


def _is_whole_png(data: bytes) -> bool:
    """Return whether all chunks of a PNG are there with their checksums, which decoders skip."""
    if data[:8] != b"\x89PNG\r\n\x1a\n":
        return False
    start = 8
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        end = start + 12 + length
        if end > len(data) or struct.unpack_from(">I", data, end - 4)[0] != zlib.crc32(data[start + 4 : end - 4]):
            return False
        if data[start + 4 : start + 8] == b"IEND":
            return end == len(data)
        start = end
    return False


def voc_palette() -> list[int]:
    """Return the palette of the VOC devkit, 256 x RGB: bit-interleaved class ids."""
    colours = []
    for index in range(256):
        for channel in range(3):
            colours.append(sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)))
    return colours


def missing(folder: Folder, image_ids: Iterable[str], suffix: str = ".png") -> list[str]:
    """Return the image ids that have no file in the folder."""
    available = set(folder.names(suffix))
    return [image_id for image_id in image_ids if f"{image_id}{suffix}" not in available]
