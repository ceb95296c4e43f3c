"""What each format's files hold, read again by libraries that vwl depends on: pycocotools, torchvision, PyYAML, Pillow."""

import json
import re
import tracemalloc
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as ET

import numpy as np
import pytest
import yaml
from PIL import Image
from pycocotools.coco import COCO
from torchvision.datasets import VOCSegmentation

from tests.exporters.sources import NAMES, TABLE, awkward, ious, noise, real, ring, source_of, without_ignored
from vwl.errors import VwlError
from vwl.storage.folder import Folder

pytest.importorskip("shapely")

from vwl.exporters.export import FORMATS, export_masks
from vwl.exporters.target import Options
from vwl.exporters.yolo import label_path


def read_coco(file: Path) -> list[np.ndarray]:
    coco = COCO(str(file))
    masks = []
    for image in coco.loadImgs(sorted(coco.getImgIds())):
        mask = np.zeros((image["height"], image["width"]), np.uint8)
        for annotation in coco.loadAnns(coco.getAnnIds(imgIds=image["id"])):
            mask[coco.annToMask(annotation) > 0] = annotation["category_id"]
        masks.append(mask)
    return masks


@pytest.mark.parametrize("options", [Options("rle"), Options("polygon", tolerance=0)])
def test_coco_gives_awkward_masks_again(options, tmp_path):
    export_masks(source_of(awkward()), "coco", Folder(tmp_path), options)
    for mask, found in zip(awkward(), read_coco(tmp_path / "annotations.json"), strict=True):
        np.testing.assert_array_equal(found, without_ignored(mask))


def test_coco_gives_real_masks_again(tmp_path):
    masks = real()
    for geometry, least in (("rle", 1.0), ("polygon", 0.98)):
        export_masks(source_of(masks), "coco", Folder(tmp_path), Options(geometry))
        found = read_coco(tmp_path / "annotations.json")
        assert min(iou for mask, again in zip(masks, found, strict=True) for iou in ious(mask, again)) >= least


def test_coco_has_names_colours_sizes_and_relative_paths(tmp_path):
    export_masks(source_of([ring()]), "coco", Folder(tmp_path))
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert content["categories"][1] == {"id": 2, "name": "class 2", "supercategory": "", "color": [0, 128, 0]}
    assert content["images"] == [{"id": 1, "file_name": "deep/n000.jpg", "height": 24, "width": 31}]
    frame = content["annotations"][0]
    assert isinstance(frame["segmentation"], dict)  # it has a hole
    assert (frame["area"], frame["bbox"], frame["iscrowd"]) == (126, [3, 2, 14, 12], 0)
    assert isinstance(content["annotations"][1]["segmentation"], list)


def test_voc_gives_the_masks_again_with_ignored_pixels(tmp_path):
    masks = [*awkward(), *real()]
    root = tmp_path / "VOCdevkit" / "VOC2012"
    export_masks(source_of(masks, tmp_path / "images", "val"), "voc", Folder(root), Options(copy_images=True))
    data = VOCSegmentation(str(tmp_path), image_set="val")
    assert len(data) == len(masks)
    for mask, (image, found) in zip(masks, data, strict=True):
        np.testing.assert_array_equal(np.asarray(found), mask)
        assert image.size == found.size
        assert found.getpalette() == list(TABLE.palette)
    assert (root / "labelmap.txt").read_text().splitlines()[1:3] == ["background:0,0,0::", "class 1:128,0,0::"]
    assert (root / "labelmap.txt").read_text().splitlines()[-1] == "ignored:224,224,192::"  # datumaro refuses colours without a name


def test_fiftyones_masks_are_named_like_the_images(tmp_path):
    export_masks(source_of([ring()], tmp_path / "images"), "fiftyone", Folder(tmp_path / "out"), Options(copy_images=True))
    mask = Image.open(tmp_path / "out/labels/deep/n000.png")
    assert mask.mode == "L"  # it takes an indexed PNG for an RGB image
    np.testing.assert_array_equal(np.asarray(mask), ring())
    assert (tmp_path / "out/data/deep/n000.jpg").is_file()
    targets = json.loads((tmp_path / "out/mask_targets.json").read_text())
    assert (targets["default_mask_targets"]["2"], targets["default_mask_targets_colors"][2]["color"]) == ("class 2", "#008000")


