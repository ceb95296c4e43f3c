"""The corpus of hostile images, masks, annotations and outputs of `vwl data`; see `test_inputs.py`."""

import io
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.hostile.cases import Case, check
from tests.hostile.test_inputs import Arguments, prepare, table
from vwl.cli.main import app


def encoded(picture: Image.Image, kind: str) -> bytes:
    sink = io.BytesIO()
    picture.save(sink, kind)
    return sink.getvalue()


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
    Case("a folder as index", out("folder"), 1, ("folder: it is a folder, pipe or device; name a file",)),
    Case("a pipe as index", out("pipe"), 1, ("pipe: it is a folder, pipe or device; name a file",)),
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


@pytest.mark.parametrize("case", FILES, ids=lambda case: case.name)
def test_data_check_lists_a_hostile_file_in_one_line(case, tmp_path):
    result = CliRunner().invoke(app, [str(argument) for argument in case.make(tmp_path)])
    assert result.exit_code == case.code, result.output
    (line,) = (line for line in result.stdout.splitlines() if line.startswith("unreadable-"))
    assert all(part in line for part in case.parts), line
