"""The fingerprint in a stream is the hash of one JSON text of all rows, as it names the runs that exist."""

import hashlib
import json

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.data.test_rows import columns_of
from vwl.data.data_fingerprint import DataFingerprint
from vwl.data.index import make_index, read_index, write_index
from vwl.data.index_hash import fingerprint_of
from vwl.data.row_checks import SPLITS
from vwl.data.rows import Row

CLASSES = ("background", "cat", 'a "dog"', "é")
text = st.text('ab/ ."\\é\u3042\U0001f600~', min_size=1, max_size=6)
rows = st.builds(
    Row,
    text,
    text,
    st.sets(st.integers(1, 3)).map(lambda ids: tuple(sorted(ids))),
    st.none() | text,
    st.sampled_from(SPLITS),
    st.booleans(),
    st.none() | st.binary(max_size=3),
)


def hashed(parts):
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def at_once(some):
    """The fingerprint as earlier versions computed it."""
    parts = [CLASSES, *((r.image_id, r.image, r.labels, r.mask, r.split, *([True] if r.negative else [])) for r in some)]
    training, held_out = [], []
    for row in some:
        if row.corrected is not None:
            pair = (row.image_id, hashlib.sha256(row.corrected).hexdigest())
            (training if row.split in ("train", "aug") else held_out).append(pair)
    return str(DataFingerprint(hashed(parts), hashed(training) if training else "", hashed(held_out) if held_out else ""))


@settings(max_examples=40, deadline=None)
@given(st.lists(rows, min_size=1, max_size=12))
def test_the_fingerprint_is_that_of_all_rows_at_once(some):
    assert fingerprint_of(columns_of(some), CLASSES) == at_once(some)


def test_plain_rows_need_no_json_of_each(monkeypatch):
    some = [Row(f"a{n}", f"{n}.jpg", (1, 2)[: n % 3], None if n % 2 else "m.png", "train", not n % 3) for n in range(9)]
    wanted, columns = at_once(some), columns_of(some)
    monkeypatch.setattr("vwl.data.index_hash._text_of_values", None)
    assert fingerprint_of(columns, CLASSES) == wanted


def test_an_index_computes_its_fingerprint_once(tmp_path, monkeypatch):
    write_index(make_index([Row("a", "a.jpg", (1,), None, "train")], CLASSES, "/data", "mine"), tmp_path / "index.parquet")
    index = read_index(tmp_path / "index.parquet")
    first = index.fingerprint()
    monkeypatch.setattr("vwl.data.index.fingerprint_of", None)
    assert index.fingerprint() == first
