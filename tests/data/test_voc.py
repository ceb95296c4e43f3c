import io
from collections import Counter

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from tests.helpers import real_data
from vwl.data.voc import VOC_CLASSES, prepare_voc
from vwl.errors import VwlError
from vwl.storage.masks import decode_mask, encode_mask, voc_palette

LISTS = "ImageSets/Segmentation"
CAT, DOG, PERSON = (VOC_CLASSES.index(name) for name in ("cat", "dog", "person"))


def write(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def mask_of(*labels):
    mask = np.full((6, 8), 255, np.uint8)
    mask[1:5, 1 : 1 + len(labels)] = labels
    mask[0] = 0
    return mask


def annotation(*names):
    objects = "".join(f"<object><name>{name}</name><difficult>1</difficult><part><name>head</name></part></object>" for name in names)
    return f"<annotation><size><width>8</width></size>{objects}</annotation>"


ENTITIES = "".join(f'<!ENTITY x{n} "{f"&x{n - 1};" * 10}">' for n in range(1, 12))
BOMB = f'<!DOCTYPE a [<!ENTITY x0 "aaaaaaaaaa">{ENTITIES}]><annotation><object><name>&x11;</name></object></annotation>'


@pytest.fixture
def devkit(tmp_path):
    """Two images in train, one in val, one more in train_aug; text labels, masks, no annotations."""
    root = tmp_path / "VOC2012"
    image = io.BytesIO()
    Image.new("RGB", (8, 6)).save(image, format="JPEG")
    labels = {"a1": (CAT,), "a2": (DOG, PERSON), "v1": (PERSON,), "x1": (CAT, DOG)}
    for image_id, ids in labels.items():
        write(root / f"JPEGImages/{image_id}.jpg", image.getvalue())
        write(root / f"SegmentationClassAug/{image_id}.png", encode_mask(mask_of(*ids), voc_palette()))
    write(root / f"{LISTS}/train.txt", "a1\na2\n")
    write(root / f"{LISTS}/val.txt", "v1\n")
    write(root / f"{LISTS}/train_aug.txt", "a1\na2\nx1\n")
    text = "".join(f"{image_id} {' '.join(VOC_CLASSES[i] for i in ids)}\n" for image_id, ids in labels.items())
    write(root / "ImageSets/image_labels.txt", text)
    return root


def rows(index):
    return {row.image_id: row for row in index.rows}


@pytest.mark.parametrize("name", ["JPEGImages/a2.jpg", "SegmentationClassAug/v1.png"])
def test_a_link_out_of_the_devkit_is_refused(devkit, name):
    outside = devkit.parent / "outside"
    (devkit / name).rename(outside)
    (devkit / name).symlink_to(outside)
    with pytest.raises(VwlError, match=f"{name} is a link that leads out of {devkit}"):
        prepare_voc(devkit)


def test_split_aug_is_train_aug_without_train(devkit):
    index, notes = prepare_voc(devkit)
    assert {row.image_id: row.split for row in index.rows} == {"a1": "train", "a2": "train", "x1": "aug", "v1": "val"}
    assert [row.image_id for row in index.split("train_aug")] == ["a1", "a2", "x1"]
    assert rows(index)["a2"].labels == (DOG, PERSON)
    assert rows(index)["x1"].mask == "SegmentationClassAug/x1.png"
    assert index.classes == VOC_CLASSES
    assert "split train has 2 images; VOC 2012 has 1,464" in notes


def test_annotations_come_first_and_difficult_objects_count_but_parts_do_not(devkit):
    for image_id in ("a1", "a2", "v1", "x1"):
        write(devkit / f"Annotations/{image_id}.xml", annotation("person", "cat", "person"))
    index, notes = prepare_voc(devkit)
    assert {row.labels for row in index.rows} == {(CAT, PERSON)}
    assert "image labels from the objects of Annotations/*.xml" in notes


def test_a_given_text_file_takes_precedence_over_annotations(devkit, tmp_path):
    for image_id in ("a1", "a2", "v1", "x1"):
        write(devkit / f"Annotations/{image_id}.xml", annotation("person"))
    write(tmp_path / "mine.txt", "a1 cat\na2 cat\n\nv1 cat\nx1 cat\nother dog\n")
    index, notes = prepare_voc(devkit, labels=tmp_path / "mine.txt")
    assert {row.labels for row in index.rows} == {(CAT,)}
    assert f"image labels from {tmp_path / 'mine.txt'}" in notes


def test_without_annotations_and_text_file_the_labels_come_from_the_masks_and_a_note_says_so(devkit):
    expected = {row.image_id: row.labels for row in prepare_voc(devkit)[0].rows}
    (devkit / "ImageSets/image_labels.txt").unlink()
    index, notes = prepare_voc(devkit)
    assert {row.image_id: row.labels for row in index.rows} == expected
    assert any("from the masks" in note for note in notes)


def test_an_image_without_an_augmented_mask_gets_the_mask_of_the_devkit(devkit):
    (devkit / "SegmentationClassAug/a1.png").rename(devkit / "a1.png")
    (devkit / "SegmentationClass").mkdir()
    (devkit / "a1.png").rename(devkit / "SegmentationClass/a1.png")
    (devkit / "SegmentationClassAug/x1.png").unlink()
    index, notes = prepare_voc(devkit)
    assert rows(index)["a1"].mask == "SegmentationClass/a1.png"
    assert rows(index)["x1"].mask is None
    assert "1 of 1 images of split aug have no mask" in notes


def test_test_images_have_no_labels_or_masks_and_are_left_out_if_all_are_missing(devkit):
    write(devkit / f"{LISTS}/test.txt", "t1\n")
    index, notes = prepare_voc(devkit)
    assert "t1" not in rows(index)
    assert "split test is left out: none of its 1 images is in JPEGImages" in notes
    (devkit / "JPEGImages/t1.jpg").write_bytes((devkit / "JPEGImages/a1.jpg").read_bytes())
    row = rows(prepare_voc(devkit)[0])["t1"]
    assert (row.split, row.labels, row.mask) == ("test", (), None)


def test_without_a_train_list_train_is_trainval_without_val(devkit):
    (devkit / f"{LISTS}/train.txt").unlink()
    write(devkit / f"{LISTS}/trainval.txt", "v1\na1\na2\n")
    index, notes = prepare_voc(devkit)
    assert [row.image_id for row in index.split("train")] == ["a1", "a2"]
    assert any("trainval.txt without val.txt" in note for note in notes)


def test_an_image_of_train_aug_that_is_in_val_stays_in_val(devkit):
    write(devkit / f"{LISTS}/train_aug.txt", "a1\na2\nx1\nv1\n")
    index, notes = prepare_voc(devkit)
    assert rows(index)["v1"].split == "val"
    assert "1 images of train_aug.txt are also in val.txt; they are used for val only" in notes


@pytest.fixture
def sbd(tmp_path):
    """SBD with the images a1 (in VOC's train), v1 (in its val) and x1; each mask is all dog."""
    folder = tmp_path / "benchmark_RELEASE/dataset"
    write(folder / "train.txt", "a1\nx1\n")
    write(folder / "val.txt", "v1\n")
    for image_id in ("a1", "v1", "x1"):
        content = io.BytesIO()
        savemat(content, {"GTcls": {"Segmentation": np.full((6, 8), DOG, np.uint8), "CategoriesPresent": np.array([DOG])}})
        write(folder / f"cls/{image_id}.mat", content.getvalue())
    return folder


def test_with_sbd_its_other_images_become_split_aug_and_missing_masks_are_converted(devkit, sbd):
    (devkit / f"{LISTS}/train_aug.txt").unlink()
    (devkit / "SegmentationClassAug/x1.png").unlink()
    before = (devkit / "SegmentationClassAug/a1.png").read_bytes()
    index, notes = prepare_voc(devkit, sbd=sbd.parent)  # the folder 'dataset' in it is found
    assert {row.image_id: row.split for row in index.rows} == {"a1": "train", "a2": "train", "x1": "aug", "v1": "val"}
    written = decode_mask((devkit / "SegmentationClassAug/x1.png").read_bytes(), "x1")
    assert written.shape == (6, 8)
    assert set(written.ravel()) == {DOG}
    assert (devkit / "SegmentationClassAug/a1.png").read_bytes() == before
    assert any("images of SBD that are not in train or val" in note for note in notes)
    assert any(note.startswith("wrote 1 masks of SBD") for note in notes)
    again, notes = prepare_voc(devkit, sbd=sbd)
    assert again.rows == index.rows
    assert not any("wrote" in note for note in notes)


def mat(segmentation, **options):
    content = io.BytesIO()
    savemat(content, {"GTcls": {"Segmentation": segmentation}}, **options)
    return content.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"no MATLAB file",
        bytes(200),
        mat(np.ones((6, 8), np.uint8))[:200],
        mat(np.ones((6, 8), np.uint8), do_compression=True)[:-9] + bytes(9),
        mat(np.full((6, 8), 21, np.uint8)),
        mat(np.full((6, 8), 264, np.uint16)),
        mat(np.ones((6, 8, 3), np.uint8)),
        mat(np.full((6, 8), 1.5)),
    ],
    ids=["empty", "text", "zeros", "truncated", "checksum", "class 21", "class 264", "three dimensions", "fractions"],
)
def test_a_broken_sbd_file_is_named(devkit, sbd, content):
    (devkit / "SegmentationClassAug/x1.png").unlink()
    write(sbd / "cls/x1.mat", content)
    with pytest.raises(VwlError, match=r"cls/x1\.mat is not a mask of SBD") as caught:
        prepare_voc(devkit, sbd=sbd)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (f"{LISTS}/train.txt", "a1\na2\nz9\nz8\n", r"JPEGImages/z9\.jpg is listed but missing \(2 of 6 images"),
        (f"{LISTS}/train.txt", "a1\na2\na1\n", "lists image a1 more than once"),
        (f"{LISTS}/val.txt", "v1\na1\n", r"image a1 is in .*train\.txt and in val\.txt"),
        ("ImageSets/image_labels.txt", "a1 cat\na2 dog\nv1 cat\n", "image x1 has no line in .*image_labels.txt"),
        ("ImageSets/image_labels.txt", "a1 cat\na1 dog\n", "line 2 lists image a1 a second time"),
        ("ImageSets/image_labels.txt", "a1 cat\na2 dogg\n", "line 2: unknown class 'dogg'; did you mean 'dog'"),
        ("ImageSets/image_labels.txt", "a1\na2 dog\nv1\nx1 cat\n", "training image a1 has no label"),
        ("ImageSets/image_labels.txt", b"a1 \xff\xfe\n", "is not a text file in UTF-8"),
        ("Annotations/a1.xml", annotation("aeroplan"), r"a1\.xml: unknown class 'aeroplan'; did you mean 'aeroplane'"),
        ("Annotations/a1.xml", "<annotation><object>", r"a1\.xml is not valid XML"),
        ("Annotations/a1.xml", "<?xml version='1.0' encoding='none'?><annotation/>", r"a1\.xml is not valid XML: unknown encoding"),
        ("Annotations/a1.xml", "<?xml version='1.0' encoding='utf-7'?><annotation/>", r"a1\.xml is not valid XML"),
        ("Annotations/a1.xml", BOMB, r"a1\.xml is not valid XML: limit on input amplification"),
        ("Annotations/a1.xml", annotation("cat"), r"image a2 has no annotation .*Annotations/a2\.xml"),
    ],
)
def test_bad_input_is_named_in_one_line(devkit, file, content, message):
    write(devkit / file, content)
    with pytest.raises(VwlError, match=message) as caught:
        prepare_voc(devkit)
    assert "\n" not in str(caught.value)


