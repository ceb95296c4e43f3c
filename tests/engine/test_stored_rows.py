"""Rows in Ray's object store: what actors read are the shards, and no more than some of them at a time."""

import pickle

import pytest
import ray

from vwl.data.index import Row, make_index
from vwl.engine.session import session
from vwl.engine.stored_rows import StoredRows
from vwl.inference.runner import shards

ROWS = [Row(f"i{n}", f"i{n}.jpg", (1 + n % 2,), None, "train", corrected=b"png" if n == 7 else None) for n in range(23)]
INDEX = make_index(ROWS, ("background", "cat", "dog"), "/images", "a test")


@ray.remote(num_cpus=0)
def read(stored: StoredRows, which: list) -> list:
    return [stored.read(shard) for shard in which]


@pytest.mark.ray
@pytest.mark.timeout(300)
def test_a_worker_reads_the_shards_that_were_stored(monkeypatch):
    monkeypatch.setattr("vwl.engine.stored_rows._ROWS", 6)
    with session(None, cpus=1):
        for rows in (INDEX.rows, tuple(ROWS), INDEX.rows.where(INDEX.rows.in_splits("train"))[::-1]):
            todo = [shard for shard in shards(rows, sizes=[4]) if shard.number != 3]
            stored = StoredRows(todo)
            assert [shard.block for shard in stored.shards] == [0, 0, 1, 1, 2]
            assert ray.get(read.remote(stored, stored.shards[::-1])) == todo[::-1]
            assert len(pickle.dumps(stored.__getstate__()["shards"])) < 20
