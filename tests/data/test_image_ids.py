import numpy as np
import pyarrow as pa
import pytest

from vwl.data import image_ids
from vwl.data.columns import Columns
from vwl.data.image_ids import IdLookup, id_hashes
from vwl.data.rows import Row, Rows, batch_of

IDS = [f"2007_{number:06d}" for number in range(500)]


def test_a_hash_depends_on_the_text_only_and_not_on_where_it_is_stored():
    array = pa.array(["", "a", None, "ab", *IDS])
    assert id_hashes(array[3:]).tolist() == id_hashes(pa.array(["ab", *IDS])).tolist()
    assert id_hashes(array.cast(pa.binary()).slice(3)).tolist() == id_hashes(array).tolist()[3:]
    assert len(set(id_hashes(pa.array(["", "a", "ab", "ba", "b", "aa", *IDS])).tolist())) == 6 + len(IDS)


def fnv_1a(data):
    """The hash of one id, as it is published, with its upper half mixed into the lower."""
    found = 0xCBF29CE484222325
    for byte in data:
        found = (found ^ byte) * 0x100000001B3 % 2**64
    return (found ^ found >> 32) * 0x9E3779B97F4A7C15 % 2**64


def test_hashes_do_not_change_between_versions():
    names = ["2007_000032", "", "é", "a" * 200]
    assert id_hashes(pa.array(names)).tolist() == [fnv_1a(name.encode()) for name in names]


@pytest.mark.parametrize("num_hashes", [1, 3])
def test_ids_with_equal_hashes_are_told_apart(monkeypatch, num_hashes):
    true = id_hashes
    monkeypatch.setattr(image_ids, "id_hashes", lambda ids: true(ids) % np.uint64(num_hashes))
    monkeypatch.setattr("vwl.data.columns.id_hashes", lambda ids: true(ids) % np.uint64(num_hashes))
    rows = Rows(Columns([batch_of([Row(name, f"{name}.jpg", (), None, "train") for name in IDS], corrected=False)]))
    assert rows.columns.find([*IDS[::-1], "absent"]).tolist() == [*reversed(range(len(IDS))), -1]


def test_runs_of_equal_hashes_are_listed():
    lookup = IdLookup.of(np.array([7, 3, 7, 9, 3, 7, 1], np.uint64))
    assert [sorted(lookup.positions[low:high].tolist()) for low, high in lookup.same_hash()] == [[1, 4], [0, 2, 5]]
    assert len(IdLookup.of(np.array([7, 3, 1], np.uint64)).same_hash()) == 0
