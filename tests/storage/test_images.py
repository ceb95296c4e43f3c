"""An image file becomes upright pixels of its first frame, or one line that names it."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.orientation import STORED, TURNED, turned
from vwl.errors import VwlError
from vwl.storage.images import load_upright

PIXELS = np.random.default_rng(0).integers(0, 256, (9, 14, 3), dtype=np.uint8)


def upright(data: bytes) -> np.ndarray:
    return np.asarray(load_upright(data, "image x"))


def animated(kind: str, **options) -> bytes:
    frames = [Image.new("RGB", (6, 4), colour) for colour in ((200, 0, 0), (0, 200, 0), (0, 0, 200))]
    sink = io.BytesIO()
    frames[0].save(sink, kind, save_all=True, append_images=frames[1:], duration=50, **options)
    return sink.getvalue()


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("WEBP", {"lossless": True}), ("TIFF", {})], ids=["png", "webp", "tiff"])
def test_every_orientation_becomes_the_upright_pixels(orientation, kind, options):
    np.testing.assert_array_equal(upright(turned(PIXELS, orientation, kind, **options)), PIXELS)


@pytest.mark.parametrize("orientation", STORED)
def test_a_jpeg_of_every_orientation_is_upright(orientation):
    smooth = np.add.outer(np.arange(24) * 5, np.arange(40) * 3).astype(np.uint8)
    found = upright(turned(smooth, orientation, "JPEG", quality=100))
    assert np.abs(found.astype(int) - smooth).max() <= 2


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float32])
@pytest.mark.parametrize("orientation", TURNED)
def test_grey_values_of_every_depth_are_turned(dtype, orientation):
    grey = PIXELS[..., 0].astype(dtype)
    kind = "PNG" if dtype in (np.uint8, np.uint16) else "TIFF"
    np.testing.assert_array_equal(upright(turned(grey, orientation, kind)), grey)


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_the_standard_does_not_know_changes_nothing(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    sink = io.BytesIO()
    Image.fromarray(PIXELS).save(sink, "PNG", exif=exif)
    np.testing.assert_array_equal(upright(sink.getvalue()), PIXELS)


@pytest.mark.parametrize("exif", [b"", b"Exif\0\0", b"Exif\0\0MM\0*", b"Exif\0\0nonsense" * 9, b"Exif\0\0II*\0\xff\xff\xff\xff"])
def test_broken_exif_leaves_the_pixels_as_they_are(exif):
    sink = io.BytesIO()
    Image.fromarray(PIXELS).save(sink, "JPEG", quality=100, subsampling=0, exif=exif)
    assert load_upright(sink.getvalue(), "image x").size == (14, 9)


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_an_animation_is_its_first_frame(kind, options):
    frame = np.asarray(load_upright(animated(kind, **options), "image x").convert("RGB"))
    assert np.abs(frame.astype(int) - (200, 0, 0)).max() <= 2


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "it is an empty file"),
        (b"no image", "it is not an image file"),
        (turned(PIXELS, 1)[:200], "truncated"),
        (turned(PIXELS, 1, "GIF")[:-60], "truncated"),
        (turned(PIXELS, 1, "JPEG")[:20], "the file is truncated or damaged"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n", "it is an EPS file, which would be run as a program"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "it is a HEIC file; convert it to JPEG"),
    ],
    ids=["empty", "text", "truncated", "truncated gif", "truncated header", "eps", "heic"],
)
def test_a_file_that_cannot_be_read_says_why(data, reason):
    with pytest.raises(VwlError, match=r"^image x cannot be read: ") as caught:
        load_upright(data, "image x")
    assert reason in str(caught.value)
    assert "\n" not in str(caught.value)
