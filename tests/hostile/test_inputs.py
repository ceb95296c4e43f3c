"""The corpus of hostile label files and index tables: each ends in one line, or is read as a person would read it."""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.helpers import tiny_scenes
from tests.hostile.cases import Case, check
from vwl.data.index import write_index

Arguments = Sequence[str | Path]


def prepare(content: str | bytes, *more: str) -> Callable[[Path], Arguments]:
    """Return what writes two images and a file of labels and prepares an index from them."""

    def make(folder: Path) -> Arguments:
        (folder / "images").mkdir()
        for name in ("a.jpg", "b.jpg"):
            Image.new("RGB", (8, 6)).save(folder / "images" / name)
        (folder / "labels.csv").write_bytes(content.encode() if isinstance(content, str) else content)
        paths = ("--images", folder / "images", "--labels", folder / "labels.csv", "--out", folder / "index.parquet")
        return ["data", "prepare", "folder", *paths, *more]

    return make


def labels(*fields: str, more: Sequence[str] = ()) -> Callable[[Path], Arguments]:
    """Return what prepares an index from images with these fields of labels."""
    return prepare("image,labels\n" + "".join(f"{name}.jpg,{field}\n" for name, field in zip("ab", fields, strict=False)), *more)


CLASS_NAMES = [
    Case("comma in quotes", labels('"dog, person"', "dog"), 0, ("classes 1 to 2", ": dog, person", "labels are separated by ','")),
    Case("blank in a name", labels("traffic light;dog", "traffic light"), 0, ("classes 1 to 2", ": dog, traffic light")),
    Case("quoted name", labels("'traffic light' dog", "dog"), 0, (": dog, traffic light", "labels are separated by blanks")),
    Case("stated separator", labels("traffic light", "dog", more=("--separator", "comma")), 0, (": dog, traffic light",)),
    Case(
        "blanks separate",
        labels("traffic light", "dog"),
        0,
        (": dog, light, traffic", "if a class name has blanks, separate labels by ';'"),
    ),
    Case("unknown separator", labels("dog", "dog", more=("--separator", "tab")), 2, ("'tab' is not one of",)),
    Case("two separators", labels("dog;cat", "dog|cat"), 1, ("';' (line 2)", "'|' (line 3)", "--separator")),
    Case(
        "case",
        labels("Dog DOG", "dog"),
        1,
        ("labels.csv: the class names 'Dog' (line 2) and 'DOG' (line 2) differ only in case or blanks",),
    ),
    Case("blanks", labels("big cat;dog", "bigcat"), 1, ("'big cat' (line 2) and 'bigcat' (line 3) differ only in case or blanks",)),
    Case("width", labels("ｄｏｇ", "dog"), 1, ("differ only in case or blanks",)),
    Case("background", labels("dog", "background"), 1, ("labels.csv line 3: 'background' is id 0 of every mask",)),
    Case("255 classes", labels(" ".join(f"x{n}" for n in range(255))), 1, ("there are 255 classes", "masks have ids for 254")),
    Case("254 classes", labels(" ".join(f"x{n}" for n in range(254))), 0, ("classes 1 to 254",)),
    Case("long name", labels("x" * 101), 1, ("line 2: the class name 'xxx", "has 101 characters; 100 are allowed")),
    Case("open quote", labels("'dog cat"), 1, ("line 2: the label 'dog begins with a quote that does not end it",)),
    Case("invisible", labels("dog;ca\u200bt"), 1, ("line 2: the class name 'ca\\u200bt' holds characters that cannot be printed",)),
    Case("empty field", labels("dog", ""), 1, ("labels.csv line 3: the training image 'b.jpg' has no label", "--negatives empty")),
    Case("empty field beside a word", labels("none;dog", "", more=("--negatives", "none")), 1, ("line 2: the labels 'none'",)),
    Case("no object", labels("dog", "none", more=("--negatives", "none")), 0, ("1 images show no object (labelled 'none')",)),
    Case("no object without the option", labels("dog", "none"), 0, ("'none' is taken for a class of objects", "--negatives 'none'")),
    Case("misspelt word", labels("dog;nonne", "none", more=("--negatives", "none")), 1, ("line 2: the class 'nonne' is nearly 'none'",)),
    Case("unused word", labels("dog", "dog", more=("--negatives", "none")), 1, ("no image is labelled 'none'",)),
    Case("only negatives", labels("none", "none", more=("--negatives", "none")), 1, ("no image has another label than 'none'",)),
    Case("one class everywhere", labels("dog", "dog"), 0, ("every training image shows 'dog': nothing tells the object",)),
    Case("no label at all", prepare("image,labels,split\na.jpg,,val\n"), 1, ("no image has a label",)),
]


