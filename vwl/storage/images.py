"""Image files as upright pixels: the decoder behind `vwl.data.index.decode_image` and `vwl.storage.masks.decode_mask`.

A camera stores the pixels as its sensor lies and an EXIF orientation beside them. Everything after this module sees the image as it
is shown to people, so masks fit the upright image.
"""

import io
from contextlib import suppress

from PIL import ExifTags, Image, ImageFile, UnidentifiedImageError

from vwl.errors import VwlError

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by EXIF orientation; 1 is upright, others do not exist."""
_SIGNATURES = (b"\xff\xd8\xff", b"\x89PNG", b"GIF8", b"RIFF", b"II*\0", b"MM\0*")
_HEIC = (b"ftypheic", b"ftypheix", b"ftypmif1", b"ftypmsf1", b"ftyphevc")


def load_upright(data: bytes, name: str) -> Image.Image:
    """Return the first frame of an image file in its own mode and with its `format`, turned as its EXIF orientation says.

    Args:
        data: content of the file.
        name: of the file for error messages, with what it is: "image p1.jpg".

    Raises:
        VwlError: the file is damaged or not an image, or its format is one that is not read (EPS, HEIC).
    """
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        if image.format == "EPS":
            raise VwlError(f"{name} cannot be read: it is an EPS file, which would be run as a program; convert it to PNG")
    except VwlError:
        raise
    except UnidentifiedImageError:
        raise VwlError(f"{name} cannot be read: {_reason(data)}") from None
    except Exception as error:
        raise _unreadable(name, error) from None
    return upright(image, name)


def upright(image: Image.Image, name: str) -> Image.Image:
    """Return an image in its own mode and with its `format`, turned as its EXIF orientation says; its pixels are decoded.

    Raises:
        VwlError: the file that it was opened from is damaged; `name` as in `load_upright`.
    """
    try:
        image.load()
        turn = _UPRIGHT.get(_orientation(image))
        if turn is None:
            return image
        turned = image.transpose(turn)
        turned.format = image.format
        return turned
    except Exception as error:
        raise _unreadable(name, error) from None


def _unreadable(name: str, error: Exception) -> VwlError:
    """Return the error of a damaged file, which raises almost anything in one of Pillow's decoders."""
    reason = "" if isinstance(error, UnidentifiedImageError) else " ".join(str(error).split())
    return VwlError(f"{name} cannot be read: {reason or 'the file is truncated or damaged'}")


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation, 1 where there is none or the EXIF block is damaged."""
    orientation = 1
    with suppress(Exception):  # a damaged EXIF block does not make the pixels unreadable
        orientation = int(image.getexif().get(ExifTags.Base.Orientation, 1))
    return orientation


def _reason(data: bytes) -> str:
    """Return why the content of a file is not known as an image."""
    if not data:
        return "it is an empty file"
    if data[4:12] in _HEIC:
        return "it is a HEIC file; convert it to JPEG"
    return "the file is truncated or damaged" if data.startswith(_SIGNATURES) else "it is not an image file"
