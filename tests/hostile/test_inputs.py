"""The corpus of hostile images, masks, label files and index tables: each ends in one line, or is read as a person would read it."""

import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.helpers import tiny_scenes
from tests.hostile.cases import Case, check
from vwl.cli.main import app
from vwl.data.index import write_index

Arguments = Sequence[str | Path]


def encoded(picture: Image.Image, kind: str) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, kind)
    return sink.getvalue()


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
    columns = {name: pa.array(changes[name]) if name in changes else old[name] for name in old.column_names}
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


def coco(section: str, **changes: Any) -> Callable[[Path], Arguments]:
    """Return what writes COCO's JSON for one image with a changed entry, and prepares an index from it."""

    def make(folder: Path) -> Arguments:
        square = {"id": 7, "image_id": 1, "category_id": 3, "area": 9, "iscrowd": 0, "segmentation": [[1, 1, 4, 1, 4, 4, 1, 4]]}
        entries = {
            "images": {"id": 1, "file_name": "a.jpg", "height": 6, "width": 8},
            "categories": {"id": 3, "name": "car"},
            "annotations": square,
        }
        entries[section] |= changes
        for name in ("annotations", "train2014"):
            (folder / name).mkdir()
        Image.new("RGB", (8, 6)).save(folder / "train2014/a.jpg")
        (folder / "annotations/instances_train2014.json").write_text(json.dumps({name: [entry] for name, entry in entries.items()}))
        return ["data", "prepare", "coco", "--root", folder, "--out", folder / "index.parquet"]

    return make


COCO = [
    Case("right", coco("images"), 0, ("painted 1 masks",)),
    Case("width of an acre", coco("images", width=10**9), 1, ("instances_train2014.json", "image 1 has width 1000000000 and height 6")),
    Case("height of text", coco("images", height="6"), 1, ("is not a file of COCO instances", "image 1 has width 8 and height '6'")),
    Case("list for an id", coco("images", id=[1]), 1, ("is not a file of COCO instances: an entry has a value of another type",)),
    Case("path of an image", coco("images", file_name="../a.jpg"), 1, ("../a.jpg is annotated but missing",)),
    Case("name of a number", coco("categories", name=3), 1, ("it has no valid list 'categories'",)),
    Case("category background", coco("categories", name="Background"), 1, ("'Background' is id 0 of every mask",)),
    Case("area that is none", coco("annotations", area=float("nan")), 1, ("annotation 7 has no valid area",)),
    Case("point far away", coco("annotations", segmentation=[[1e300] * 8]), 1, ("COCO annotation 7 has no valid segmentation",)),
    Case("runs of more pixels", coco("annotations", segmentation={"counts": [10**12], "size": [6, 8]}), 1, ("do not add up to 48 pixels",)),
    Case(
        "runs of another image",
        coco("annotations", segmentation={"counts": [9], "size": [3, 3]}),
        1,
        ("3 x 3 pixels, but its image has 8 x 6",),
    ),
    Case("runs below zero", coco("annotations", segmentation={"counts": [-5, 53], "size": [6, 8]}), 1, ("do not add up to 48 pixels",)),
    Case("text for runs", coco("annotations", segmentation={"counts": "zz", "size": [6, 8]}), 1, ("COCO annotation 7 has no valid",)),
]


def out(target: str) -> Callable[[Path], Arguments]:
    """Return what prepares an index to a path that cannot be a file: a folder, a pipe, or no name at all."""

    def make(folder: Path) -> Arguments:
        (folder / "folder").mkdir()
        os.mkfifo(folder / "pipe")
        arguments = prepare("image,labels\na.jpg,dog\n")(folder)
        return [*arguments[:-1], str(folder / target) if target else ""]

    return make


def scenes(*options: str) -> Callable[[Path], Arguments]:
    """Return what draws scenes with other options than they can have."""
    return lambda folder: ["data", "prepare", "scenes", "--folder", folder / "scenes", "--out", folder / "index.parquet", *options]