def latin_1_name(folder: Path) -> Arguments:
    arguments = prepare("image,labels\na.jpg,dog\n")(folder)
    Path(os.fsdecode(os.fsencode(folder / "images") + b"/M\xf6we.jpg")).touch()
    return arguments


CSV_FILES = [
    Case("file name that is not UTF-8", latin_1_name, 1, ("cannot list", "images: a file name is not UTF-8; rename the file")),
    Case(
        "home of nobody",
        prepare("image,labels\na.jpg,x\n", "--masks", "~nobody-of-this-name/m"),
        1,
        ("cannot open ~nobody-of-this-name/m",),
    ),
    Case("old Mac line ends", prepare("image,labels\ra.jpg,dog\rb.jpg,cat\r"), 0, (": cat, dog",)),
    Case("carriage return in a line", prepare("image,labels\na.jpg,dog\rb.jpg,cat\n"), 0, (": cat, dog",)),
    Case("huge field", prepare(f"image,labels\na.jpg,{'x' * 200_000}\n"), 1, ("labels.csv line 2 is not valid CSV", "131,072")),
    Case("NUL", prepare("image,labels\na.jpg,do\0g\n"), 1, ("labels.csv line 2 holds the control character 0x00",)),
    Case("doubled column", prepare("image,labels,labels\na.jpg,dog,cat\n"), 1, ("labels.csv has 2 columns 'labels'",)),
    Case("quote that never ends", prepare('image,labels\na.jpg,"dog\nb.jpg,cat\n'), 1, ("is not valid CSV (unexpected end of data)",)),
    Case(
        "text after a quote", prepare('image,labels\na.jpg,"dog";"cat"\n'), 1, ("line 2 is not valid CSV", "quotes go around a whole field")
    ),
    Case("UTF-16", prepare("image,labels\na.jpg,dog\n".encode("utf-16")), 1, ("labels.csv is not a text file in UTF-8",)),
    Case("Latin-1", prepare("image,labels\na.jpg,M\xf6we\n".encode("latin-1")), 1, ("labels.csv is not a text file in UTF-8",)),
    Case("empty", prepare(""), 1, ("labels.csv has no column 'image' (it has: nothing)",)),
    Case("only a header", prepare("image,labels\n"), 1, ("labels.csv lists no images",)),
    Case("no split", prepare("image,labels,split\na.jpg,dog,train\nb.jpg,dog\n"), 1, ("labels.csv line 3 has no split",)),
    Case("path", prepare("image,labels\n../a.jpg,dog\n"), 1, ("line 2: there is no image '../a.jpg'",)),
]


def table(command: str = "check", **changes: Any) -> Callable[[Path], Arguments]:
    """Return what writes an index of two scenes, edits its columns (lists) and metadata (`about`), and calls `vwl data COMMAND`."""

    def make(folder: Path) -> Arguments:
        path = folder / "index.parquet"
        write_index(tiny_scenes(folder / "scenes", 2, 0), path)
        edit(path, **changes)
        return ["data", command, path]

    return make


def edit(path: Path, **changes: Any) -> None:
    """Replace columns of an index table, and keys of its metadata (`about`), as a user would with pyarrow."""
    old = pq.read_table(path)
    about = json.loads(old.schema.metadata[b"vwl"]) | changes.pop("about", {})
    names = dict.fromkeys([*old.column_names, *changes])
    columns = {name: pa.array(changes[name]) if name in changes else old[name] for name in names}
    pq.write_table(pa.table(columns, metadata={b"vwl": json.dumps(about).encode()}), path)


def written(content: bytes) -> Callable[[Path], Arguments]:
    """Return what writes a file in the place of an index table."""

    def make(folder: Path) -> Arguments:
        (folder / "index.parquet").write_bytes(content)
        return ["data", "show", folder / "index.parquet"]

    return make


