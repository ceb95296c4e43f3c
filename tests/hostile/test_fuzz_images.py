"""Random images and masks: each is read, or ends in one line within 10 s and 1 GiB; see `test_fuzz_inputs.py`."""

import io
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.hostile.fuzzing import FEW, MANY, damaged, run, with_checksums
from vwl.data.index import Row, make_index, write_index
from vwl.errors import VwlError
from vwl.storage.masks import encode_mask, voc_palette

PIXELS = np.random.default_rng(0).integers(0, 256, (13, 17, 4), dtype=np.uint8)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    sink = io.BytesIO()
    image.save(sink, kind, **options)
    return sink.getvalue()


def files() -> dict[str, bytes]:
    """Small files of every format and mode that is met in data sets, and of some that are not."""
    rgba = Image.fromarray(PIXELS, "RGBA")
    exif = Image.Exif()
    exif[0x0112] = 6
    exif[0x010F] = "maker" * 20
    frames = [rgba.convert("RGB"), rgba.convert("RGB").rotate(90), rgba.convert("RGB").rotate(180)]
    moving = {"save_all": True, "append_images": frames[1:], "duration": 20}
    wide, real = Image.fromarray(PIXELS[..., 0].astype(np.uint16) * 257), Image.fromarray(PIXELS[..., 0].astype(np.float32))
    made = {f"png {mode}": encoded(rgba.convert("RGB").convert(mode), "PNG", exif=exif) for mode in ("1", "L", "LA", "P", "RGB", "RGBA")}
    made |= {f"jpeg {mode}": encoded(rgba.convert("RGB").convert(mode), "JPEG", exif=exif) for mode in ("L", "RGB", "CMYK")}
    made |= {
        f"tiff {mode}": encoded(rgba.convert("RGB").convert(mode), "TIFF", exif=exif) for mode in ("1", "L", "P", "CMYK", "LAB", "YCbCr")
    }
    made |= {
        f"tiff {name}": encoded(frames[0], "TIFF", compression=name) for name in ("tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg")
    }
    made |= {"png 16": encoded(wide, "PNG"), "tiff 16": encoded(wide, "TIFF"), "tiff float": encoded(real, "TIFF")}
    made |= {
        "gif": encoded(frames[0], "GIF"),
        "moving gif": encoded(frames[0], "GIF", **moving),
        "moving png": encoded(frames[0], "PNG", **moving),
    }
    made |= {"webp": encoded(rgba, "WEBP", exif=exif), "lossless webp": encoded(rgba, "WEBP", lossless=True)}
    made |= {"moving webp": encoded(frames[0], "WEBP", **moving), "progressive jpeg": encoded(frames[0], "JPEG", progressive=True)}
    for kind in ("BMP", "DIB", "PPM", "TGA", "ICO", "PCX", "SGI", "DDS", "JPEG2000", "IM", "ICNS", "MPO", "QOI", "AVIF"):
        made[kind] = encoded(frames[0].resize((16, 16)), kind)
    made["mask"] = encode_mask(np.ones((13, 17), np.uint8), voc_palette())
    return made


FILES = files()
INTACT = st.sampled_from([*FILES.values()])
PNGS = st.sampled_from([data for name, data in FILES.items() if "png" in name or name == "mask"])
FILE = INTACT | INTACT.flatmap(damaged) | PNGS.flatmap(damaged).map(with_checksums) | st.binary(max_size=60)


def check_files(image: bytes, mask: bytes) -> bool:
    """Check a data set of one image and its mask; return whether the image was read."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "a.jpg").write_bytes(image)
        (folder / "a.png").write_bytes(mask)
        index = make_index([Row("a", "a.jpg", (1,), "a.png", "train")], ("background", "cat"), folder, "fuzz")
        write_index(index, folder / "index.parquet")
        result = run(folder, "data", "check", folder / "index.parquet")
        assert "unreadable-image: " not in result.stdout or result.stdout.count("unreadable-image: image a.jpg cannot be read: ") == 1
        try:
            decoded = index.read_image(index.rows[0])
        except VwlError as error:
            assert str(error) in result.stdout  # noqa: PT017 - either outcome is right, and both are checked
            return False
        assert decoded.mode == "RGB"
        assert min(decoded.size) > 0
        return True


@FEW
@given(FILE, FILE)
def test_images_and_masks_are_read_or_end_in_one_line(image, mask):
    check_files(image, mask)


@pytest.mark.drill
@pytest.mark.timeout(3600)
@MANY
@given(FILE, FILE)
def test_drill_of_images_and_masks(image, mask):
    check_files(image, mask)


@pytest.mark.parametrize("kind", FILES)
def test_every_file_of_the_fuzzing_is_read_undamaged(kind):
    assert check_files(FILES[kind], FILES["mask"])
