"""`vwl data prepare auto`: every format is told from its files, as the tools write them, and gives the labels that it holds."""

import json
import shutil

import numpy as np
import pytest

from tests.data.importers.conftest import EXPORTS, with_images
from tests.helpers import real_data
from vwl.data.check import check_index
from vwl.data.importers.detect import DESCRIBED, prepare_any
from vwl.data.index import read_index, write_index
from vwl.data.tagged import Choices
from vwl.errors import VwlError
from vwl.storage.masks import encode_mask, voc_palette

EMPTY = Choices(negatives="empty")


def labels(prepared):
    """Return the names of each image's labels by image id."""
    index = prepared.index
    return {row.image_id: [index.classes[label] for label in row.labels] for row in index.rows}


def splits(prepared):
    return {row.image_id: row.split for row in prepared.index.rows}


@pytest.mark.parametrize("name", ["label-studio.json", "label-studio-min.json", "label-studio.csv"])
def test_exports_of_label_studio(photos, name):
    prepared = prepare_any(EXPORTS / name, photos)
    assert labels(prepared) == {"a": ["dog", "traffic light"], "b": ["dog"], "c": ["traffic light"]}
    kind = {"label-studio.json": "JSON", "label-studio-min.json": "JSON-MIN", "label-studio.csv": "CSV"}[name]
    assert prepared.found == f"Label Studio {kind} {name}: 3 images, 2 classes"


@pytest.mark.parametrize("name", ["cvat.xml", "coco.json"])
def test_exports_of_cvat_and_datumaro(photos, name):
    prepared = prepare_any(EXPORTS / name, photos, EMPTY)
    assert labels(prepared) == {"a": ["dog", "traffic light"], "b": ["dog"], "c": []}
    assert [row.negative for row in prepared.index.rows] == [False, False, True]
    assert prepared.found.endswith("3 images, 2 classes, 1 without objects")


@pytest.mark.parametrize("name", ["cvat.xml", "coco.json"])
def test_an_image_without_a_tag_is_refused_unless_it_is_said_to_be_negative(photos, name):
    with pytest.raises(VwlError, match=r"image .*: the training image 'c\.jpg' has no label; .*--negatives empty"):
        prepare_any(EXPORTS / name, photos)


FOLDERS = {
    "class-folders": (("dog/1.jpg", "cat/1.jpg", "cat/2.png"), {}, {"cat_1": ["cat"], "cat_2": ["cat"], "dog_1": ["dog"]}),
    "class-folders, splits": (
        ("train/dog/1.jpg", "validation/cat/1.jpg"),
        {},
        {"train_dog_1": ["dog"], "validation_cat_1": ["cat"]},
    ),
    "labels-csv": (
        ("photos/a.jpg", "photos/b.jpg"),
        {"labels.csv": "image,labels\na,dog\nb.jpg,dog;cat\n"},
        {"photos_a": ["dog"], "photos_b": ["cat", "dog"]},
    ),
    "multi-hot": (("a.jpg", "b.jpg"), {"labels.csv": "image,dog,big cat\na.jpg,1,0\nb.jpg,1,1\n"}, {"a": ["dog"], "b": ["dog", "big cat"]}),
    "multi-hot, Roboflow": (
        ("train/a.jpg", "valid/b.jpg"),
        {"train/_classes.csv": "filename, dog, cat\na.jpg, 1, 0\n", "valid/_classes.csv": "filename, dog, cat\nb.jpg, 1, 1\n"},
        {"train_a": ["dog"], "valid_b": ["dog", "cat"]},
    ),
    "coco-json, Roboflow": (
        ("train/a.jpg", "valid/a.jpg"),
        {
            f"{split}/_annotations.coco.json": json.dumps(
                {
                    "images": [{"id": 0, "file_name": "a.jpg", "height": 6, "width": 8}],
                    "categories": [{"id": 0, "name": "animals"}, {"id": 17, "name": "dog"}, {"id": 5, "name": "cat"}],
                    "annotations": [{"id": 0, "image_id": 0, "category_id": number, "bbox": [1, 1, 2, 2]} for number in ids],
                }
            )
            for split, ids in (("train", (17,)), ("valid", (17, 5)))
        },
        {"train_a": ["dog"], "valid_a": ["cat", "dog"]},
    ),
    "hugging-face, CSV": (
        ("train/1.png", "test/2.png"),
        {"train/metadata.csv": "file_name,label\n1.png,dog\n", "test/metadata.csv": "file_name,label\n2.png,big cat\n"},
        {"test_2": ["big cat"], "train_1": ["dog"]},
    ),
    "hugging-face, JSON lines": (
        ("data/train/1.png", "2.png"),
        {"metadata.jsonl": '{"file_name": "data/train/1.png", "labels": ["dog", "cat"]}\n{"file_name": "2.png", "labels": "cat"}\n'},
        {"data_train_1": ["cat", "dog"], "2": ["cat"]},
    ),
}


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_of_each_format_is_recognised(tmp_path, name):
    images, texts, expected = FOLDERS[name]
    root = with_images(tmp_path / "data", *images)
    for path, text in texts.items():
        (root / path).write_text(text)
    prepared = prepare_any(root)
    assert labels(prepared) == expected
    write_index(prepared.index, tmp_path / "index.parquet")
    assert check_index(read_index(tmp_path / "index.parquet")) == []
    forced = prepare_any(root, label_format=name.partition(",")[0])
    assert forced.index.rows == prepared.index.rows


