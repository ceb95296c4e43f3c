import hashlib
import json
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.helpers import tiny_scenes
from vwl.data.check import check_index
from vwl.data.corrections import QUEUE, add_masks, mask_digest
from vwl.data.data_fingerprint import DataFingerprint
from vwl.data.index import Index, make_index, read_index, write_index
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask, voc_palette


@pytest.fixture(scope="module")
def scenes(tmp_path_factory) -> Index:
    return tiny_scenes(tmp_path_factory.mktemp("corrections") / "scenes", 4, 2)


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path / "masks")


def size(index: Index, image_id: str) -> tuple[int, int]:
    (row,) = (row for row in index.rows if row.image_id == image_id)
    return index.read_image(row).size[::-1]


def draw(index: Index, folder: Folder, image_id: str, class_id: int = 1) -> np.ndarray:
    """Write a mask of one class with a border of background."""
    mask = np.zeros(size(index, image_id), np.uint8)
    mask[5:-5, 5:-5] = class_id
    folder.write(f"{image_id}.png", encode_mask(mask, voc_palette()))
    return mask


def rows(index: Index) -> dict:
    return {row.image_id: row for row in index.rows}


def test_a_corrected_mask_is_the_ground_truth_of_its_image_and_others_keep_theirs(scenes, folder, tmp_path):
    mask = draw(scenes, folder, "train_00001")
    added = add_masks(scenes, folder)
    write_index(added.index, tmp_path / "corrected.parquet")
    again = read_index(tmp_path / "corrected.parquet")
    assert (added.training, added.held_out, added.unchanged) == (("train_00001",), (), ())
    assert again.rows == added.index.rows
    for image_id, row in rows(again).items():
        expected = mask if image_id == "train_00001" else scenes.read_mask(rows(scenes)[image_id])
        np.testing.assert_array_equal(again.read_mask(row), expected)
    assert check_index(again) == [problem for problem in check_index(again) if problem.image_id == "train_00001"]


def test_images_without_a_mask_of_the_data_set_get_ground_truth(scenes, folder):
    bare = make_index([replace(row, mask=None) for row in scenes.rows], scenes.classes, scenes.root, "bare")
    draw(bare, folder, "val_00000")
    added = add_masks(bare, folder)
    assert (added.training, added.held_out) == ((), ("val_00000",))
    assert [row.image_id for row in added.index.rows if row.has_truth] == ["val_00000"]


def test_the_content_in_the_index_is_not_that_of_a_file_changed_later(scenes, folder):
    mask = draw(scenes, folder, "train_00001", 1)
    index = add_masks(scenes, folder).index
    draw(scenes, folder, "train_00001", 2)
    np.testing.assert_array_equal(index.read_mask(rows(index)["train_00001"]), mask)


def test_later_corrections_add_to_earlier_ones_and_replace_those_of_the_same_image(scenes, tmp_path):
    first, second = Folder(tmp_path / "first"), Folder(tmp_path / "second")
    draw(scenes, first, "train_00000")
    draw(scenes, first, "train_00001")
    mask = draw(scenes, second, "train_00001", 2)
    index = add_masks(add_masks(scenes, first).index, second).index
    assert [row.image_id for row in index.rows if row.corrected] == ["train_00000", "train_00001"]
    np.testing.assert_array_equal(index.read_mask(rows(index)["train_00001"]), mask)


def test_an_index_without_corrections_has_the_same_columns_and_fingerprint_as_before(scenes, tmp_path):
    write_index(scenes, tmp_path / "index.parquet")
    assert pq.read_schema(tmp_path / "index.parquet").names == ["image_id", "image", "labels", "mask", "split"]
    parts = [scenes.classes, *((r.image_id, r.image, r.labels, r.mask, r.split) for r in scenes.rows)]
    assert scenes.fingerprint() == hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def test_the_fingerprint_tells_the_data_set_corrected_training_masks_and_others_apart(scenes, tmp_path):
    training, held_out = Folder(tmp_path / "training"), Folder(tmp_path / "held-out")
    draw(scenes, training, "train_00001")
    draw(scenes, held_out, "val_00001")
    one = add_masks(scenes, training).index
    both = add_masks(one, held_out).index
    found = [DataFingerprint.parse(index.fingerprint()) for index in (scenes, one, both)]
    assert {part.data for part in found} == {scenes.fingerprint()}
    assert [bool(part.training) for part in found] == [False, True, True]
    assert [bool(part.held_out) for part in found] == [False, False, True]
    assert found[1].training == found[2].training
    assert [str(part) for part in found] == [index.fingerprint() for index in (scenes, one, both)]
    draw(scenes, training, "train_00001", 2)
    assert DataFingerprint.parse(add_masks(scenes, training).index.fingerprint()).training != found[1].training


def test_masks_that_nobody_changed_since_the_review_are_left_out_unless_asked_for(scenes, folder):
    unchanged, changed = (draw(scenes, folder, image_id) for image_id in ("train_00000", "train_00001"))
    lines = ["image_id,digest", f"train_00000,{mask_digest(unchanged)}", f"train_00001,{mask_digest(255 - changed)}"]
    folder.write(QUEUE, "\n".join(lines).encode())
    added = add_masks(scenes, folder)
    assert (added.training, added.unchanged) == (("train_00001",), ("train_00000",))
    assert rows(added.index)["train_00000"].corrected is None
    assert add_masks(scenes, folder, keep_unchanged=True).training == ("train_00000", "train_00001")


