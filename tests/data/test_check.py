import os

import numpy as np
import pytest
from PIL import Image

from tests.helpers import real_data
from vwl.data.check import check_index
from vwl.data.index import Row, make_index
from vwl.data.summary import summarise
from vwl.data.voc import prepare_voc
from vwl.storage.masks import encode_mask, voc_palette

CLASSES = ("background", "cat", "dog")


@pytest.fixture
def data(tmp_path):
    """Return a function that makes an index of 20 x 12 images: data(name=(labels, mask or None, split))."""

    def make(**images):
        rows = []
        for number, (name, (labels, mask, split)) in enumerate(images.items()):
            Image.new("RGB", (20, 12), (number, 0, 0)).save(tmp_path / f"{name}.png")
            if mask is not None:
                (tmp_path / f"{name}_mask.png").write_bytes(encode_mask(mask, voc_palette()))
            rows.append(Row(name, f"{name}.png", labels, f"{name}_mask.png" if mask is not None else None, split))
        return make_index(rows, CLASSES, tmp_path, "test")

    return make


def mask_of(*labels):
    mask = np.zeros((12, 20), np.uint8)
    for column, label in enumerate(labels):
        mask[2:10, 2 + 3 * column] = label
    return mask


def kinds(index):
    return [(problem.image_id, problem.kind) for problem in check_index(index)]


def test_a_correct_data_set_has_no_problems(data):
    assert kinds(data(a=((1,), mask_of(1), "train"), b=((1, 2), mask_of(1, 2, 255), "val"), c=((), None, "test"))) == []


@pytest.mark.parametrize(
    ("labels", "mask", "split", "kind", "message"),
    [
        ((), None, "train", "no-label", "training image a has no label"),
        ((), None, "aug", "no-label", "training image a has no label"),
        ((1, 2), mask_of(1), "val", "label-not-in-mask", "is labelled dog, but its mask a_mask.png has no such pixels"),
        ((1,), mask_of(1, 2), "val", "class-not-in-labels", "has pixels of dog, but image a is not labelled so"),
        ((1,), mask_of(1, 3), "val", "mask-id", "holds the class id 3; valid ids are 0 to 2, and 255 for ignored pixels"),
        ((1,), mask_of(1)[:, :18], "val", "size", "is 18 x 12 pixels, its image a.png 20 x 12"),
    ],
)
def test_each_mistake_is_one_problem(data, labels, mask, split, kind, message):
    (problem,) = check_index(data(a=(labels, mask, split)))
    assert (problem.image_id, problem.kind) == ("a", kind)
    assert message in problem.message


def test_an_ignored_area_may_hide_a_label_but_an_ignored_outline_may_not(data):
    area, outline = mask_of(1), mask_of(1)
    area[:, 8:] = 255
    outline[:, 8:14] = 255
    index = data(area=((1, 2), area, "val"), outline=((1, 2), outline, "val"))
    assert kinds(index) == [("outline", "label-not-in-mask")]


def test_the_same_file_under_two_ids_is_a_problem_that_names_both_splits(data, tmp_path):
    index = data(a=((1,), None, "train"), b=((1,), None, "val"), c=((1,), None, "val"))
    (tmp_path / "c.png").write_bytes((tmp_path / "a.png").read_bytes())
    (problem,) = check_index(index)
    assert (problem.kind, problem.message) == ("duplicate", "image c (val) is the same file as image a (train)")


def test_unreadable_files_are_problems_and_the_others_are_still_checked(data, tmp_path):
    index = data(a=((1,), mask_of(1), "train"), b=((1,), mask_of(1), "train"), c=((2,), mask_of(1), "train"), d=((1,), mask_of(1), "train"))
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes()[:40])
    Image.new("RGB", (20, 12)).save(tmp_path / "b_mask.png")
    (tmp_path / "d_mask.png").unlink()
    assert kinds(index) == [
        ("a", "unreadable-image"),
        ("b", "unreadable-mask"),
        ("c", "label-not-in-mask"),
        ("c", "class-not-in-labels"),
        ("d", "unreadable-mask"),
    ]


def test_a_link_out_of_the_root_and_a_pipe_are_problems(data, tmp_path):
    index = data(a=((1,), mask_of(1), "val"), b=((1,), None, "val"))
    outside = tmp_path.parent / "outside.png"
    (tmp_path / "a.png").rename(outside)
    (tmp_path / "a.png").symlink_to(outside)
    (tmp_path / "b.png").unlink()
    os.mkfifo(tmp_path / "b.png")
    link, pipe = check_index(index)
    assert (link.kind, pipe.kind) == ("unreadable-image", "unreadable-image")
    assert link.message == f"{tmp_path}/a.png is a link that leads out of {tmp_path}, to {outside}; put the file itself below the folder"
    assert "b.png is a folder, pipe or device and not a file" in pipe.message


def test_progress_counts_every_image(data):
    seen = []
    check_index(data(a=((1,), None, "train"), b=((1,), None, "val")), lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


def test_the_only_problems_of_the_real_subset_are_labels_without_pixels():
    problems = check_index(prepare_voc(real_data("voc12mini"))[0])
    assert {problem.kind for problem in problems} <= {"label-not-in-mask"}
    assert len(problems) < 30


def test_a_summary_counts_images_labels_masks_and_classes_by_split(data):
    index = data(a=((1,), mask_of(1), "train"), b=((1, 2), None, "train"), c=((2,), mask_of(2), "val"))
    train, val = summarise(index)
    assert (train.split, train.images, train.labels_per_image, train.masks) == ("train", 2, 1.5, 1)
    assert train.classes == {"cat": 2, "dog": 1}
    assert (val.split, val.classes) == ("val", {"cat": 0, "dog": 1})
