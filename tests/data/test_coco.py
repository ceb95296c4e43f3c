import json
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from tests.helpers import real_data
from vwl.data.coco import Instance, paint_mask, prepare_coco
from vwl.errors import VwlError


def square(number, category, x, y, side, crowd=0):
    corners = [x, y, x + side, y, x + side, y + side, x, y + side]
    return {"id": number, "image_id": 1, "category_id": category, "area": side**2, "iscrowd": crowd, "segmentation": [corners]}


def painted(annotations, class_ids, height=10, width=10):
    return paint_mask([Instance.from_json(annotation) for annotation in annotations], class_ids, height, width)


@pytest.fixture
def tiny(tmp_path):
    """One train image with a dog (category 18) on a bed (65), and one image without annotation."""
    content = {
        "images": [{"id": n, "file_name": f"p{n}.jpg", "height": 10, "width": 12} for n in (1, 2)],
        "categories": [{"id": 65, "name": "bed"}, {"id": 18, "name": "dog"}],
        "annotations": [square(1, 18, 2, 2, 4), square(2, 65, 1, 1, 8)],
    }
    (tmp_path / "annotations").mkdir()
    (tmp_path / "train2014").mkdir()
    for n in (1, 2):
        Image.new("L", (12, 10)).save(tmp_path / f"train2014/p{n}.jpg")

    def save(year="2014", **changes):
        (tmp_path / f"annotations/instances_train{year}.json").write_text(json.dumps({**content, **changes}))
        return tmp_path

    save.content = content
    save()
    return save


def test_a_link_out_of_the_folder_is_refused_before_masks_are_painted(tiny):
    root = tiny()
    outside = root.parent / "outside.jpg"
    (root / "train2014/p1.jpg").rename(outside)
    (root / "train2014/p1.jpg").symlink_to(outside)
    with pytest.raises(VwlError, match=f"p1.jpg is a link that leads out of {root}"):
        prepare_coco(root)
    assert not (root / "SegmentationClass").exists()


def test_smaller_instances_are_on_top_and_class_ids_ascend_with_the_categories(tiny):
    index, notes = prepare_coco(tiny())
    assert index.classes == ("background", "dog", "bed")
    (row,) = index.rows
    assert (row.image_id, row.labels, row.split) == ("p1", (1, 2), "train")
    mask = index.read_mask(row)
    assert mask.shape == (10, 12)
    assert Counter(mask.ravel().tolist()) == {0: 120 - 64, 2: 64 - 16, 1: 16}
    assert "train2014: 1 images without annotation are left out" in notes
    assert "there are 2 categories; COCO has 80" in notes


def test_a_crowd_is_ignored_where_no_smaller_instance_covers_it():
    annotations = [square(1, 1, 2, 2, 2), square(2, 2, 1, 1, 6, crowd=1), square(3, 3, 0, 0, 9)]
    mask = painted(annotations, {1: 1, 2: 2, 3: 3})
    assert Counter(mask.ravel().tolist()) == {0: 19, 3: 81 - 36, 255: 36 - 4, 1: 4}


def test_polygons_of_fewer_than_three_points_cover_nothing():
    annotation = {**square(1, 1, 2, 2, 4), "segmentation": [[0, 0, 9, 9], square(1, 1, 2, 2, 4)["segmentation"][0]]}
    assert (painted([annotation], {1: 1}) == 1).sum() == 16
    assert not painted([{**annotation, "segmentation": [[0, 0, 9, 9]]}], {1: 1}).any()


def test_compressed_and_plain_run_lengths_give_the_same_pixels():
    runs = {"counts": [12, 5, 83], "size": [10, 10]}
    packed = coco_mask.frPyObjects(runs, 10, 10)
    plain = painted([{**square(1, 1, 0, 0, 1), "segmentation": runs}], {1: 1})
    assert plain.T.ravel().nonzero()[0].tolist() == [12, 13, 14, 15, 16]
    packed = {"counts": packed["counts"].decode(), "size": packed["size"]}
    np.testing.assert_array_equal(painted([{**square(1, 1, 0, 0, 1), "segmentation": packed}], {1: 1}), plain)


def test_existing_masks_are_kept(tiny):
    root = tiny()
    index, _ = prepare_coco(root)
    mask = root / index.rows[0].mask
    mask.write_bytes(b"marked")
    again, notes = prepare_coco(root)
    assert again.rows == index.rows
    assert mask.read_bytes() == b"marked"
    assert "train2014: painted 0 masks, kept 1 existing ones" in notes


