"""Random label files, index tables and COCO annotations: each is read, or ends in one line within 10 s and 1 GiB and leaves nothing behind.

The default run tries a few dozen of each, always the same; the drill tries thousands, others each time. What the drill found stands in
the corpus (`test_inputs.py`, `test_input_files.py`) with the line that it ends in now.
"""

import io
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from tests.hostile.fuzzing import FEW, MANY, damaged, run
from vwl.data.class_names import check_object_names
from vwl.data.index import read_index
from vwl.storage.masks import encode_mask, voc_palette

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


# COCO's annotations

NUMBERS = st.integers(-3, 60) | st.integers() | st.floats()
SEGMENTATIONS = (
    JSON
    | st.lists(st.lists(NUMBERS, max_size=9), max_size=3)
    | st.fixed_dictionaries(
        {"counts": st.lists(NUMBERS, max_size=5) | st.text("0123456789:;<=>?@ABOPQabo", max_size=12), "size": st.just([6, 8]) | JSON}
    )
)
ENTRIES = st.fixed_dictionaries(
    {},
    optional={
        "images": st.dictionaries(st.sampled_from(("id", "file_name", "height", "width")), JSON | NUMBERS, max_size=2),
        "categories": st.dictionaries(st.sampled_from(("id", "name")), JSON | st.sampled_from(("background", "car\n", "")), max_size=1),
        "annotations": st.dictionaries(st.sampled_from(("id", "image_id", "category_id", "area", "iscrowd")), JSON | NUMBERS, max_size=2),
    },
)


def prepare_coco(entries: dict[str, Any], segmentation: Any, instead: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content: dict[str, Any] = {
            "images": [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8} | entries.get("images", {})],
            "categories": [{"id": 3, "name": "car"} | entries.get("categories", {})],
            "annotations": [
                {"id": 7, "image_id": 1, "category_id": 3, "area": 9, "iscrowd": 0, "segmentation": segmentation}
                | entries.get("annotations", {})
            ],
        }
        for part in ("annotations", "train2014"):
            (folder / part).mkdir()
        Image.new("RGB", (8, 6)).save(folder / "train2014/a.jpg")
        (folder / "annotations/instances_train2014.json").write_text(json.dumps(content | instead))
        run(folder, "data", "prepare", "coco", "--root", folder, "--out", folder / "index.parquet")


INSTEAD = st.just({}) | st.dictionaries(st.sampled_from(("images", "categories", "annotations")), JSON, max_size=1)


@FEW
@given(ENTRIES, SEGMENTATIONS, INSTEAD)
def test_annotations_are_painted_or_end_in_one_line(entries, segmentation, instead):
    prepare_coco(entries, segmentation, instead)


@pytest.mark.drill
@pytest.mark.timeout(3600)
@MANY
@given(ENTRIES, SEGMENTATIONS, INSTEAD)
def test_drill_of_annotations(entries, segmentation, instead):
    prepare_coco(entries, segmentation, instead)
