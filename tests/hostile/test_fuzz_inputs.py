"""Random label files, index tables, images and masks: each is read, or ends in one line within 10 s and 1 GiB and leaves nothing behind.

The default run tries a few dozen of each, always the same; the drill tries thousands, others each time. What the drill found stands in
the corpus (`test_inputs.py`) with the line that it ends in now.
"""

import io
import json
import resource
import tempfile
import time
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from typer.testing import CliRunner

from vwl.cli.main import app
from vwl.data.class_names import check_object_names
from vwl.data.index import Row, make_index, read_index, write_index
from vwl.errors import VwlError
from vwl.storage.masks import encode_mask, voc_palette

SECONDS, GIBIBYTE = 10.0, 2**30
FEW = settings(max_examples=60, derandomize=True, deadline=None)
MANY = settings(max_examples=2_000, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)


@contextmanager
def bounded() -> Iterator[None]:
    """Fail if the block computes for longer than 10 s, waits longer than a minute, or if the process grows by more than 1 GiB.

    Other processes of the machine count in the time on the clock, so the bound of 10 s is on the processor time.
    """
    start, busy, size = time.perf_counter(), time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert time.process_time() - busy < SECONDS
    assert time.perf_counter() - start < 6 * SECONDS
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - size) * 1024 < GIBIBYTE


def run(folder: Path, *arguments: str | Path) -> Result:
    """Run a command; it works, or prints one line that is an error or a problem, and an error leaves no file behind."""
    before = sorted(folder.rglob("*"))
    with bounded():
        result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    printed = f"{result.stdout}\n{result.stderr}"
    assert result.exception is None or isinstance(result.exception, SystemExit), printed
    assert result.exit_code in (0, 1, 2), printed
    assert "Traceback" not in printed
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    problems = [line for line in result.stdout.splitlines() if line.startswith("problems: ")]
    if result.exit_code == 1:
        assert len(errors) + len(problems) == 1, printed
        assert all(len(line) < 2_000 for line in errors), printed
    if result.exit_code:
        assert sorted(folder.rglob("*")) == before
    assert not list(folder.rglob(".part-*"))
    return result


# Damage


@st.composite
def damaged(draw: st.DrawFn, content: bytes, most: int = 4) -> bytes:
    """Flip bits, cut, repeat, delete and insert bytes, or leave the content as it is."""
    data = bytearray(content)
    for _ in range(draw(st.integers(0, most))):
        if not data:
            break
        kind = draw(st.sampled_from(("flip", "set", "cut", "delete", "repeat", "insert")))
        # most damage that matters is in headers
        at = draw(st.integers(0, min(len(data), 200) - 1) | st.integers(0, len(data) - 1))
        length = draw(st.integers(1, 40))
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "set":
            data[at] = draw(st.sampled_from((0, 1, 0x7F, 0x80, 0xFF)) | st.integers(0, 255))
        elif kind == "cut":
            del data[at:]
        elif kind == "delete":
            del data[at : at + length]
        elif kind == "repeat":
            data[at:at] = data[at : at + length] * draw(st.integers(1, 20))
        else:
            data[at:at] = draw(st.binary(min_size=1, max_size=8))
    return bytes(data)


def with_checksums(data: bytes) -> bytes:
    """Return a PNG whose checksums fit its damaged chunks, so that the damage reaches the decoder; other files unchanged."""
    fixed, at = bytearray(data), 8
    while data.startswith(b"\x89PNG\r\n\x1a\n") and at + 12 <= len(data):
        length = int.from_bytes(data[at : at + 4], "big")
        end = at + 8 + length
        if end + 4 > len(data):
            break
        fixed[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4, "big")
        at = end + 4
    return bytes(fixed)


# Label files

WORDS = (*"ab;|,\"' \t.\n\r/", "é", "dog", "Dog", "background", "\0", "\x1b", "\u202e", "\ufeff", "ａ")
FIELDS = st.lists(st.sampled_from(WORDS), max_size=10).map("".join)
IMAGES = st.sampled_from(("a", "a.jpg", "b.png", "c d.gif", "c d", "../a.jpg", "e.jpg", "")) | FIELDS
HEADERS = st.sampled_from(
    ("image,labels", "image,labels,split", "split, labels ,image", "image,labels,labels", "labels", "image;labels", "")
)
LINES = st.tuples(IMAGES, FIELDS, st.sampled_from(("train", "aug", "val", "test", "", "x"))).map(",".join)