def test_with_masks_in_another_folder_the_root_is_above_both(tiny, tmp_path_factory):
    root, masks = tiny(), tmp_path_factory.mktemp("masks")
    index, _ = prepare_coco(root, masks)
    assert not (root / "SegmentationClass").exists()
    assert (masks / "train2014/p1.png").is_file()
    assert index.read_mask(index.rows[0]).shape == (10, 12)
    assert index.read_image(index.rows[0]).size == (12, 10)


def test_the_year_that_has_images_is_used(tiny):
    root = tiny(year="2017")
    (root / "images").mkdir()
    (root / "train2014").rename(root / "images/train2017")
    index, notes = prepare_coco(root)
    assert index.rows[0].image == "images/train2017/p1.jpg"
    assert index.source == "MS COCO 2017"
    assert "the annotations of 2014 are not used, those of 2017 are" in notes


def test_progress_counts_the_masks(tiny):
    seen = []
    prepare_coco(tiny(), progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 1)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"annotations": [square(7, 99, 0, 0, 2)]}, "annotation 7 has category 99, which is not listed"),
        ({"annotations": [{**square(7, 18, 0, 0, 2), "image_id": 5}]}, "annotation 7 belongs to image 5"),
        ({"annotations": [{**square(7, 18, 0, 0, 2), "segmentation": [[1]]}]}, "annotation 7 has no valid segmentation"),
        ({"annotations": [{**square(7, 18, 0, 0, 2), "segmentation": {"counts": [3, 3], "size": [2, 3]}}]}, "annotation 7 has a segm"),
        ({"annotations": [{"id": 7, "image_id": 1, "category_id": 18}]}, "an entry lacks the key 'area'"),
        ({"annotations": []}, "the data set has no images"),
        ({"categories": [{"id": 18}]}, "has no valid list 'categories'"),
        ({"images": [{"id": 1, "file_name": "gone.jpg", "height": 10, "width": 12}]}, r"gone\.jpg is annotated but missing \(1 of 1"),
    ],
)
def test_bad_annotations_are_named_in_one_line(tiny, changes, message):
    with pytest.raises(VwlError, match=message) as caught:
        prepare_coco(tiny(**changes))
    assert "\n" not in str(caught.value)


def test_a_folder_without_annotations_or_with_broken_json_is_refused(tiny, tmp_path_factory):
    with pytest.raises(VwlError, match="give COCO's folder"):
        prepare_coco(tmp_path_factory.mktemp("empty"))
    root = tiny()
    (root / "annotations/instances_train2014.json").write_text("{")
    with pytest.raises(VwlError, match="not valid JSON"):
        prepare_coco(root)


def test_splits_with_different_categories_are_refused(tiny):
    root = tiny()
    text = (root / "annotations/instances_train2014.json").read_text().replace('"bed"', '"sofa"')
    (root / "annotations/instances_val2014.json").write_text(text)
    with pytest.raises(VwlError, match="has other categories than"):
        prepare_coco(root)


def test_the_real_masks_equal_a_pixelwise_transcription_and_no_label_is_lost(tmp_path):
    """Each pixel shows the smallest annotation that covers it: 255 for a crowd, else its class."""
    root = real_data("coco14mini")
    index, _ = prepare_coco(root, tmp_path)
    assert Counter(row.split for row in index.rows) == {"train": 90, "val": 19}
    assert len(index.classes) == 81
    num_crowds = 0
    for split in ("train", "val"):
        truth = COCO(root / f"annotations/instances_{split}2014.json")
        ids = {category: label for label, category in enumerate(sorted(truth.cats), 1)}
        images = {image["file_name"].removesuffix(".jpg"): image for image in truth.imgs.values()}
        for row in index.split(split):
            image = images[row.image_id]
            annotations = truth.imgToAnns[image["id"]]
            smallest = np.full((image["height"], image["width"]), np.inf)
            expected = np.zeros((image["height"], image["width"]), np.uint8)
            for annotation in annotations:
                on_top = truth.annToMask(annotation).astype(bool) & (annotation["area"] <= smallest)
                smallest[on_top] = annotation["area"]
                expected[on_top] = 255 if annotation["iscrowd"] else ids[annotation["category_id"]]
                num_crowds += annotation["iscrowd"]
            np.testing.assert_array_equal(index.read_mask(row), expected)
            assert row.labels == tuple(sorted({ids[annotation["category_id"]] for annotation in annotations}))
    assert num_crowds > 0
