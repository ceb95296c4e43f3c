import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers import tiny_scenes
from vwl.data.index import Row, decode_image, make_index, read_index, write_index
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.masks import voc_palette

CLASSES = ("background", "cat", "dog")
ROWS = (Row("a", "p/a.jpg", (1, 2), "m/a.png", "train"), Row("b", "p/b.jpg", (), None, "test"), Row("c", "p/c.jpg", (2,), None, "aug"))


def index_of(*rows, root="/data"):
    return make_index(rows, CLASSES, root, "my data")


def encoded(array_or_image, kind="PNG", **options):
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    sink = io.BytesIO()
    image.save(sink, format=kind, **options)
    return sink.getvalue()


def test_a_written_index_is_read_back_unchanged(tmp_path):
    index = index_of(*ROWS)
    write_index(index, tmp_path / "deep/index.parquet")
    again = read_index(str(tmp_path / "deep/index.parquet"))
    assert (again.rows, again.classes, again.palette, again.source) == (index.rows, CLASSES, tuple(voc_palette()), "my data")
    assert again.root.uri == "/data"
    assert again.fingerprint() == index.fingerprint()
    assert not list(tmp_path.rglob(".part-*"))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.sets(st.integers(1, 2)), min_size=1, max_size=6), st.text("abcé -_.", min_size=1).filter(lambda t: not t.startswith("."))
)
def test_any_labels_and_names_are_read_back(tmp_path_factory, labels, name):
    path = tmp_path_factory.mktemp("index") / "index.parquet"
    rows = [Row(f"{name}{i}", f"{name}/{i}.jpg", tuple(sorted(ids)), None, "train") for i, ids in enumerate(labels)]
    write_index(index_of(*rows), path)
    assert list(read_index(path).rows) == rows


def test_the_fingerprint_depends_on_rows_and_classes_but_not_on_the_root():
    base = index_of(*ROWS).fingerprint()
    assert index_of(*ROWS, root="/elsewhere").fingerprint() == base
    assert index_of(*ROWS[::-1]).fingerprint() != base
    assert index_of(*ROWS[:2]).fingerprint() != base
    assert make_index(ROWS, ("background", "cat", "wolf"), "/data", "my data").fingerprint() != base


def test_train_aug_and_all_are_unions_of_splits():
    index = index_of(*ROWS)
    assert [row.image_id for row in index.split("train")] == ["a"]
    assert [row.image_id for row in index.split("train_aug")] == ["a", "c"]
    assert [row.image_id for row in index.split("all")] == ["a", "b", "c"]
    with pytest.raises(VwlError, match=r"no images in split 'val' \(it has aug, test, train\)"):
        index.split("val")


def test_class_names_become_ids_and_an_unknown_name_gets_a_suggestion():
    assert index_of(*ROWS).class_ids(["dog", "cat"]) == [2, 1]
    with pytest.raises(VwlError, match="unknown class 'dgo'; did you mean 'dog'"):
        index_of(*ROWS).class_ids(["dgo"])


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "my data: the data set has no images"),
        ([ROWS[0], ROWS[0]], "image id 'a' occurs more than once;"),
        ([ROWS[0], ROWS[0], ROWS[1], ROWS[1]], r"image id 'a' occurs more than once \(and 1 more\)"),
        ([Row("a", "a.jpg", (3,), None, "train")], "image a has label 3, but the classes are 1 to 2"),
        ([Row("a", "a.jpg", (0,), None, "train")], "image a has label 0"),
        ([Row("a", "../a.jpg", (1,), None, "train")], r"the path '\.\./a\.jpg' of image a leads out of the root"),
        ([Row("a", "a.jpg", (1,), "/etc/a.png", "train")], r"the path '/etc/a\.png' of image a leads out of the root"),
        ([Row("a", "x/../../a.jpg", (1,), None, "train")], "leads out of the root"),
        ([Row("x/a", "a.jpg", (1,), None, "train")], "image id 'x/a' is not a file name"),
        ([Row("..", "a.jpg", (1,), None, "train")], r"image id '\.\.' is not a file name"),
    ],
)
def test_a_bad_row_is_refused_and_named(rows, message):
    with pytest.raises(VwlError, match=message):
        index_of(*rows)


def test_a_file_that_is_missing_or_not_an_index_is_refused(tmp_path):
    with pytest.raises(VwlError, match=r"no index table at .*gone\.parquet; make one with: vwl data prepare"):
        read_index(tmp_path / "gone.parquet")
    (tmp_path / "text.parquet").write_text("no parquet at all")
    pq.write_table(pa.table({"image_id": ["a"]}), tmp_path / "other.parquet")
    metadata = {b"vwl": json.dumps({"classes": CLASSES}).encode()}
    pq.write_table(pa.table({"image_id": ["a"]}).replace_schema_metadata(metadata), tmp_path / "part.parquet")
    for name in ("text", "other", "part"):
        with pytest.raises(VwlError, match=f"{name}.parquet is not an index table"):
            read_index(tmp_path / f"{name}.parquet")


