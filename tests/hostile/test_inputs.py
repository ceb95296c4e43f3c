"""The corpus of hostile images, masks, label files and index tables: each ends in one line, or is read as a person would read it."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from PIL import Image

from tests.hostile.cases import Case, check

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
    Case("no label at all", prepare("image,labels,split\na.jpg,,val\n"), 1, ("no image has a label",)),
]
CSV_FILES = [
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


@pytest.mark.parametrize("case", [*CLASS_NAMES, *CSV_FILES], ids=lambda case: case.name)
def test_a_hostile_input_is_read_or_ends_in_one_line(case, tmp_path):
    check(case, tmp_path)
    assert (tmp_path / "index.parquet").exists() == (case.code == 0)