NOT_A_TABLE = "index.parquet is not an index table made by vwl data prepare"
TABLES = [
    Case("not Parquet", written(b"image,labels"), 1, (NOT_A_TABLE,)),
    Case("empty table file", written(b""), 1, (NOT_A_TABLE,)),
    Case("Parquet's marks only", written(b"PAR1" + b"\0" * 40 + b"PAR1"), 1, (NOT_A_TABLE,)),
    Case("ids of numbers", table(image_id=[1, 2]), 1, ("index.parquet row 1: the image id 1 is not text",)),
    Case("id with a slash", table(image_id=["a", "b/../../c"]), 1, ("index.parquet row 2: image id 'b/../../c' is not a file name",)),
    Case("id with a backslash", table(image_id=["a", "b\\c"]), 1, ("index.parquet row 2: image id 'b\\c' is not a file name",)),
    Case("id of dots", table(image_id=["..", "b"]), 1, ("index.parquet row 1: image id '..' is not a file name",)),
    Case("id with NUL", table(image_id=["a", "b\0"]), 1, ("index.parquet row 2: image id 'b\\x00' is not a file name",)),
    Case("empty id", table(image_id=["", "b"]), 1, ("index.parquet row 1: image id '' is not a file name",)),
    Case("null id", table(image_id=[None, "b"]), 1, ("index.parquet row 1: the image id None is not text",)),
    Case("id twice", table(image_id=["a", "a"]), 1, ("index.parquet rows 1 and 2: image id 'a' occurs more than once",)),
    Case("unknown split", table(split=["train", "training"]), 1, ("row 2", "unknown split 'training'; did you mean 'train'?")),
    Case("numbered split", table(split=[0, 1]), 1, ("index.parquet row 1", "unknown split 0")),
    Case("fractional label", table(labels=[[1], [1.5]]), 1, ("index.parquet row 1", "has label 1.0, which is not a whole number")),
    Case("labels as text", table(labels=["beetle", "lizard"]), 1, ("index.parquet row 1: the labels 'beetle' of image", "not a list")),
    Case("null labels", table(labels=[[1], None]), 1, ("index.parquet row 2: the labels None",)),
    Case("label of no class", table(labels=[[1], [3]]), 1, ("index.parquet row 2", "has label 3, but the classes are 1 to 2")),
    Case("negative label", table(labels=[[-1], [1]]), 1, ("index.parquet row 1", "has label -1")),
    Case("negative with labels", table(negative=[False, True]), 1, ("index.parquet row 2", "is negative (shows no object) and yet has")),
    Case("negative of text", table(negative=["no", "no"]), 1, ("index.parquet row 1", "'no' in the column 'negative'", "neither true")),
    Case("null in negative", table(negative=[None, False]), 1, ("index.parquet row 1", "None in the column 'negative'")),
    Case("label twice", table(labels=[[1, 1], [1]]), 1, ("index.parquet row 1: the labels [1, 1]", "not in ascending order")),
    Case(
        "path out of the root", table(image=["../a.jpg", "b.jpg"]), 1, ("index.parquet row 1: the path '../a.jpg'", "leads out of the root")
    ),
    Case("absolute path", table(mask=["/etc/passwd", None]), 1, ("index.parquet row 1: the path '/etc/passwd'", "leads out of the root")),
    Case("short palette", table(about={"palette": [0, 0, 0]}), 1, (NOT_A_TABLE, "'palette' in its metadata is [0, 0, 0] and not 768")),
    Case("palette of names", table(about={"palette": "red"}), 1, (NOT_A_TABLE, "'palette' in its metadata is 'red'")),
    Case("palette above 255", table(about={"palette": [256] * 768}), 1, (NOT_A_TABLE, "whole numbers from 0 to 255")),
    Case("classes of numbers", table(about={"classes": [0, 1, 2]}), 1, (NOT_A_TABLE, "'classes' in its metadata is [0, 1, 2]")),
    Case("no background", table(about={"classes": ["cat", "dog", "cow"]}), 1, ("the first class is 'cat'; it must be 'background'",)),
    Case("300 classes", table(about={"classes": ["background", *map(str, range(300))]}), 1, ("index.parquet: there are 300 classes",)),
    Case("root of a number", table(about={"root": 7}), 1, (NOT_A_TABLE, "'root' in its metadata is 7")),
    Case("later format", table(about={"format": 2}), 1, (NOT_A_TABLE, "its format is 2; this version of vwl reads format 1")),
    Case("shown as well", table("show", split=["x", "y"]), 1, ("index.parquet row 1", "unknown split 'x'")),
]


@pytest.mark.parametrize("case", [*CLASS_NAMES, *CSV_FILES], ids=lambda case: case.name)
def test_hostile_labels_are_read_or_end_in_one_line(case, tmp_path):
    check(case, tmp_path)
    assert (tmp_path / "index.parquet").exists() == (case.code == 0)


@pytest.mark.parametrize("case", TABLES, ids=lambda case: case.name)
def test_an_index_table_edited_by_hand_ends_in_one_line(case, tmp_path):
    check(case, tmp_path)