def edit(path, **changes):
    """Change columns of an index table (arrays), or with `about` its metadata, as a user would with pyarrow."""
    table = pq.read_table(path)
    about = json.loads(table.schema.metadata[b"vwl"]) | changes.pop("about", {})
    for name, values in changes.items():
        table = table.set_column(table.schema.get_field_index(name), name, values if isinstance(values, pa.Array) else pa.array(values))
    pq.write_table(table.replace_schema_metadata({b"vwl": json.dumps(about).encode()}), path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": ["train", "vall", "aug"]}, r"index\.parquet row 2: image b is in the unknown split 'vall'; did you mean 'val'\?"),
        ({"labels": [[1, 2], [], [1.5]]}, r"index\.parquet row 1: image a has label 1\.0, which is not a whole number"),
        ({"labels": ["1 2", "", "2"]}, r"index\.parquet row 1: the labels '1 2' of image a are not a list"),
        ({"labels": [[1, 2], None, [2]]}, r"index\.parquet row 2: the labels None of image b"),
        ({"labels": [[1, 2], [], [3]]}, r"index\.parquet row 3: image c has label 3, but the classes are 1 to 2"),
        ({"image_id": [1, 2, 3]}, r"index\.parquet row 1: the image id 1 is not text"),
        ({"image_id": ["a", "b/b", "c"]}, r"index\.parquet row 2: image id 'b/b' is not a file name"),
        ({"image_id": ["a", "b", "a"]}, r"index\.parquet rows 1 and 3: image id 'a' occurs more than once"),
        ({"image": ["p/a.jpg", "../b.jpg", "p/c.jpg"]}, r"index\.parquet row 2: the path '\.\./b\.jpg' of image b leads out of the root"),
        ({"mask": [1, 2, 3]}, r"index\.parquet row 1: the path 1 of image a is not text"),
        ({"about": {"palette": [0, 1]}}, r"index\.parquet is not an index table .*: 'palette' in its metadata is \[0, 1\]"),
        ({"about": {"classes": ["background", "Cat", "cat"]}}, r"index\.parquet: the class names 'Cat' and 'cat' differ only"),
        ({"about": {"classes": ["cat", "dog", "cow"]}}, r"index\.parquet: the first class is 'cat'; it must be 'background'"),
        ({"about": {"root": 7}}, r"index\.parquet is not an index table .*: 'root' in its metadata is 7"),
        ({"about": {"format": 9}}, r"its format is 9; this version of vwl reads format 1"),
    ],
)
def test_a_table_edited_by_hand_is_refused_by_file_and_row(tmp_path, changes, message):
    write_index(index_of(*ROWS), tmp_path / "index.parquet")
    edit(tmp_path / "index.parquet", **changes)
    with pytest.raises(VwlError, match=message) as caught:
        read_index(tmp_path / "index.parquet")
    assert "\n" not in str(caught.value)


def test_a_table_whose_columns_were_stored_otherwise_is_read(tmp_path):
    write_index(index_of(*ROWS), tmp_path / "index.parquet")
    split = pa.array(["train", "test", "aug"]).dictionary_encode()
    edit(tmp_path / "index.parquet", labels=pa.array([[1, 2], [], [2]], pa.large_list(pa.int64())), split=split)
    assert read_index(tmp_path / "index.parquet").rows == ROWS


@pytest.mark.parametrize("encoding", ["PLAIN", "DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"])
def test_a_table_in_another_encoding_is_read(tmp_path, encoding):
    write_index(index_of(*ROWS), tmp_path / "index.parquet")
    table = pq.read_table(tmp_path / "index.parquet")
    encodings = dict.fromkeys(("image_id", "image", "mask", "split"), encoding)
    pq.write_table(table, tmp_path / "index.parquet", use_dictionary=False, column_encoding=encodings)
    assert read_index(tmp_path / "index.parquet").rows == ROWS


def test_a_link_that_leaves_the_root_is_not_read(tmp_path):
    index = tiny_scenes(tmp_path / "scenes", 1, 0)
    row = index.rows[0]
    for name in (row.image, row.mask):
        file = tmp_path / "scenes" / name
        file.rename(tmp_path / file.name)
        file.symlink_to(tmp_path / file.name)
    with pytest.raises(VwlError, match=r"train_00000\.jpg is a link that leads out of .*scenes, to .*train_00000\.jpg"):
        index.read_image(row)
    with pytest.raises(VwlError, match=r"train_00000\.png is a link that leads out of"):
        index.read_mask(row)


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_an_index_does_not_replace_what_is_not_a_file(tmp_path, kind):
    target = tmp_path / "target"
    os.mkfifo(target) if kind == "pipe" else target.mkdir()
    with pytest.raises(VwlError, match=r"target: it is a folder, pipe or device; name a file"):
        write_index(index_of(*ROWS), target)
    assert not target.is_file()
    assert list(tmp_path.iterdir()) == [target]


