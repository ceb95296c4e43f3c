"""Image labels that predictions are kept to, from the CSV file of `vwl data prepare folder`."""

import pytest

from vwl.errors import VwlError
from vwl.model_file.sources import Source
from vwl.prediction.labels import ImageLabels

CLASSES = ("background", "cat", "dog", "traffic light")
SOURCES = [Source("in/p1.jpg", "p1"), Source("in/sub/p2.png", "sub/p2"), Source("in/p3.jpg", "p3.jpg"), Source("in/p3.png", "p3.png")]


def labels_of(tmp_path, text, sources=SOURCES):
    (tmp_path / "labels.csv").write_text(f"image,labels\n{text}")
    return ImageLabels(tmp_path / "labels.csv", CLASSES, sources)


@pytest.mark.parametrize("name", ["sub/p2.png", "sub/p2", "p2.png", "p2"])
def test_an_image_is_named_by_file_or_path_with_or_without_ending(tmp_path, name):
    labels = labels_of(tmp_path, f"p1.jpg,dog;cat\n{name},traffic light;dog\n")
    assert (labels.of(SOURCES[0]), labels.of(SOURCES[1])) == ((1, 2), (2, 3))


def test_images_that_differ_in_their_endings_are_named_with_them(tmp_path):
    labels = labels_of(tmp_path, "p3.jpg,dog\np3.png,cat\n")
    assert (labels.of(SOURCES[2]), labels.of(SOURCES[3])) == ((2,), (1,))


def test_an_image_without_objects_has_no_labels(tmp_path):
    assert labels_of(tmp_path, "p1.jpg,\n").of(SOURCES[0]) == ()


def test_an_image_without_a_line_says_so(tmp_path):
    with pytest.raises(VwlError, match=r"in/sub/p2\.png: .*labels\.csv has no line of it; add one"):
        labels_of(tmp_path, "p1.jpg,dog\n").of(SOURCES[1])


def test_lines_that_name_no_image_are_counted(tmp_path):
    assert labels_of(tmp_path, "p1.jpg,dog\nq.jpg,cat\nr.jpg,cat\n").num_unused == 2


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("p1.jpg,dgo\n", r"labels\.csv line 2: unknown class 'dgo'; did you mean 'dog'\?; the model has: cat, dog, traffic light"),
        ("p1.jpg,background\n", "line 2: unknown class 'background'"),
        ("p1.jpg,dog\np1.jpg,cat\n", r"line 3: image 'p1\.jpg' is listed in line 2 already"),
        ("p3,dog\n", r"line 2: 'p3' is the name of 2 images, one of them in/p3\.jpg; write their paths"),
        ("p1.jpg,dog;cat\np3.jpg,dog|cat\n", "separates labels by ';'"),
    ],
)
def test_what_is_wrong_with_the_file_is_one_line(tmp_path, text, message):
    with pytest.raises(VwlError, match=message):
        labels_of(tmp_path, text)
