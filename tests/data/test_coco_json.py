"""COCO's JSON: run lengths give pycocotools' pixels, and values that its C code would stumble over are refused before it sees them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from pycocotools import mask as coco_mask

from vwl.data.coco_json import Instance, instance_region, read_categories, read_images
from vwl.errors import VwlError

SQUARE = {"id": 7, "image_id": 1, "category_id": 3, "area": 9, "iscrowd": 0, "segmentation": [[1, 1, 4, 1, 4, 4, 1, 4]]}
CONTENT = {
    "images": [{"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}],
    "categories": [{"id": 3, "name": "car"}],
    "annotations": [SQUARE],
}


def changed(section: str, **values) -> dict:
    return {**CONTENT, section: [{**CONTENT[section][0], **values}]}


def region(segmentation, height: int = 6, width: int = 8) -> np.ndarray:
    return instance_region(Instance(7, 3, 9, segmentation, False), height, width)


@settings(max_examples=60)
@given(arrays(bool, array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=40)))
def test_plain_and_compressed_run_lengths_give_pycocotools_pixels(mask):
    packed = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    flat = np.concatenate([[False], mask.ravel(order="F")]).astype(int)
    counts = np.diff(np.concatenate([[0], np.flatnonzero(np.diff(flat)), [mask.size]])).tolist()
    for value in (packed["counts"].decode(), counts):
        np.testing.assert_array_equal(region({"counts": value, "size": [*mask.shape]}, *mask.shape), mask)


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1]],
        [["a"] * 8],
        [[1, 1, 4, 1, 4, 4, 1]],
        [[1e300] * 8],
        [[float("nan")] * 8],
        [[1, 1, 400, 1, 4, 4]],
        [1, 2],
        {"counts": [48]},
        {"counts": [47], "size": [6, 8]},
        {"counts": [-5, 53], "size": [6, 8]},
        {"counts": [2**62, 2**62, 2**62, 2**62, 48], "size": [6, 8]},
        {"counts": [48.0], "size": [6, 8]},
        {"counts": [2**70], "size": [6, 8]},
        {"counts": None, "size": [6, 8]},
        {"counts": [], "size": [6, 8]},
        {"counts": "zz", "size": [6, 8]},
        {"counts": "o" * 100_000, "size": [6, 8]},
        {"counts": "\x00é", "size": [6, 8]},
        {"counts": [48], "size": [6]},
        {"counts": [48], "size": 6},
    ],
)
def test_a_segmentation_that_is_none_is_named_by_its_annotation(segmentation):
    with pytest.raises(VwlError, match=r"^COCO annotation 7 has no valid segmentation") as caught:
        region(segmentation)
    assert len(str(caught.value)) < 300


@given(st.text(st.characters(min_codepoint=48, max_codepoint=111), max_size=30))
def test_any_compressed_text_gives_a_region_or_one_line(text):
    try:
        found = region({"counts": text, "size": [6, 8]})
    except VwlError as error:
        assert "COCO annotation 7 has no valid segmentation" in str(error)  # noqa: PT017 - either outcome is right
    else:
        assert found.shape == (6, 8)


@pytest.mark.parametrize("value", [None, 3, "x", [1], [[1]], True, float("nan"), {"a": 1}])
@pytest.mark.parametrize("section", CONTENT)
def test_a_section_of_another_type_is_named(section, value):
    content = {**CONTENT, section: value}
    with pytest.raises(VwlError, match=r"^x\.json is not a file of COCO instances: "):
        read_images(content, "x.json", read_categories(content, "x.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], "has no valid list 'categories'"),
        (None, "has no valid list 'categories'"),
        (changed("categories", name=3), "has no valid list 'categories'"),
        (changed("categories", id="3"), "has no valid list 'categories'"),
        ({**CONTENT, "categories": CONTENT["categories"] * 2}, "has two categories of one id"),
        (changed("images", id=[]), "an entry has a value of another type"),
        (changed("images", file_name=None), "the file name of image 1 is None"),
        (changed("images", height=-1), "image 1 has width 8 and height -1"),
        (changed("images", width=1.5), "image 1 has width 1.5 and height 6"),
        (changed("images", width=10**9), "image 1 has width 1000000000 and height 6"),
        (changed("images", height=True), "image 1 has width 8 and height True"),
        (changed("annotations", area=float("nan")), "annotation 7 has no valid area"),
        (changed("annotations", area="9"), "annotation 7 has no valid area"),
        (changed("annotations", iscrowd=2), "annotation 7 has no valid area, iscrowd"),
        (changed("annotations", segmentation=None), "annotation 7 has no valid area, iscrowd or segmentation"),
    ],
)
def test_a_wrong_entry_is_named(content, message):
    with pytest.raises(VwlError, match=message):
        read_images(content, "x.json", read_categories(content, "x.json"))
