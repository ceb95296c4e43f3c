"""A large index is checked once on a node, and every process maps the same files; the answers are those of a small one."""

import os
import tempfile
import threading

import pyarrow.parquet as pq
import pytest

from tests.data.test_index import edit
from vwl.data import index_source, mapped_index
from vwl.data.index import Row, make_index, read_index, write_index
from vwl.errors import VwlError

CLASSES = ("background", "cat", "dog")
ROWS = [
    Row(f"p{n}", f"images/p{n}.jpg", (1, 2)[: n % 3], f"m/p{n}.png" if n % 5 == 0 else None, ("train", "val", "aug")[n % 3], n % 3 == 0)
    for n in range(200)
]


@pytest.fixture(autouse=True)
def node(tmp_path, monkeypatch):
    """A node whose temporary folder is empty, and on which every index is large; return its cache's folder."""
    (tmp_path / "node").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "node"))
    monkeypatch.setattr(mapped_index, "MAPPED_ROWS", 1)
    monkeypatch.setattr(mapped_index, "BATCH_ROWS", 64)
    monkeypatch.delenv("VWL_CACHE_GIB", raising=False)
    return tmp_path / "node" / f"vwl-cache-{os.getuid()}"


@pytest.fixture
def path(tmp_path):
    write_index(make_index(ROWS, CLASSES, "/data", "mine"), tmp_path / "index.parquet")
    return tmp_path / "index.parquet"


def made(node):
    return sorted(entry.name.rpartition(".")[2] for entry in node.glob("index-*"))


@pytest.mark.parametrize("corrected", [None, b"a mask"])
def test_a_mapped_index_has_the_rows_and_the_fingerprint_of_one_in_memory(tmp_path, node, corrected):
    small = make_index([*ROWS, Row("last", "é.jpg", (2,), None, "test", corrected=corrected)], CLASSES, "/data", "mine")
    write_index(small, tmp_path / "index.parquet")
    large = read_index(tmp_path / "index.parquet")
    assert made(node) == ["ids", "rows"]
    assert large.rows == small.rows
    assert large.fingerprint() == small.fingerprint()
    assert large.rows.columns.find(["last", "p7", "absent"]).tolist() == [len(ROWS), 7, -1]
    assert not list(node.glob(".part-*"))


def test_what_one_process_has_checked_another_only_maps(path, monkeypatch):
    first = read_index(path)
    monkeypatch.setattr(mapped_index, "Builder", None)
    monkeypatch.setattr("vwl.data.index.fingerprint_of", None)
    again = read_index(path)
    assert (again.rows, again.fingerprint()) == (first.rows, first.fingerprint())
    assert again.rows.columns.find(["p150"]).tolist() == [150]


def test_another_table_of_the_same_size_and_time_is_not_taken_for_the_first(path):
    first, about = read_index(path), path.stat()
    other = [Row("q" + row.image_id[1:], *list(vars(row).values())[1:]) for row in ROWS]
    write_index(make_index(other, CLASSES, "/data", "mine"), path)
    os.utime(path, ns=(about.st_atime_ns, about.st_mtime_ns))
    again = read_index(path)
    assert again.rows[0].image_id == "q0"
    assert again.fingerprint() != first.fingerprint()
    assert first.rows[199].image_id == "p199"


@pytest.mark.parametrize("part", ["rows", "ids"])
@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_damaged_files_of_the_cache_are_made_again(path, node, part, damage):
    wanted = read_index(path).fingerprint()
    (file,) = node.glob(f"index-*.{part}")
    if damage == "gone":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2 if damage == "cut" else 0)
    again = read_index(path)
    assert (list(again.rows), again.fingerprint()) == (ROWS, wanted)
    assert file.stat().st_size > 0


def test_rows_stay_readable_when_the_cache_deletes_their_files(path, node):
    index = read_index(path)
    for file in node.iterdir():
        file.unlink()
    assert list(index.rows) == ROWS


@pytest.mark.parametrize("limit", ["0", "0.000001"])
def test_without_room_in_the_cache_the_rows_are_in_memory(path, node, monkeypatch, limit):
    monkeypatch.setenv("VWL_CACHE_GIB", limit)
    assert list(read_index(path).rows) == ROWS
    assert not node.exists() or made(node) == []
    assert not list(node.glob(".part-*"))


def test_a_folder_that_others_can_write_is_not_used(path, node):
    node.mkdir(mode=0o777)
    node.chmod(0o777)
    assert list(read_index(path).rows) == ROWS
    assert made(node) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": ["train"] * 199 + ["vall"]}, r"index\.parquet row 200: image p199 is in the unknown split 'vall'; did you mean 'val'\?"),
        ({"image_id": [*(row.image_id for row in ROWS[:-1]), "p3"]}, r"index\.parquet rows 4 and 200: image id 'p3' occurs more than once"),
        ({"labels": [[1]] * 199 + [[3]]}, r"index\.parquet row 1: image p0 is negative"),
    ],
)
def test_a_wrong_row_is_named_as_in_a_small_table_and_leaves_nothing(path, node, changes, message):
    edit(path, **changes)
    for _ in range(2):
        with pytest.raises(VwlError, match=message):
            read_index(path)
    assert made(node) == []
    assert not list(node.glob(".part-*"))


def test_a_damaged_table_is_named(path):
    data = bytearray(path.read_bytes())
    data[200:900] = bytes(700)
    path.write_bytes(data)
    with pytest.raises(VwlError, match="is not an index table made by vwl data prepare"):
        read_index(path)


def test_processes_that_start_together_check_the_table_once(path, monkeypatch):
    builders, true = [], mapped_index.Builder
    monkeypatch.setattr(mapped_index, "Builder", lambda *args: builders.append(1) or true(*args))
    found = []
    threads = [threading.Thread(target=lambda: found.append(read_index(path).fingerprint())) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(builders), len(found), len(set(found))) == (1, 4, 1)


def test_only_large_tables_are_mapped(tmp_path, node, monkeypatch):
    monkeypatch.setattr(mapped_index, "MAPPED_ROWS", 201)
    write_index(make_index(ROWS, CLASSES, "/data", "mine"), tmp_path / "index.parquet")
    read_index(tmp_path / "index.parquet")
    assert not node.exists()
    monkeypatch.setattr(mapped_index, "MAPPED_BYTES", 1)
    read_index(tmp_path / "index.parquet")
    assert made(node) == ["ids", "rows"]


def test_a_table_in_many_row_groups_is_mapped_in_whole_batches(path, monkeypatch):
    table = pq.read_table(path)
    pq.write_table(table, path, row_group_size=7)
    monkeypatch.setattr(index_source, "BATCH_ROWS", 7)
    index = read_index(path)
    assert list(index.rows) == ROWS
    assert [len(batch) for batch in index.rows.columns.batches] == [70, 70, 60]
