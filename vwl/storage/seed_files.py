"""Files that hold score maps of other methods: `.npy`, `.npz`, files of `torch.save`, pickles and 16-bit PNG.

What a file is, is told from its first bytes, since many methods name everything `.npy`.
"""

import io
import tokenize
import zipfile
import zlib
from collections.abc import Iterable
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from vwl.errors import VwlError
from vwl.storage.safe_pickle import load, load_torch

SUFFIXES = (".npy", ".npz", ".pt", ".pth", ".pkl")
"""Files with the maps of one image, named after it."""
_NPY, _ZIP, _PICKLE = b"\x93NUMPY", b"PK\x03\x04", b"\x80"
_OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What `torch.save` wrote first before torch 1.6: its magic number, pickled."""


def image_files(names: Iterable[str]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Group the files of a folder by image id.

    Args:
        names: of the files: `<image id>.npy`, or of another of `SUFFIXES`; `<image id>_<class id>.png`, one per class.

    Returns:
        The names of each image's files, and the names that are of neither form.

    Raises:
        VwlError: an image has files of several kinds.
    """
    found: dict[str, tuple[str, ...]] = {}
    other = []
    for name in sorted(names):
        stem, dot, suffix = name.rpartition(".")
        image_id, _, class_id = stem.rpartition("_")
        is_map = suffix == "png" and class_id.isdecimal() and image_id
        if not is_map and f"{dot}{suffix}" not in SUFFIXES:
            other.append(name)
            continue
        key = image_id if is_map else stem
        if key in found and not (is_map and found[key][0].endswith(".png")):
            raise VwlError(f"{found[key][0]} and {name} are both maps of image {key}; leave one of them in the folder")
        found[key] = (*found.get(key, ()), name)
    return found, other


def read_arrays(data: bytes, name: str) -> dict[Any, Any] | np.ndarray:
    """Return what a file holds: an array, or a dict of arrays; tensors become arrays.

    Raises:
        UnsafePickle: it would run code.
        VwlError: it is damaged, or holds something else.
    """
    if data.startswith(_NPY):
        held = _read_npy(data, name)
    elif data.startswith(_ZIP):
        held = _read_zip(data, name)
    elif data.startswith(_OLD_TORCH):
        held = load_torch(data, name)
    elif data.startswith(_PICKLE):
        held = load(data, name)
    else:
        raise VwlError(f"{name} is neither .npy, .npz, a file of torch.save nor a pickle; it begins with {data[:4]!r}")
    if isinstance(held, np.ndarray) and held.dtype == object and held.size == 1:
        held = held.item()  # numpy saves a dict as an array of one object
    if isinstance(held, dict):
        return held
    if isinstance(held, np.ndarray) and held.dtype.kind in "biuf":
        return held
    raise VwlError(f"{name} holds neither an array nor a dict of arrays")


def read_png_map(data: bytes, name: str) -> np.ndarray:
    """Return the scores (H, W) float32, 0..1, of a 16-bit grey PNG: its values divided by 65535.

    Raises:
        VwlError: it is no image, or not of 16 bits.
    """
    try:
        image = Image.open(io.BytesIO(data))
        if not image.mode.startswith("I"):
            raise VwlError(f"{name} has mode {image.mode}; a map is a 16-bit grey PNG, its values 65535 times the scores")
        return np.asarray(image).astype(np.float32) / np.float32(65535)
    except UnidentifiedImageError:
        raise VwlError(f"{name} cannot be read: it is not an image") from None
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise VwlError(f"{name} cannot be read: {error}") from None


def _read_npy(data: bytes, name: str) -> Any:
    stream = io.BytesIO(data)
    try:
        version = np.lib.format.read_magic(stream)
        header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        _, _, dtype = header(stream)
        if not dtype.hasobject:
            return np.load(io.BytesIO(data), allow_pickle=False)
    except (ValueError, EOFError, MemoryError, OSError, SyntaxError, tokenize.TokenError):
        raise VwlError(f"{name} is damaged: it is not a whole .npy file") from None
    return load(data[stream.tell() :], name)


def _read_zip(data: bytes, name: str) -> Any:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            names = archive.namelist()
        if any(entry.endswith("data.pkl") for entry in names):
            return load_torch(data, name)
        with np.load(io.BytesIO(data), allow_pickle=False) as arrays:
            return {_as_int(key): arrays[key] for key in arrays.files}
    except ValueError as error:
        if "Object arrays" in str(error):
            raise VwlError(f"{name} holds objects; save plain arrays by numpy.savez(FILE, keys=..., cam=...)") from None
        raise VwlError(f"{name} is damaged: {error}") from None
    except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, MemoryError, RuntimeError, NotImplementedError, OSError):
        raise VwlError(f"{name} is damaged: it is not a whole .npz file") from None


def _as_int(key: str) -> int | str:
    """Return the key of an archive as the class id that it is, which `.npz` can hold only as text."""
    return int(key) if key.isdecimal() else key
