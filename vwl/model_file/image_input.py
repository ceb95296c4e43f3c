"""Images that users hand to a model: files, PIL images and arrays, as arrays of upright 8-bit RGB."""

import stat
from pathlib import Path

import numpy as np
from PIL import Image

from vwl.data.index import decode_image, to_rgb
from vwl.errors import VwlError
from vwl.storage.images import upright

ImageInput = str | Path | Image.Image | np.ndarray
"""The path of an image file, a PIL image (turned as its EXIF orientation says), or an array (H, W, 3) uint8 RGB."""


def as_array(image: ImageInput) -> np.ndarray:
    """Return an image as an array (H, W, 3) uint8 RGB, upright.

    Raises:
        VwlError: the file cannot be read, or an array has another shape or type.
    """
    if isinstance(image, str | Path):
        return read_image_file(str(image))
    if isinstance(image, Image.Image):
        source = str(getattr(image, "filename", "") or "(a PIL image)")
        return np.array(to_rgb(upright(image, f"image {source}"), source))
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3 or not image.size:
            raise VwlError(f"an array of shape {image.shape} and type {image.dtype} is no image; give (H, W, 3) uint8, RGB")
        return np.ascontiguousarray(image)
    raise VwlError(f"an object of type {type(image).__name__} is no image; give a path, a PIL image or an array (H, W, 3) uint8")


def read_image_file(path: str) -> np.ndarray:
    """Return a local image file as an array (H, W, 3) uint8 RGB, upright. Pipes and devices, which might never end, are refused.

    Raises:
        VwlError: it cannot be read.
    """
    if "://" in path:
        raise VwlError(f"{path}: it is not a local file; download it first")
    try:
        path.encode()
        mode = Path(path).stat().st_mode
        if stat.S_ISDIR(mode):
            raise VwlError(f"{path} is a folder; name its images, e.g. {path.rstrip('/')}/*.jpg")
        if not stat.S_ISREG(mode):
            raise VwlError(f"{path}: it is not a regular file")
        data = Path(path).read_bytes()
    except FileNotFoundError:
        raise VwlError(f"{path}: it does not exist") from None
    except OSError as error:
        raise VwlError(f"{path}: {error.strerror}") from None
    except UnicodeError:
        raise VwlError(f"{path}: its name is not UTF-8; rename it") from None
    except ValueError:  # a NUL
        raise VwlError(f"{path!r} is not the name of a file") from None
    return np.array(decode_image(data, path))