OUTPUTS = [
    Case("a folder as index", out("folder"), 1, ("folder is a folder, pipe or device; name a file for the index table",)),
    Case("a pipe as index", out("pipe"), 1, ("pipe is a folder, pipe or device; name a file for the index table",)),
    Case("no name as index", out(""), 1, ("'' names no file; give an index table such as index.parquet",)),
    Case("a file in a file", out("labels.csv/index.parquet"), 1, ("cannot write", "labels.csv/index.parquet")),
    Case("negative seed", scenes("--seed", "-1"), 1, ("the seed of scenes is -1; it cannot be negative",)),
    Case("no scenes", scenes("--num-train", "0", "--num-val", "0"), 1, ("numbers of scenes cannot be negative and not both 0",)),
    Case("scenes of a million pixels", scenes("--heights", "64", "1000000"), 1, ("heights of scenes must be a range", "at most 4096")),
]


def image(content: bytes, name: str = "images/train_00000.jpg") -> Callable[[Path], Arguments]:
    """Return what replaces a file of a scene and calls `vwl data check`."""

    def make(folder: Path) -> Arguments:
        arguments = table()(folder)
        (folder / "scenes" / name).write_bytes(content)
        return arguments

    return make


def linked(folder: Path) -> Arguments:
    arguments = table()(folder)
    file = folder / "scenes/images/train_00000.jpg"
    file.rename(folder / "outside.jpg")
    file.symlink_to(folder / "outside.jpg")
    return arguments


def piped(folder: Path) -> Arguments:
    arguments = table()(folder)
    file = folder / "scenes/images/train_00000.jpg"
    file.unlink()
    os.mkfifo(file)
    return arguments


MASK = "masks/train_00000.png"
FILES = [
    Case("empty image", image(b""), 1, ("train_00000.jpg cannot be read: it is an empty file",)),
    Case("text for an image", image(b"no image"), 1, ("train_00000.jpg cannot be read: it is not an image file",)),
    Case("header of a JPEG", image(b"\xff\xd8\xff\xe0"), 1, ("train_00000.jpg cannot be read: the file is truncated or damaged",)),
    Case("EPS", image(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n%%EOF\n"), 1, ("it is an EPS file",)),
    Case("HEIC", image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"), 1, ("it is a HEIC file; convert it to JPEG",)),
    Case("JPEG mask", image(encoded(Image.new("L", (80, 70)), "JPEG"), MASK), 1, ("is a JPEG, whose compression changes class ids",)),
    Case("RGB mask", image(encoded(Image.new("RGB", (80, 70)), "PNG"), MASK), 1, ("has mode RGB; save masks as indexed or 8-bit grey",)),
    Case("empty mask", image(b"", MASK), 1, ("mask masks/train_00000.png cannot be read: it is an empty file",)),
    Case("link out of the root", linked, 1, ("train_00000.jpg is a link that leads out of", "outside.jpg; put the file itself below")),
    Case("pipe", piped, 1, ("train_00000.jpg is a folder, pipe or device and not a file",)),
]


@pytest.mark.parametrize("case", [*CLASS_NAMES, *CSV_FILES], ids=lambda case: case.name)
def test_hostile_labels_are_read_or_end_in_one_line(case, tmp_path):
    check(case, tmp_path)
    assert (tmp_path / "index.parquet").exists() == (case.code == 0)


@pytest.mark.parametrize("case", COCO, ids=lambda case: case.name)
def test_a_hostile_annotation_ends_in_one_line_and_leaves_nothing(case, tmp_path):
    check(case, tmp_path)
    assert (tmp_path / "index.parquet").exists() == (case.code == 0)
    assert (tmp_path / "SegmentationClass").exists() == (case.code == 0)


@pytest.mark.parametrize("case", OUTPUTS, ids=lambda case: case.name)
def test_a_refused_output_leaves_nothing(case, tmp_path):
    check(case, tmp_path)
    assert not (tmp_path / "index.parquet").exists()
    assert not (tmp_path / "scenes").exists()
    assert not list(tmp_path.rglob(".part-*"))


@pytest.mark.parametrize("case", TABLES, ids=lambda case: case.name)
def test_an_index_table_edited_by_hand_ends_in_one_line(case, tmp_path):
    check(case, tmp_path)


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.name)
def test_data_check_lists_a_hostile_file_in_one_line(case, tmp_path):
    result = CliRunner().invoke(app, [str(argument) for argument in case.make(tmp_path)])
    assert result.exit_code == case.code, result.output
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("unreadable-"))
    assert all(part in line for part in case.parts), line