def test_a_mask_saved_anew_without_a_change_is_recognised(scenes, folder):
    mask = draw(scenes, folder, "train_00000")
    draw(scenes, folder, "train_00001")
    folder.write(QUEUE, f"image_id,digest\ntrain_00000,{mask_digest(mask)}\n".encode())
    Image.fromarray(mask).save(f"{folder.path}/train_00000.png", optimize=True)  # grey, other bytes
    assert add_masks(scenes, folder).unchanged == ("train_00000",)


def test_classes_that_are_not_labels_of_the_image_are_reported(scenes, folder):
    row = next(row for row in scenes.rows if len(row.labels) == 1)
    other = 3 - row.labels[0]
    draw(scenes, folder, row.image_id, other)
    assert add_masks(scenes, folder).unlabelled == {row.image_id: (scenes.classes[other],)}


def other_size(index: Index, folder: Folder) -> None:
    folder.write("train_00000.png", encode_mask(np.ones((7, 9), np.uint8), voc_palette()))


def unknown_class(index: Index, folder: Folder) -> None:
    draw(index, folder, "train_00000", 3)


def of_no_image(index: Index, folder: Folder) -> None:
    folder.write("train_0000.png", encode_mask(np.ones((7, 9), np.uint8), voc_palette()))


def all_ignored(index: Index, folder: Folder) -> None:
    folder.write("train_00000.png", encode_mask(np.full(size(index, "train_00000"), 255, np.uint8), voc_palette()))


def in_colour(index: Index, folder: Folder) -> None:
    folder.write("a.txt", b"")
    Image.new("RGB", size(index, "train_00000")[::-1]).save(f"{folder.path}/train_00000.png")


def truncated(index: Index, folder: Folder) -> None:
    draw(index, folder, "train_00000")
    folder.write("train_00000.png", folder.read("train_00000.png")[:-30])


def no_change(index: Index, folder: Folder) -> None:
    mask = draw(index, folder, "train_00000")
    folder.write(QUEUE, f"image_id,digest\ntrain_00000,{mask_digest(mask)}\n".encode())


def damaged_table(index: Index, folder: Folder) -> None:
    draw(index, folder, "train_00000")
    folder.write(QUEUE, b"\xff\xfe\x00")


def other_table(index: Index, folder: Folder) -> None:
    draw(index, folder, "train_00000")
    folder.write(QUEUE, b"a,b\n1,2\n")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda index, folder: None, r"holds no masks; name indexed PNG files after the images, e\.g\. train_00000\.png"),
        (other_size, r"masks/train_00000\.png is 9 x 7 pixels, its image images/train_00000\.\w+ \d+ x \d+ \(upright\)"),
        (unknown_class, r"masks/train_00000\.png holds the class id 3; valid ids are 0 to 2 and 255"),
        (of_no_image, r"train_0000\.png belongs to no image of the index: there is no 'train_0000'; did you mean 'train_0000\d'\?"),
        (all_ignored, r"train_00000\.png labels no pixel: all are 255"),
        (in_colour, r"train_00000\.png has mode RGB; save masks as indexed or 8-bit grey PNG"),
        (truncated, r"train_00000\.png cannot be read"),
        (no_change, r"no mask in .*masks was changed since vwl review wrote it; .* --unchanged"),
        (damaged_table, r"queue\.csv is not the table of vwl review"),
        (other_table, r"queue\.csv is not the table of vwl review"),
    ],
)
def test_masks_that_cannot_be_ground_truth_are_refused(scenes, folder, make, message):
    make(scenes, folder)
    with pytest.raises(VwlError, match=message):
        add_masks(scenes, folder)


def test_a_mask_that_is_a_link_out_of_the_folder_is_refused(scenes, folder, tmp_path):
    other = Folder(tmp_path / "other")
    draw(scenes, other, "train_00000")
    draw(scenes, folder, "train_00001")
    (tmp_path / "masks" / "train_00000.png").symlink_to(tmp_path / "other" / "train_00000.png")
    with pytest.raises(VwlError, match="leads out"):
        add_masks(scenes, folder)


def test_a_damaged_corrected_mask_in_an_index_is_one_line_that_names_the_image(scenes, folder, tmp_path):
    draw(scenes, folder, "train_00001")
    index = add_masks(scenes, folder).index
    broken = replace(index, rows=tuple(replace(row, corrected=row.corrected and row.corrected[:40]) for row in index.rows))
    write_index(broken, tmp_path / "broken.parquet")
    read = read_index(tmp_path / "broken.parquet")
    with pytest.raises(VwlError, match="mask of image train_00001 in the column 'corrected' of the index cannot be read"):
        read.read_mask(rows(read)["train_00001"])


def test_a_column_corrected_that_holds_no_files_is_refused(scenes, tmp_path):
    write_index(scenes, tmp_path / "index.parquet")
    table = pq.read_table(tmp_path / "index.parquet")
    pq.write_table(table.append_column("corrected", [list(range(table.num_rows))]), tmp_path / "odd.parquet")
    with pytest.raises(VwlError, match=r"odd\.parquet row 1: the corrected mask of image train_00000 is not the content of a file"):
        read_index(tmp_path / "odd.parquet")