def test_yolo_counts_classes_from_0_and_lists_the_images(tmp_path):
    source = source_of([ring(), noise(3)], tmp_path / "in")
    source = replace(source, entries=[source.entries[0], replace(source.entries[1], split="val")])
    export_masks(source, "yolo-seg", Folder(tmp_path / "out"), Options(copy_images=True))
    data = yaml.safe_load((tmp_path / "out/data.yaml").read_text())
    assert (data["train"], data["val"], data["names"][0], len(data["names"])) == ("train.txt", "val.txt", "class 1", 20)
    assert (tmp_path / "out/val.txt").read_text() == "./images/val/n001.jpg\n"
    assert (tmp_path / "out/images/val/n001.jpg").is_file()
    lines = (tmp_path / "out/labels/train/n000.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["0", "1", "2", "3", "4", "4"]
    assert all(0 <= float(value) <= 1 for line in lines for value in line.split()[1:])


@pytest.mark.parametrize(
    ("image", "label"),
    [("images/train/a.jpg", "labels/train/a.txt"), ("images/train/images/b/a.x.png", "images/train/labels/b/a.x.txt")],
)
def test_yolos_labels_are_where_ultralytics_looks(image, label):
    assert label_path(image) == label


def test_cvats_labels_have_colours_and_names_are_escaped(tmp_path):
    table = replace(TABLE, classes=("background", 'a & "b" <c>', *NAMES[2:]))
    export_masks(replace(source_of([ring()]), table=table), "cvat", Folder(tmp_path))
    root = ET.parse(tmp_path / "annotations.xml").getroot()
    assert [(label.findtext("name"), label.findtext("color")) for label in root.iter("label")][:2] == [
        ('a & "b" <c>', "#800000"),
        ("class 2", "#008000"),
    ]
    image = root.find("image")
    assert (image.get("name"), image.get("width"), image.get("height")) == ("deep/n000.jpg", "31", "24")
    assert [(shape.tag, shape.get("label")) for shape in image][:2] == [("mask", 'a & "b" <c>'), ("polygon", "class 2")]


def test_label_studios_configuration_names_the_tags_of_the_tasks(tmp_path):
    for geometry, tags in (("polygon", {"polygon", "brush"}), ("rle", {"brush"})):
        export_masks(source_of([ring()]), "label-studio", Folder(tmp_path), Options(geometry))
        view = ET.parse(tmp_path / "labeling_config.xml").getroot()
        assert {tag.get("name") for tag in view if tag.tag != "Image"} == tags
        assert [label.get("value") for label in view[-1]] == list(NAMES[1:])
        (task,) = json.loads((tmp_path / "tasks.json").read_text())
        assert {result["from_name"] for result in task["predictions"][0]["result"]} == tags
        assert task["data"] == {"image": "/data/local-files/?d=deep/n000.jpg"}


@pytest.mark.parametrize("name", FORMATS)
def test_an_export_is_the_same_each_time_and_leaves_no_temporary_file(name, tmp_path):
    for folder in ("a", "b"):
        summary = export_masks(source_of(awkward()), name, Folder(tmp_path / folder))
        assert (summary.images, summary.empty) == (6, 2)
    files = {path.relative_to(tmp_path / "a"): path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    assert files == {path.relative_to(tmp_path / "b"): path.read_bytes() for path in (tmp_path / "b").rglob("*") if path.is_file()}
    assert not any(path.name.startswith(".part-") for path in files)
    assert not any(str(tmp_path).encode() in content for content in files.values())


@pytest.mark.parametrize("name", FORMATS)
def test_small_regions_are_left_out_of_every_format(name, tmp_path):
    summary = export_masks(source_of([ring()]), name, Folder(tmp_path), Options(min_area=6))
    assert (summary.regions, summary.left_out) == (3, 3)
    assert summary.ignored == pytest.approx(1 / ring().size)


def test_the_summary_says_how_much_is_stored_as_pixels_because_of_holes(tmp_path):
    summary = export_masks(source_of([ring()]), "coco", Folder(tmp_path))
    assert (summary.with_holes, summary.share_with_holes) == (1, pytest.approx(126 / 153))
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert sum(isinstance(annotation["segmentation"], dict) for annotation in content["annotations"]) == summary.with_holes
    filled = np.ones((20, 20), np.uint8)
    filled[5, 5] = 0
    summary = export_masks(source_of([filled]), "coco", Folder(tmp_path), Options(min_area=10))
    assert (summary.with_holes, summary.filled) == (0, 1)


def test_the_memory_does_not_grow_with_the_number_of_images(tmp_path):
    def peak(num_images: int) -> int:
        source = source_of([noise(0)] * 2)
        source = replace(source, entries=[replace(source.entries[0], file=f"{number}.png") for number in range(num_images)])
        tracemalloc.start()
        export_masks(source, "coco", Folder(tmp_path), Options("rle"))
        used = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return used

    peak(2)
    size = (tmp_path / "annotations.json").stat().st_size
    few, many = peak(10), peak(60)
    assert many - few < 10 * size  # 50 images more are 25 sizes


def test_a_file_that_could_not_be_finished_does_not_replace_the_one_before(tmp_path):
    export_masks(source_of([ring()]), "coco", Folder(tmp_path))
    before = (tmp_path / "annotations.json").read_bytes()
    bad = replace(source_of([ring()]), table=replace(TABLE, classes=NAMES[:3]))
    with pytest.raises(VwlError, match=re.escape("mask n000.png has class id 3, but there are only 2 classes beside the background")):
        export_masks(bad, "coco", Folder(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["annotations.json"]
    assert (tmp_path / "annotations.json").read_bytes() == before


@pytest.mark.parametrize(
    ("name", "options", "line"),
    [
        ("coca", Options(), "unknown format 'coca'; did you mean 'coco'?"),
        ("yolo-seg", Options("rle"), "yolo-seg holds polygons only"),
        ("coco", Options(copy_images=True), "the images are not known"),
    ],
)
def test_what_a_format_cannot_do_is_one_line(name, options, line, tmp_path):
    with pytest.raises(VwlError, match=re.escape(line)):
        export_masks(source_of([ring()]), name, Folder(tmp_path), options)
    assert list(tmp_path.iterdir()) == []
