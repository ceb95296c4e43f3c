"""Values that no data set has are named in one line; values that data sets have pass."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vwl.data.row_checks import metadata_problem, row_problem

ROW = {"image_id": "a", "image": "p/a.jpg", "labels": (1, 2), "mask": "m/a.png", "split": "train"}
ABOUT = {"classes": ["background", "cat"], "palette": [0] * 768, "root": "/data", "source": "mine", "format": 1}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"mask": None},
        {"labels": ()},
        {"labels": (), "negative": True},
        {"image_id": "Screenshot 1.00.00\u202fPM (é)"},
        {"image_id": "a" * 200},
        {"image": "p/..a.jpg"},
        *({"split": split} for split in ("aug", "val", "test")),
    ],
)
def test_a_right_row_has_no_problem(changes):
    assert row_problem(**ROW | changes, num_objects=2) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": 7}, "the image id 7 is not text"),
        ({"image_id": None}, "the image id None is not text"),
        ({"image_id": ""}, "image id '' is not a file name"),
        ({"image_id": ".a"}, "image id '.a' is not a file name"),
        ({"image_id": "a/b"}, "image id 'a/b' is not a file name"),
        ({"image_id": "a\\b"}, "is not a file name"),
        ({"image_id": "a\0b"}, "image id 'a\\x00b' is not a file name"),
        ({"image_id": "a\nb"}, "image id 'a\\nb' is not a file name"),
        ({"image_id": "a" * 201}, "has 201 bytes, and 200 are allowed"),
        ({"image": None}, "the path None of image a is not text"),
        ({"image": ""}, "the path '' of image a is empty"),
        ({"image": "."}, "the path '.' of image a is empty"),
        ({"image": "a\0.jpg"}, "holds control characters"),
        ({"image": "/etc/passwd"}, "leads out of the root folder"),
        ({"mask": "../a.png"}, "the path '../a.png' of image a leads out of the root folder"),
        ({"mask": 3}, "the path 3 of image a is not text"),
        ({"split": "vall"}, "image a is in the unknown split 'vall'; did you mean 'val'?"),
        ({"split": None}, "image a is in the unknown split None (splits are train, aug, val and test)"),
        ({"labels": None}, "the labels None of image a are not a list of class ids"),
        ({"labels": "cat"}, "the labels 'cat' of image a are not a list of class ids"),
        ({"labels": [1.5]}, "image a has label 1.5, which is not a whole number"),
        ({"labels": [True]}, "image a has label True, which is not a whole number"),
        ({"labels": [None]}, "image a has label None, which is not a whole number"),
        ({"labels": [3]}, "image a has label 3, but the classes are 1 to 2"),
        ({"labels": [2, 1]}, "the labels [2, 1] of image a are not in ascending order, each once"),
        ({"negative": True}, "image a is negative (shows no object) and yet has the labels [1, 2]"),
        ({"negative": None}, "image a has None in the column 'negative'"),
        ({"labels": [1, 1]}, "the labels [1, 1] of image a are not in ascending order, each once"),
    ],
)
def test_a_wrong_value_is_named(changes, message):
    problem = row_problem(**ROW | changes, num_objects=2)
    assert problem is not None
    assert message in problem


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": 2}, "its format is 2; this version of vwl reads format 1"),
        ({"root": None}, "'root' in its metadata is None and not a line of text"),
        ({"root": "/a\0b"}, "'root' in its metadata is '/a\\x00b'"),
        ({"source": 3}, "'source' in its metadata is 3"),
        ({"classes": "cat"}, "'classes' in its metadata is 'cat' and not a list of names"),
        ({"classes": ["background", 1]}, "not a list of names"),
        ({"palette": [0] * 767}, "not 768 whole numbers from 0 to 255"),
        ({"palette": [0] * 767 + [256]}, "not 768 whole numbers"),
        ({"palette": [0] * 767 + [0.5]}, "not 768 whole numbers"),
        ({"palette": None}, "'palette' in its metadata is None"),
    ],
)
def test_wrong_metadata_are_named(changes, message):
    assert metadata_problem(ABOUT) is None
    assert message in (metadata_problem(ABOUT | changes) or "")


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20), lambda v: st.lists(v, max_size=3), max_leaves=5
)


@given(st.tuples(JSON, JSON, JSON, JSON, JSON))
def test_any_values_give_a_short_line_or_none(values):
    problem = row_problem(*values, num_objects=2)
    assert problem is None or (len(problem) < 600 and problem.isprintable())


@given(JSON | st.dictionaries(st.sampled_from([*ABOUT]), JSON))
def test_any_metadata_give_a_short_line(about):
    problem = metadata_problem(about)
    assert problem is not None
    assert len(problem) < 300
