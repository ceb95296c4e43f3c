"""Images without objects: how a file of labels marks them, and what it takes for a mistake."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from vwl.data.check import check_index
from vwl.data.folder import prepare_folder
from vwl.data.index import Row, make_index, read_index, write_index
from vwl.data.summary import without_contrast
from vwl.errors import VwlError
from vwl.storage.masks import encode_mask, voc_palette


@pytest.fixture
def prepare(tmp_path):
    """Return a function that prepares an index of the images a, b and c from the content of a CSV file."""
    (tmp_path / "images").mkdir()
    for number, name in enumerate("abc"):
        Image.new("RGB", (8, 6), (number, 0, 0)).save(tmp_path / f"images/{name}.png")

    def call(text, negatives=None, **more):
        (tmp_path / "labels.csv").write_text(text)
        return prepare_folder(tmp_path / "images", tmp_path / "labels.csv", negatives=negatives, **more)

    return call


@pytest.mark.parametrize(
    ("text", "negatives"),
    [
        ("image,labels\na,crack\nb,none\n", "none"),
        ("image,labels\na,crack\nb,None\n", "none"),
        ("image,labels\na,crack\nb,no crack\n", "no crack"),
        ("image,labels\na,crack\nb,'no crack'\n", "no crack"),
        ("image,labels\na,crack\nb,background\n", "background"),
        ("image,labels\na,crack\nb,\n", "empty"),
        ("image,labels\na,crack\nb,empty\n", "empty"),
    ],
)
def test_images_without_objects_are_marked_by_a_word_or_by_having_no_label(prepare, text, negatives):
    index, notes = prepare(text, negatives, separator="semicolon")
    assert index.classes == ("background", "crack")
    assert [(row.image_id, row.labels, row.negative, row.is_labelled) for row in index.rows] == [
        ("a", (1,), False, True),
        ("b", (), True, True),
    ]
    assert any(note.startswith("1 images show no object") for note in notes)
    assert check_index(index) == []


@pytest.mark.parametrize(
    ("text", "negatives", "message"),
    [
        ("image,labels\na,crack\nb,\n", None, "line 3: the training image 'b' has no label; .*--negatives empty"),
        ("image,labels\na,crack\nb,\nc,none\n", "none", "line 3: the training image 'b' has no label"),
        ("image,labels\na,crack\nb,\nc,empty\n", "empty", "line 3: the training image 'b' has no label"),
        ("image,labels\na,crack\nb,none\n", "nnone", "no image is labelled 'nnone'; did you mean 'none'?"),
        ("image,labels\na,crack\nb,crack\n", "empty", "every image has a label"),
        ("image,labels\na,crack\nb,crack;none\n", "none", r"line 3: the labels 'none' \(no object\) and 'crack' contradict each other"),
        ("image,labels\na,crack\nb,nonne\nc,none\n", "none", "line 3: the class 'nonne' is nearly 'none', the label of images without"),
        ("image,labels\na,none\nb,none\n", "none", "no image has another label than 'none'"),
        ("image,labels\na,crack\nb,none\n", " ", "names no label"),
        ("image,labels\na,crack\nb,background\n", None, "'background' is id 0 of every mask"),
        ("image,labels\na,crack\nb,background\nc,none\n", "none", "'background' is id 0 of every mask"),
    ],
)
def test_a_forgotten_label_a_misspelt_word_and_a_contradiction_are_refused(prepare, text, negatives, message):
    with pytest.raises(VwlError, match=message):
        prepare(text, negatives)


def test_a_class_that_is_nearly_the_word_can_be_listed(prepare, tmp_path):
    (tmp_path / "classes.txt").write_text("nonne\ncrack\n")
    index, _ = prepare("image,labels\na,crack\nb,nonne\nc,none\n", "none", classes=tmp_path / "classes.txt")
    assert [row.labels for row in index.rows] == [(2,), (1,), ()]


@pytest.mark.parametrize("word", ["none", "Negative", "no crack", "without crack", "empty"])
def test_a_class_that_seems_to_mean_no_object_is_noted(prepare, word):
    index, notes = prepare(f"image,labels\na,crack\nb,{word}\n", separator="semicolon")
    assert word in index.classes
    assert any(f"'{word}' is taken for a class of objects" in note and f"give --negatives '{word}'" in note for note in notes)


def test_an_unlabelled_image_of_val_is_not_negative(prepare):
    index, _ = prepare("image,labels,split\na,crack,train\nb,,val\nc,none,val\n", "none")
    assert [(row.is_labelled, row.negative) for row in index.rows] == [(True, False), (False, False), (True, True)]


def test_negatives_need_no_mask(prepare, tmp_path):
    (tmp_path / "masks").mkdir()
    (tmp_path / "masks/a.png").write_bytes(encode_mask(np.ones((6, 8), np.uint8), voc_palette()))
    index, notes = prepare("image,labels\na,crack\nb,none\n", "none", masks=tmp_path / "masks")
    assert [row.mask is None for row in index.rows] == [False, True]
    assert "1 of them have no mask and are not scored" in notes


def test_a_mask_of_a_negative_that_shows_an_object_is_a_problem(prepare, tmp_path):
    (tmp_path / "masks").mkdir()
    for name in "ab":
        (tmp_path / f"masks/{name}.png").write_bytes(encode_mask(np.ones((6, 8), np.uint8), voc_palette()))
    index, _ = prepare("image,labels\na,crack\nb,none\n", "none", masks=tmp_path / "masks")
    assert [problem.kind for problem in check_index(index)] == ["class-not-in-labels"]


def test_an_index_keeps_negatives_and_a_table_without_them_keeps_its_bytes_and_fingerprint(tmp_path):
    rows = [Row("a", "a.jpg", (1,), None, "train"), Row("b", "b.jpg", (), None, "val")]
    index = make_index(rows, ("background", "x"), tmp_path, "mine")
    write_index(index, tmp_path / "index.parquet")
    assert pq.read_schema(tmp_path / "index.parquet").names == ["image_id", "image", "labels", "mask", "split"]
    assert index.fingerprint() == "9ba789d1efae882b"
    negative = make_index([rows[0], Row("b", "b.jpg", (), None, "val", True)], ("background", "x"), tmp_path, "mine")
    write_index(negative, tmp_path / "negative.parquet")
    assert read_index(tmp_path / "negative.parquet").rows == negative.rows
    assert negative.fingerprint() != index.fingerprint()


def test_classes_of_every_training_image_are_named(tmp_path):
    def line(*labels):
        rows = [Row(str(number), f"{number}.jpg", own, None, "train", not own) for number, own in enumerate(labels)]
        index = make_index(rows, ("background", "x", "y"), tmp_path, "mine")
        return without_contrast(index, index.rows)

    assert line((1,), (1, 2)).startswith("every training image shows 'x': nothing tells the object from its surroundings")
    assert "'x', 'y'" in line((1, 2), (1, 2))
    assert line((1,), (2,)) is None
    assert line((1,), ()) is None
