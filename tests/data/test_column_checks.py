"""The fast checks of columns leave out no row that the check of single rows refuses, and let through the types that tables may have."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vwl.data.column_checks import canonical, suspects
from vwl.data.row_checks import row_problem

NUM_OBJECTS = 3
HOSTILE = ["..", ".", "/", "\\", "a", "b.jpg", "x/", "\x00", "\n", "\x7f", "\x85", "\u2028", "\u2029", "é", "\u202f", "/.", "a" * 199]
texts = st.lists(st.sampled_from(HOSTILE), max_size=3).map("".join)
values = st.tuples(
    st.none() | texts,
    st.none() | texts,
    st.none() | st.lists(st.none() | st.integers(-1, NUM_OBJECTS + 1), max_size=3),
    st.none() | texts,
    st.none() | st.sampled_from(["train", "aug", "val", "test", "vall", ""]),
    st.none() | st.booleans(),
)
TYPES = (pa.string(), pa.string(), pa.list_(pa.int64()), pa.string(), pa.string(), pa.bool_())
NAMES = ("image_id", "image", "labels", "mask", "split", "negative")


def batch(rows, types=TYPES):
    return pa.RecordBatch.from_arrays([pa.array(column, kind) for column, kind in zip(zip(*rows, strict=True), types, strict=True)], NAMES)


@settings(max_examples=40, deadline=None)
@given(st.lists(values, min_size=1, max_size=8))
def test_every_wrong_row_is_suspected(rows):
    found = suspects(canonical(batch(rows)), NUM_OBJECTS).tolist()
    wrong = [n for n, row in enumerate(rows) if row_problem(*row[:5], num_objects=NUM_OBJECTS, negative=row[5]) is not None]
    assert set(wrong) <= set(found)


RIGHT = [
    ("a", "images/a.jpg", [1, 3], "m/a.png", "train", False),
    ("é 1.0", "x.y/b.jpg", [], None, "val", True),
    ("a" * 200, "c", [2], None, "test", False),
]


def test_right_rows_are_not_looked_at_one_by_one():
    assert suspects(canonical(batch(RIGHT)), NUM_OBJECTS).tolist() == []


@pytest.mark.parametrize(
    "types",
    [
        (pa.large_string(), pa.string_view(), pa.large_list(pa.uint8()), pa.large_string(), pa.string(), pa.bool_()),
        (
            pa.string(),
            pa.string(),
            pa.list_(pa.int16()),
            pa.dictionary(pa.int8(), pa.string()),
            pa.dictionary(pa.int32(), pa.string()),
            pa.bool_(),
        ),
    ],
)
def test_other_types_of_the_same_values_give_the_same_columns(types):
    assert canonical(batch(RIGHT, types)).equals(canonical(batch(RIGHT)))


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("image_id", pa.array([1, 2, 3])),
        ("image_id", pa.array([b"\xff\xfe", b"b", b"c"]).view(pa.string())),
        ("labels", pa.array([[1.5], [], []])),
        ("labels", pa.array([[2**40], [], []])),
        ("labels", pa.array(["1", "", ""])),
        ("split", pa.array([0, 1, 2])),
        ("negative", pa.array([0, 1, 0])),
        ("mask", pa.array([b"m.png", None, None])),
    ],
)
def test_a_column_of_another_type_or_without_utf8_is_left_to_the_slow_check(name, column):
    raw = batch(RIGHT)
    assert canonical(raw.set_column(NAMES.index(name), name, column)) is None
