"""Rows over columns behave as the list of the same rows, and their masks and counts are those of the rows one by one."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vwl.data.columns import Columns
from vwl.data.row_checks import SPLITS
from vwl.data.rows import Row, Rows, batch_of, joined

NUM_OBJECTS = 3


def row(number, labels=(), mask=False, split="train", negative=False, corrected=None):
    name = f"p{number:03d}é"
    return Row(
        name, f"images/{name}.jpg", tuple(sorted(labels)), f"m/{name}.png" if mask else None, split, negative and not labels, corrected
    )


kinds = st.tuples(
    st.sets(st.integers(1, NUM_OBJECTS)), st.booleans(), st.sampled_from(SPLITS), st.booleans(), st.none() | st.binary(max_size=4)
)
lists = st.lists(kinds, min_size=1, max_size=30).map(lambda some: [row(number, *kind) for number, kind in enumerate(some)])


def columns_of(rows, size=4):
    """Columns in batches of a few rows, so that every access crosses their borders."""
    return Columns([batch_of(rows[first : first + size], corrected=True) for first in range(0, len(rows), size)])


@settings(max_examples=40, deadline=None)
@given(lists, st.data())
def test_rows_are_read_by_number_by_slice_and_in_turn_like_a_list(plain, data):
    rows = Rows(columns_of(plain))
    number = data.draw(st.integers(-len(plain), len(plain) - 1))
    key = data.draw(st.slices(len(plain)))
    assert rows[number] == plain[number]
    assert (rows[key], list(rows[key]), len(rows[key])) == (plain[key], plain[key], len(plain[key]))
    assert list(rows) == plain
    assert rows == tuple(plain)
    assert hash(rows[:3]) == hash(tuple(plain[:3]))
    assert list(rows.image_ids) == [one.image_id for one in plain]
    with pytest.raises(IndexError):
        rows[len(plain)]


@settings(max_examples=40, deadline=None)
@given(lists, st.data())
def test_masks_and_counts_are_those_of_the_rows_one_by_one(plain, data):
    order = data.draw(st.permutations(range(len(plain))))
    for rows, some in ((Rows(columns_of(plain)), plain), (Rows(columns_of(plain), np.array(order)), [plain[n] for n in order])):
        assert rows.is_labelled.tolist() == [one.is_labelled for one in some]
        assert rows.has_truth.tolist() == [one.has_truth for one in some]
        assert rows.has_mask.tolist() == [one.mask is not None for one in some]
        assert rows.is_corrected.tolist() == [one.corrected is not None for one in some]
        assert rows.negative.tolist() == [one.negative for one in some]
        assert rows.in_splits("train", "val").tolist() == [one.split in {"train", "val"} for one in some]
        assert list(rows.split_counts().items()) == [
            (split, sum(one.split == split for one in some)) for split in dict.fromkeys(one.split for one in some)
        ]
        assert rows.label_counts(NUM_OBJECTS).tolist() == [sum(label in one.labels for one in some) for label in range(NUM_OBJECTS + 1)]
        assert rows.targets(NUM_OBJECTS).tolist() == [[label in one.labels for label in range(1, NUM_OBJECTS + 1)] for one in some]
        assert list(rows.where(rows.is_labelled)) == [one for one in some if one.is_labelled]


@settings(max_examples=40, deadline=None)
@given(lists, st.data())
def test_rows_are_found_by_image_id_wherever_they_are(plain, data):
    rows = Rows(columns_of(plain))
    known = {one.image_id: number for number, one in enumerate(plain)}
    wanted = data.draw(st.lists(st.sampled_from([*known, "absent", "", "\udc80", "p0"]), max_size=20))
    assert rows.columns.find(wanted).tolist() == [known.get(name, -1) for name in wanted]
    assert rows.among(iter(wanted)).tolist() == [one.image_id in wanted for one in plain]
    assert rows[::-1].among(wanted).tolist() == [one.image_id in wanted for one in plain[::-1]]


@settings(max_examples=40, deadline=None)
@given(lists, st.data())
def test_rows_are_joined_and_compared_by_position(plain, data):
    rows = Rows(columns_of(plain))
    one, other = (rows[data.draw(st.slices(len(plain)))] for _ in range(2))
    assert list(joined(one, other)) == [*one, *other]
    assert rows.includes(one, other).tolist() == [some in [*one, *other] for some in plain]
    assert one.includes(other).tolist() == [some in list(other) for some in one]


@settings(max_examples=40, deadline=None)
@given(lists, st.data())
def test_corrections_replace_those_of_their_rows_only(plain, data):
    masks = data.draw(st.dictionaries(st.integers(0, len(plain) - 1), st.binary(max_size=3)))
    found = Rows(columns_of(plain).with_corrected(masks))
    assert [one.corrected for one in found] == [masks.get(number, one.corrected) for number, one in enumerate(plain)]
    assert [one.image_id for one in found] == [one.image_id for one in plain]


def test_rows_travel_without_the_rest_of_the_data_set():
    sizes = []
    for num in (100, 10_000):
        plain = [row(number, (1,)) for number in range(num)]
        some = Rows(columns_of(plain, 5000))[48:64]
        sizes.append(len(pickle.dumps(some)))
        again = pickle.loads(pickle.dumps(some))  # noqa: S301
        assert again == plain[48:64]
        assert len(again.columns) == 16
    assert sizes[1] < 1.1 * sizes[0]
