"""The corpus of hostile exports of annotation tools: each ends in one line that names the file and the entry."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.hostile.cases import Case, check
from vwl.data.importers.detect import Format, prepare_any
from vwl.errors import VwlError


def auto(files: dict[str, Any], *more: str, path: str = "") -> Callable[[Path], Sequence[str | Path]]:
    """Return what writes the images a.jpg and b.jpg and other files (text, or values as JSON), and prepares an index of them."""

    def make(folder: Path) -> Sequence[str | Path]:
        root = folder / "data"
        root.mkdir()
        for number, name in enumerate(("a.jpg", "b.jpg")):
            Image.new("RGB", (8, 6), (60 * number, 0, 0)).save(root / name)
        for name, content in files.items():
            (root / name).parent.mkdir(exist_ok=True)
            text = content if isinstance(content, str | bytes) else json.dumps(content)
            (root / name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return ["data", "prepare", "auto", root / path if path else root, "--out", folder / "index.parquet", *more]

    return make


def coco(**changes: Any) -> dict[str, Any]:
    images = [{"id": 1, "file_name": "a.jpg"}, {"id": 2, "file_name": "b.jpg"}]
    annotations = [{"id": 7, "image_id": 1, "category_id": 90}, {"id": 8, "image_id": 2, "category_id": 0}]
    return {"images": images, "annotations": annotations, "categories": [{"id": 90, "name": "dog"}, {"id": 0, "name": "cat"}]} | changes


def tasks(*choices: str, image: str = "a.jpg") -> list[dict[str, Any]]:
    result = [{"type": "choices", "from_name": "choice", "value": {"choices": [*choices]}}]
    return [{"id": 1, "data": {"image": image}, "annotations": [{"result": result}]}]


BOMB = '<!DOCTYPE a [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;">]><annotations><image name="a.jpg"><tag label="&b;"/></image></annotations>'
CVAT = '<annotations><version>1.1</version><image id="0" name="{}"><tag label="{}"/></image></annotations>'
CASES = [
    Case("category ids of any size", auto({"x.json": coco()}), 0, ("found: COCO JSON x.json: 2 images, 2 classes", ": cat, dog")),
    Case(
        "category ids of text", auto({"x.json": coco(categories=[{"id": "1", "name": "dog"}])}), 1, ("x.json", "no valid list 'categories'")
    ),
    Case(
        "two categories of one name",
        auto({"x.json": coco(categories=[{"id": 90, "name": "dog"}, {"id": 0, "name": "Dog"}])}),
        1,
        ("differ",),
    ),
    Case("annotation of no image", auto({"x.json": coco(annotations=[{"id": 3, "image_id": 9, "category_id": 0}])}), 1, ("annotation 3",)),
    Case("list as id", auto({"x.json": coco(annotations=[{"id": 3, "image_id": [], "category_id": 0}])}), 1, ("value of another type",)),
    Case("path out of the folder", auto({"x.json": coco(images=[{"id": 1, "file_name": "../../b"}])}), 1, ("annotation 8",)),
    Case("file name with NUL", auto({"x.json": tasks("dog", image="a\0.jpg")}), 1, ("task 1: there is no image",)),
    Case("brackets without end", auto({"x.json": "[" * 200_000}, path="x.json"), 1, ("x.json holds no labels of a known format",)),
    Case("half a surrogate", auto({"x.json": tasks("dog\ud800")}), 1, ("task 1: the class name", "cannot be printed")),
    Case("line break in a name", auto({"x.json": tasks("dog\ncat")}), 1, ("task 1: the class name 'dog\\ncat'",)),
    Case("no annotation", auto({"x.json": [{"id": 1, "data": {"image": "a.jpg"}, "annotations": []}]}), 1, ("x.json holds no choices",)),
    Case("entities of entities", auto({"x.xml": BOMB}, path="x.xml"), 1, ("x.xml holds no labels of a known format",)),
    Case("entities, stated", auto({"x.xml": BOMB}, "--format", "cvat", path="x.xml"), 1, ("x.xml declares a document type",)),
    Case("link as name", auto({"x.xml": CVAT.format("/etc/passwd", "dog")}), 1, ("there is no image '/etc/passwd'",)),
    Case("tag without a name", auto({"x.xml": CVAT.format("a.jpg", "")}), 1, ("the class name '' is empty",)),
    Case("UTF-16", auto({"x.csv": "image,dog\na.jpg,1\n".encode("utf-16")}, path="x.csv"), 1, ("x.csv holds no labels",)),
    Case("two formats", auto({"x.json": coco(), "y.json": tasks("dog")}), 1, ("labels of 2 formats", "x.json", "y.json", "--format")),
    Case("unknown format", auto({}, "--format", "yolo"), 2, ("'yolo' is not one of",)),
    Case("no labels", auto({}), 1, ("a.jpg: images of this folder must lie as CLASS/image", "or give a file of labels")),
    Case(
        "one class folder", auto({"x/metadata.jsonl": '{"file_name": "../a.jpg", "label": "dog"}'}), 0, ("found: Hugging Face", "1 images")
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_an_export_ends_in_one_line(case, tmp_path):
    check(case, tmp_path)


KEYS = (
    "id",
    "images",
    "annotations",
    "categories",
    "data",
    "image",
    "result",
    "type",
    "from_name",
    "value",
    "choices",
    "file_name",
    "name",
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 3) | st.floats() | st.sampled_from(["a.jpg", "choices", "dog", "", "\0"]),
    lambda values: st.lists(values, max_size=3) | st.dictionaries(st.sampled_from(KEYS), values, max_size=5),
    max_leaves=12,
)
TASKS = st.lists(
    st.fixed_dictionaries({"data": JSON, "annotations": st.lists(st.fixed_dictionaries({"result": st.lists(JSON)}))}), max_size=2
)
ENTRIES = st.lists(st.dictionaries(st.sampled_from(("id", "file_name", "name", "image_id", "category_id")), JSON), max_size=3)
COCO = st.fixed_dictionaries({"images": ENTRIES, "annotations": ENTRIES, "categories": ENTRIES})


@pytest.mark.parametrize("label_format", ["label-studio", "coco-json"])
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(content=JSON | TASKS | COCO)
def test_any_json_gives_an_index_or_one_line(tmp_path, label_format: Format, content):
    if not (tmp_path / "a.jpg").exists():
        Image.new("RGB", (8, 6)).save(tmp_path / "a.jpg")
    (tmp_path / "x.json").write_text(json.dumps(content))
    message = ""
    try:
        assert prepare_any(tmp_path / "x.json", label_format=label_format).index.rows
    except VwlError as error:
        message = str(error)
    assert "\n" not in message
