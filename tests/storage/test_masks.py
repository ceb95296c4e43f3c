"""Masks are read back unchanged, in the devkit's colours; images that hold no class ids are refused."""

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.orientation import TURNED, turned
from vwl.errors import Damaged, VwlError
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, encode_mask, missing, read_result, voc_palette


def png(mode: str, size: tuple[int, int] = (5, 4), kind: str = "PNG") -> bytes:
    sink = io.BytesIO()
    Image.new(mode, size).save(sink, kind)
    return sink.getvalue()


@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (33, 20)])
def test_a_mask_is_read_back_with_its_palette(shape):
    mask = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    data = encode_mask(mask, voc_palette())
    assert np.array_equal(decode_mask(data, "a.png"), mask)
    image = Image.open(io.BytesIO(data))
    assert image.mode == "P"
    assert image.getpalette() == voc_palette()


def test_equal_masks_give_equal_bytes():
    mask = np.arange(256, dtype=np.uint8).reshape(16, 16)
    assert encode_mask(mask, voc_palette()) == encode_mask(mask.copy(), voc_palette())


def test_grey_masks_are_read_as_class_ids():
    sink = io.BytesIO()
    Image.fromarray(np.array([[0, 20, 255]], np.uint8)).save(sink, "PNG")
    assert decode_mask(sink.getvalue(), "a.png").tolist() == [[0, 20, 255]]


@pytest.mark.parametrize(("mode", "reason"), [("RGB", "mode RGB"), ("RGBA", "mode RGBA"), ("I;16", "mode I;16"), ("LA", "mode LA")])
def test_an_image_whose_pixels_are_not_class_ids_is_refused(mode, reason):
    with pytest.raises(VwlError, match=f"mask a.png has {reason}; save masks as indexed or 8-bit grey PNG"):
        decode_mask(png(mode), "a.png")


def test_a_jpeg_is_refused_because_it_changes_class_ids():
    with pytest.raises(VwlError, match=r"mask a\.jpg is a JPEG"):
        decode_mask(png("L", kind="JPEG"), "a.jpg")


@pytest.mark.parametrize("data", [b"", b"no image", png("P")[:45]])
def test_an_unreadable_mask_is_named(data):
    with pytest.raises(VwlError, match=r"mask a\.png cannot be read: (it is an empty file|it is not an image file|.*[Tt]runcated)"):
        decode_mask(data, "a.png")


@pytest.mark.parametrize("orientation", TURNED)
def test_a_mask_that_carries_an_orientation_is_upright(orientation):
    mask = np.random.default_rng(0).integers(0, 4, (5, 8), dtype=np.uint8)
    np.testing.assert_array_equal(decode_mask(turned(mask, orientation), "a.png"), mask)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
@pytest.mark.parametrize("colour_type", [0, 3], ids=["grey", "indexed"])
def test_masks_of_fewer_bits_hold_the_ids_that_were_written(bits, colour_type):
    ids = (np.arange(8)[None] % 2**bits).astype(np.uint8)
    assert decode_mask(small_png(ids, bits, colour_type), "a.png").tolist() == ids.tolist()


def small_png(ids: np.ndarray, bits: int, colour_type: int) -> bytes:
    """Encode one row of ids as a PNG of a bit depth, which Pillow does not write for grey images."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed = np.packbits(np.unpackbits(ids.reshape(-1, 1), axis=1)[:, 8 - bits :].ravel()).tobytes()
    header = struct.pack(">IIBBBBB", ids.shape[1], 1, bits, colour_type, 0, 0, 0)
    palette = chunk(b"PLTE", bytes(3 * 2**bits)) if colour_type == 3 else b""
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + palette + chunk(b"IDAT", zlib.compress(b"\0" + packed)) + chunk(b"IEND", b"")


def test_class_ids_must_be_bytes():
    with pytest.raises(AssertionError):
        encode_mask(np.zeros((2, 2), np.int64), voc_palette())


def test_the_palette_is_that_of_the_voc_devkit():
    colours = np.array(voc_palette()).reshape(256, 3).tolist()
    assert colours[:4] == [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
    assert colours[20] == [0, 64, 128]
    assert colours[255] == [224, 224, 192]
    assert len({tuple(colour) for colour in colours}) == 256


def test_missing_names_the_images_without_a_file(tmp_path):
    Folder(tmp_path).write("b.png", b"")
    assert missing(Folder(tmp_path), ["a", "b", "c"]) == ["a", "c"]


@given(at=st.integers(0, 10_000), bit=st.integers(0, 7), cut=st.booleans())
def test_a_mask_of_a_run_that_was_changed_is_named(tmp_path_factory, at, bit, cut):
    folder = Folder(tmp_path_factory.mktemp("run") / "walk")
    whole = encode_mask(np.random.default_rng(0).integers(0, 9, (20, 30), dtype=np.uint8), voc_palette())
    folder.write("a.png", whole)
    assert read_result(folder, "a") == whole
    at %= len(whole)
    folder.write("a.png", whole[:at] if cut else bytes(byte ^ (1 << bit if n == at else 0) for n, byte in enumerate(whole)))
    with pytest.raises(Damaged) as caught:
        read_result(folder, "a")
    assert str(caught.value) == f"mask {folder.path}/a.png is damaged; delete it and run its stage again (vwl infer walk)"