@pytest.mark.parametrize("path", ["", "s3://", "/"])
def test_a_path_without_a_file_name_is_refused(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    for call in (read_index, lambda path: write_index(index_of(*ROWS), path)):
        with pytest.raises(VwlError, match=f"'{path}' names no file"):
            call(path)
    assert not list(tmp_path.iterdir())


def test_a_manipulated_table_cannot_name_files_outside_the_root(tmp_path):
    write_index(index_of(*ROWS), tmp_path / "index.parquet")
    table = pq.read_table(tmp_path / "index.parquet")
    paths = pa.array(["../../secret.jpg", "p/b.jpg", "p/c.jpg"])
    pq.write_table(table.set_column(1, "image", paths), tmp_path / "index.parquet")
    with pytest.raises(VwlError, match="leads out of the root folder"):
        read_index(tmp_path / "index.parquet")


def test_images_and_masks_are_read_from_the_root(tmp_path):
    index = tiny_scenes(tmp_path / "scenes", 1, 0)
    write_index(index, tmp_path / "index.parquet")
    again = read_index(tmp_path / "index.parquet")
    row = again.rows[0]
    image, mask = again.read_image(row), again.read_mask(row)
    assert image.mode == "RGB"
    assert mask.shape == image.size[::-1]
    assert mask.dtype == np.uint8
    with pytest.raises(VwlError, match="image b has no mask"):
        index_of(*ROWS).read_mask(ROWS[1])
    with pytest.raises(VwlError, match=r"cannot read /data/p/a\.jpg"):
        index_of(*ROWS).read_image(ROWS[0])


GREY = np.linspace(0, 255, 48).astype(np.uint8).reshape(6, 8)


@pytest.mark.parametrize(
    "data",
    [
        encoded(GREY),
        encoded(GREY, "JPEG", quality=100),
        encoded(GREY.astype(np.uint16) * 257),
        encoded(GREY.astype(np.float32) * 7, "TIFF"),
        encoded(Image.fromarray(GREY).convert("RGB").quantize(256)),
        encoded(Image.merge("RGBA", [Image.fromarray(GREY)] * 4)),
        encoded(Image.merge("LA", [Image.fromarray(GREY)] * 2)),
        encoded(Image.merge("RGB", [Image.fromarray(GREY)] * 3).convert("CMYK"), "TIFF"),
    ],
    ids=["grey", "grey jpeg", "16 bit", "float", "palette", "rgba", "grey with alpha", "cmyk"],
)
def test_every_pixel_format_becomes_8_bit_rgb_of_the_same_grey_values(data):
    image = decode_image(data, "x")
    assert (image.mode, image.size) == ("RGB", (8, 6))
    assert np.abs(np.asarray(image).astype(int) - GREY[..., None]).max() <= 2


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_values_of_a_float_image_that_are_not_numbers_are_black_and_the_others_stay(bad):
    values = GREY.astype(np.float32)
    values[0, 0] = bad
    image = np.asarray(decode_image(encoded(values, "TIFF"), "x"))[..., 0]
    assert image[0, 0] == 0
    assert np.abs(image.astype(int) - GREY).max() <= 1


@pytest.mark.parametrize("data", [b"", b"no image", encoded(GREY)[:60], encoded(np.zeros((200, 200), np.uint8) + 7, "JPEG")[:-200]])
def test_a_file_that_is_truncated_or_not_an_image_is_named(data):
    with pytest.raises(VwlError, match=r"image holiday\.jpg cannot be read"):
        decode_image(data, "holiday.jpg")


def test_an_rgb_mask_is_refused(tmp_path):
    (tmp_path / "m.png").write_bytes(encoded(Image.new("RGB", (4, 4))))
    index = make_index([Row("a", "a.jpg", (1,), "m.png", "val")], CLASSES, Folder(tmp_path), "my data")
    with pytest.raises(VwlError, match=r"mask m\.png has mode RGB"):
        index.read_mask(index.rows[0])


@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("corrected", [None, b"a mask"])
def test_the_optional_columns_come_back_whichever_the_table_has(tmp_path, negative, corrected):
    rows = [Row("a", "a.jpg", (1,), None, "train", corrected=corrected), Row("b", "b.jpg", (), None, "train", negative=negative)]
    write_index(make_index(rows, ("background", "cat"), tmp_path, "a test"), tmp_path / "index.parquet")
    assert list(read_index(tmp_path / "index.parquet").rows) == rows