def test_splits_are_those_of_the_format(tmp_path):
    images, texts, _ = FOLDERS["coco-json, Roboflow"]
    root = with_images(tmp_path / "data", *images)
    for path, text in texts.items():
        (root / path).write_text(text)
    assert splits(prepare_any(root)) == {"train_a": "train", "valid_a": "val"}
    with pytest.raises(VwlError, match="states splits, so a share for val cannot be given as well"):
        prepare_any(root, choices=Choices(val_share=0.1))


def test_real_voc_and_coco_are_recognised_by_their_layout(tmp_path):
    voc = prepare_any(real_data("voc12mini"))
    assert voc.found.startswith("PASCAL VOC in ")
    assert voc.index.num_objects == 20
    with pytest.raises(VwlError, match="this is PASCAL VOC, which has splits, classes and masks of its own; use: vwl data prepare voc"):
        prepare_any(real_data("voc12mini"), choices=EMPTY)


def test_class_folders_can_hold_negatives_and_their_masks_lie_beside_them(tmp_path):
    root = with_images(tmp_path / "data", "crack/1.jpg", "none/1.jpg")
    (root / "masks/crack").mkdir(parents=True)
    (root / "masks/crack/1.png").write_bytes(encode_mask(np.ones((6, 8), np.uint8), voc_palette()))
    prepared = prepare_any(root, choices=Choices(masks=root / "masks", negatives="none"))
    assert [(row.image_id, row.labels, row.mask) for row in prepared.index.rows] == [
        ("crack_1", (1,), "masks/crack/1.png"),
        ("none_1", (), None),
    ]


def test_labels_of_two_formats_are_not_chosen_between(photos):
    shutil.copy(EXPORTS / "coco.json", photos / "coco.json")
    shutil.copy(EXPORTS / "cvat.xml", photos / "cvat.xml")
    with pytest.raises(VwlError, match=r"labels of 2 formats: coco\.json \(COCO JSON .*\), cvat\.xml \(CVAT .*give one of the files"):
        prepare_any(photos)
    assert prepare_any(photos, choices=EMPTY, label_format="cvat").found.startswith("CVAT for images cvat.xml")
    assert prepare_any(photos / "coco.json", choices=EMPTY).found.startswith("COCO JSON coco.json")


def test_files_that_hold_no_labels_are_passed_over(tmp_path):
    root = with_images(tmp_path / "data", "dog/1.jpg")
    (root / "dataset_infos.json").write_text('{"description": "mine"}')
    (root / "notes.csv").write_text("who,when\nme,today\n")
    (root / "broken.json").write_text("{")
    assert prepare_any(root).found == "class-per-folder data: 1 images, 1 classes"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"notes.json": "{}"}, r"notes\.json holds no labels of a known format \(CSV with the columns image,labels; "),
        ({"a.json": "[" * 100_000}, r"a\.json holds no labels of a known format"),
    ],
)
def test_a_file_of_no_known_format_is_refused(photos, files, message):
    for name, text in files.items():
        (photos / name).write_text(text)
        with pytest.raises(VwlError, match=message):
            prepare_any(photos / name)


def test_images_without_labels_a_missing_path_and_two_files_are_refused(tmp_path):
    root = with_images(tmp_path / "data", "a.jpg")
    with pytest.raises(VwlError, match=r"a\.jpg: images of this folder must lie as CLASS/image; move this one, or give a file of labels"):
        prepare_any(root)
    with pytest.raises(VwlError, match=r"there is no .*absent"):
        prepare_any(root / "absent")
    for name in ("a.csv", "b.csv"):
        (root / name).write_text("image,labels\na,dog\n")
    with pytest.raises(VwlError, match=r"2 files of labels: a\.csv, b\.csv; give one of them"):
        prepare_any(root)
    with pytest.raises(VwlError, match="--field is for Label Studio and Hugging Face"):
        prepare_any(root / "a.csv", field="labels")


def test_the_command_knows_every_format():
    from typing import get_args

    from vwl.data.importers.detect import Format

    assert [*DESCRIBED] == [*get_args(Format)]