def test_a_folder_that_is_not_a_devkit_is_refused(devkit, tmp_path):
    with pytest.raises(VwlError, match="give the folder VOCdevkit/VOC2012"):
        prepare_voc(devkit.parent)
    for name in ("train", "val", "train_aug"):
        (devkit / f"{LISTS}/{name}.txt").unlink()
    with pytest.raises(VwlError, match="holds no list of images"):
        prepare_voc(devkit)
    with pytest.raises(VwlError, match="is not SBD"):
        prepare_voc(devkit, sbd=tmp_path)


def test_without_any_source_of_labels_the_error_names_the_first_image(devkit):
    (devkit / "ImageSets/image_labels.txt").unlink()
    (devkit / "SegmentationClassAug/a2.png").unlink()
    with pytest.raises(VwlError, match="image a2 has neither annotation nor mask"):
        prepare_voc(devkit)


def test_a_mask_with_an_unknown_class_id_is_named_if_labels_come_from_masks(devkit):
    (devkit / "ImageSets/image_labels.txt").unlink()
    write(devkit / "SegmentationClassAug/a1.png", encode_mask(mask_of(77), voc_palette()))
    with pytest.raises(VwlError, match=r"a1\.png holds the class id 77"):
        prepare_voc(devkit)


def test_the_published_lists_give_the_published_sizes(tmp_path):
    lists = real_data("lists")
    ids = set()
    for name in ("train", "val", "train_aug"):
        text = (lists / f"{name}.txt").read_text()
        write(tmp_path / f"{LISTS}/{name}.txt", text)
        ids |= set(text.split())
    (tmp_path / "JPEGImages").mkdir()
    for image_id in ids:
        (tmp_path / f"JPEGImages/{image_id}.jpg").touch()
    write(tmp_path / "ImageSets/image_labels.txt", "".join(f"{image_id} cat\n" for image_id in sorted(ids)))
    index, notes = prepare_voc(tmp_path)
    assert Counter(row.split for row in index.rows) == {"train": 1464, "aug": 10582 - 1464, "val": 1449}
    assert not any("VOC 2012 has" in note for note in notes)


def test_the_real_subset_has_the_labels_of_its_text_file():
    root = real_data("voc12mini")
    index, _ = prepare_voc(root)
    assert Counter(row.split for row in index.rows) == {"train": 437, "aug": 480, "val": 222}
    lines = dict(line.split(maxsplit=1) for line in (root / "ImageSets/image_labels.txt").read_text().splitlines())
    assert all({index.classes[label] for label in row.labels} == set(lines[row.image_id].split()) for row in index.rows)
    assert all(row.mask == f"SegmentationClassAug/{row.image_id}.png" for row in index.rows)