@st.composite
def label_files(draw: st.DrawFn) -> bytes:
    """A file with a header and rows of odd names in any line ends and encoding, damaged or not; or any bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=200))
    lines = [draw(HEADERS), *draw(st.lists(LINES, max_size=5))]
    text = draw(st.sampled_from(("\n", "\r\n", "\r"))).join(lines)
    content = text.encode(draw(st.sampled_from(("utf-8", "utf-8", "utf-8", "utf-8-sig", "utf-16"))), errors="replace")
    return draw(damaged(content)) if draw(st.booleans()) else content


OPTIONS = st.lists(
    st.sampled_from((("--separator", "comma"), ("--separator", "blank"), ("--val-share", "0.5"), ("--val-share", "nan"), ("--classes", "")))
    | st.tuples(st.just("--val-share"), st.text("0123456789.-einf", max_size=5)),
    max_size=2,
)
CLASS_FILES = st.lists(FIELDS, max_size=4).map(lambda names: "\n".join(names).encode()).flatmap(damaged)


def prepare(content: bytes, options: Sequence[tuple[str, str]], class_file: bytes) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for image in ("a.jpg", "b.png", "c d.gif"):
            Image.new("L", (3, 2)).save(folder / image)
        (folder / "labels.csv").write_bytes(content)
        (folder / "classes.txt").write_bytes(class_file)
        more = [part for key, value in options for part in (key, str(folder / "classes.txt") if key == "--classes" else value)]
        paths = ("--images", folder, "--labels", folder / "labels.csv", "--out", folder / "index.parquet")
        if run(folder, "data", "prepare", "folder", *paths, *more).exit_code == 0:
            index = read_index(folder / "index.parquet")
            check_object_names(index.classes[1:], "fuzz")
            assert run(folder, "data", "show", folder / "index.parquet").exit_code == 0


@FEW
@given(label_files(), OPTIONS, CLASS_FILES)
def test_a_label_file_is_read_or_ends_in_one_line(content, options, class_file):
    prepare(content, options, class_file)


@pytest.mark.drill
@pytest.mark.timeout(3600)
@MANY
@given(label_files(), OPTIONS, CLASS_FILES)
def test_drill_of_label_files(content, options, class_file):
    prepare(content, options, class_file)


# Index tables

TEXTS = st.text(max_size=8) | st.sampled_from(
    ("a", "b", "a.png", "b.png", "../a.png", "/etc/passwd", "..", ".", "x/y", "a\\b", "train", "val")
)
VALUES = (
    TEXTS
    | st.none()
    | st.booleans()
    | st.integers(-(2**31), 2**31)
    | st.floats()
    | st.binary(max_size=4)
    | st.lists(st.integers(-2, 400), max_size=3)
    | st.lists(st.floats() | st.none(), max_size=2)
    | st.lists(TEXTS, max_size=2)
    | st.dictionaries(st.sampled_from(("x", "y")), st.integers(0, 3), max_size=2)
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)
ABOUT = st.dictionaries(st.sampled_from(("classes", "palette", "root", "source", "format")), JSON, max_size=2)
NAMES = ("image_id", "image", "labels", "mask", "split")


@dataclass(frozen=True)
class Edit:
    """Changes of a table: columns by name (None removes one), keys of the metadata, and bytes."""

    columns: dict[str, list[Any] | None]
    about: dict[str, Any] | bytes
    as_dictionary: bool


EDITS = st.builds(
    Edit,
    st.dictionaries(st.sampled_from(NAMES), st.none() | st.lists(VALUES, min_size=2, max_size=2), max_size=2),
    ABOUT | ABOUT | st.binary(max_size=20),
    st.booleans(),
)


def table(edit: Edit, root: Path) -> bytes:
    """Return a table of two images with these changes; values that no column can hold together stay as they were."""
    columns: dict[str, Any] = {
        "image_id": ["a", "b"],
        "image": ["a.png", "b.png"],
        "labels": [[1], []],
        "mask": ["mask.png", None],
        "split": ["val", "test"],
    }
    about = {"classes": ["background", "cat"], "palette": voc_palette(), "root": str(root), "source": "fuzz", "format": 1}
    arrays = {}
    for name, values in columns.items():
        changed = edit.columns.get(name, values)
        if changed is None:
            continue
        try:
            arrays[name] = pa.array(changed)
        except (pa.ArrowException, TypeError, ValueError, OverflowError):
            arrays[name] = pa.array(values)
        if edit.as_dictionary and pa.types.is_string(arrays[name].type):
            arrays[name] = arrays[name].dictionary_encode()
    metadata = edit.about if isinstance(edit.about, bytes) else json.dumps(about | edit.about).encode()
    sink = io.BytesIO()
    try:
        pq.write_table(pa.table(arrays, metadata={b"vwl": metadata}), sink)
    except pa.ArrowException:  # a type that Parquet does not have
        return b""
    return sink.getvalue()


def show_and_check(data: st.DataObject, edit: Edit) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for image in ("a.png", "b.png"):
            Image.new("L", (3, 2), 9 + ord(image[0])).save(folder / image)
        (folder / "mask.png").write_bytes(encode_mask(np.ones((2, 3), np.uint8), voc_palette()))
        content = table(edit, folder)
        if data.draw(st.integers(0, 2)) == 0:
            content = data.draw(damaged(content, most=2))
        (folder / "index.parquet").write_bytes(content)
        run(folder, "data", "show", folder / "index.parquet", "--json")
        run(folder, "data", "check", folder / "index.parquet")


@FEW
@given(st.data(), EDITS)
def test_an_index_table_is_read_or_ends_in_one_line(data, edit):
    show_and_check(data, edit)


@pytest.mark.drill
@pytest.mark.timeout(3600)
@MANY
@given(st.data(), EDITS)
def test_drill_of_index_tables(data, edit):
    show_and_check(data, edit)


# Images and masks

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
