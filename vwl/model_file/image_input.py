"""Images that users hand to a model: files, PIL images, arrays and tensors, as arrays of upright 8-bit RGB."""

import os
import stat
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from vwl.data.index import decode_image, to_rgb
from vwl.errors import VwlError
from vwl.storage.images import upright

ImageInput = str | Path | Image.Image | np.ndarray | torch.Tensor
"""The path of an image file, a PIL image (turned as its EXIF orientation says), an array (H, W, 3) uint8 RGB, or a tensor (3, H, W) RGB,
uint8 or floating with values from 0 to 1."""


def as_array(image: ImageInput) -> np.ndarray:
    """Return an image as an array (H, W, 3) uint8 RGB, upright.

    Raises:
        VwlError: the file cannot be read, or an array or tensor has another shape or type, or values out of range.
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
    if isinstance(image, torch.Tensor):
        return _of_tensor(image.detach().cpu())
    raise VwlError(f"an object of type {type(image).__name__} is no image; give a path, a PIL image or an array (H, W, 3) uint8")


def _of_tensor(image: torch.Tensor) -> np.ndarray:
    """Return a tensor (3, H, W) as torchvision has images, uint8 or floating from 0 to 1, as an array (H, W, 3) uint8."""
    if image.ndim != 3 or image.shape[0] != 3 or not image.numel() or not (image.dtype == torch.uint8 or image.is_floating_point()):
        shape, kind = tuple(image.shape), str(image.dtype).removeprefix("torch.")
        raise VwlError(f"a tensor of shape {shape} and type {kind} is no image; give (3, H, W) RGB, uint8 or floating from 0 to 1")
    if image.is_floating_point():
        if not bool(((image >= 0) & (image <= 1)).all()):
            raise VwlError("a tensor with values outside 0..1 is no image; give (3, H, W) RGB before normalisation, from 0 to 1, or uint8")
        image = (image.float() * 255).round().to(torch.uint8)
    return np.ascontiguousarray(image.permute(1, 2, 0).numpy())


def read_image_file(path: str) -> np.ndarray:
    """Return a local image file as an array (H, W, 3) uint8 RGB, upright. Pipes and devices, which might never end, are refused.

    Raises:
        VwlError: it cannot be read.
    """
    require_file(path)
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise VwlError(f"{path}: {error.strerror}") from None
    return np.array(decode_image(data, path))


def require_file(path: str) -> os.stat_result:
    """Return size and times of a local file that a user has named.

    Raises:
        VwlError: there is none of this name, or it is a folder, pipe or device.
    """
    if "://" in path:
        raise VwlError(f"{path}: it is not a local file; download it first")
    try:
        path.encode()
        info = Path(path).stat()
    except FileNotFoundError:
        raise VwlError(f"{path}: it does not exist") from None
    except OSError as error:
        raise VwlError(f"{path}: {error.strerror}") from None
    except UnicodeError:
        raise VwlError(f"{path}: its name is not UTF-8; rename it") from None
    except ValueError:  # a NUL
        raise VwlError(f"{path!r} is not the name of a file") from None
    if stat.S_ISDIR(info.st_mode):
        raise VwlError(f"{path} is a folder; name its images, e.g. {path.rstrip('/')}/*.jpg")
    if not stat.S_ISREG(info.st_mode):
        raise VwlError(f"{path}: it is not a regular file")
    return info
