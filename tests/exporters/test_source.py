"""What is exported: the masks of a run's stage, or of a folder."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from tests.exporters.sources import TABLE, noise, ring
from vwl.errors import VwlError
from vwl.exporters.source import masks_of_folder, masks_of_run, read_class_names
from vwl.storage.class_table import write_class_table
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, encode_mask


@pytest.fixture
def predictions(tmp_path):
    """A folder as `vwl predict` leaves it, with a subfolder."""
    folder = tmp_path / "predictions"
    (folder / "deep").mkdir(parents=True)
    for name, mask in (("a", ring()), ("deep/b", noise(1))):
        (folder / f"{name}_mask.png").write_bytes(encode_mask(mask, TABLE.palette))
        Image.new("RGB", (5, 5)).save(folder / f"{name}_overlay.png")
    write_class_table(Folder(folder), TABLE.classes, TABLE.palette)
    return folder


def names(source):
    return [(entry.name, entry.image) for entry in source.entries]


def test_a_stage_of_a_run_gives_its_masks_with_the_paths_of_its_images(tiny_run):
    for stage, split in (("masks", "train"), ("segment", "val"), ("irnet-labels", None)):
        source = masks_of_run(tiny_run, stage, split)
        assert len(source) == {"train": 8, "val": 4, None: 8}[split]
        assert source.table.classes == tiny_run.index.classes
        for entry, mask in source:
            assert entry.image == f"images/{entry.name}.jpg"
            expected = decode_mask((tiny_run.folder / stage).read(f"{entry.name}.png"), entry.name)
            np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    ("stage", "split", "line"),
    [
        ("cam", None, "'cam' is no stage that writes masks"),
        ("segmnt", None, "did you mean 'segment'?"),
        ("masks", "val", "has no masks of split 'val' (it has train)"),
    ],
)
def test_a_stage_or_split_without_masks_is_one_line(tiny_run, stage, split, line):
    with pytest.raises(VwlError, match=re.escape(line)):
        masks_of_run(tiny_run, stage, split)


def test_predictions_are_found_in_subfolders_without_their_overlays(predictions):
    source = masks_of_folder(Folder(predictions))
    assert names(source) == [("a", "a.jpg"), ("deep/b", "deep/b.jpg")]
    assert source.table == TABLE
    for (_, mask), expected in zip(source, (ring(), noise(1)), strict=True):
        np.testing.assert_array_equal(mask, expected)


def test_the_record_of_predict_gives_the_endings_of_the_images(predictions):
    lines = [{"name": "a", "image": "x/a.PNG"}, {"name": "deep/b", "image": "clip.mp4"}, ["no object"]]
    text = "\n".join(json.dumps(line) for line in lines)
    (predictions / "predictions.jsonl").write_text(f'{text}\n{{"name": "cut o')
    assert names(masks_of_folder(Folder(predictions))) == [("a", "a.PNG"), ("deep/b", "deep/b.jpg")]


def test_the_folder_of_the_images_gives_their_endings(predictions, tmp_path):
    (tmp_path / "images/deep").mkdir(parents=True)
    for name in ("a.webp", "deep/b.tif"):
        (tmp_path / "images" / name).write_bytes(b"")
    assert names(masks_of_folder(Folder(predictions), images=Folder(tmp_path / "images"))) == [("a", "a.webp"), ("deep/b", "deep/b.tif")]
    (tmp_path / "images/deep/b.jpg").write_bytes(b"")
    with pytest.raises(VwlError, match=re.escape("has two images named deep/b: deep/b.")):
        masks_of_folder(Folder(predictions), images=Folder(tmp_path / "images"))


def test_masks_of_other_programs_need_the_names_of_their_classes(tmp_path):
    (tmp_path / "a.png").write_bytes(encode_mask(ring(), TABLE.palette))
    with pytest.raises(VwlError, match=re.escape("has no classes.json with the names of the classes; give --classes FILE")):
        masks_of_folder(Folder(tmp_path))
    (tmp_path / "names.txt").write_text("background\n" + "".join(f"k{number}\n" for number in range(1, 6)))
    source = masks_of_folder(Folder(tmp_path), read_class_names(str(tmp_path / "names.txt")))
    assert (names(source), source.table.classes[5]) == ([("a", "a.jpg")], "k5")


def test_two_masks_of_one_image_are_one_line(predictions):
    (predictions / "a.png").write_bytes(encode_mask(ring(), TABLE.palette))
    with pytest.raises(VwlError, match=re.escape("has two masks of one image: a.png and a_mask.png")):
        masks_of_folder(Folder(predictions))


def test_a_mask_that_is_a_link_out_of_its_folder_is_refused(predictions, tmp_path):
    (tmp_path / "secret.png").write_bytes(encode_mask(ring(), TABLE.palette))
    (predictions / "c_mask.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(VwlError, match="is a link that leads out of"):
        list(masks_of_folder(Folder(predictions)))
