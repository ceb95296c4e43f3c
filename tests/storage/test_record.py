"""The record of a stage's files: what is missing or damaged is found from a listing, and content is read only where it may have changed."""

import os
from pathlib import Path

import pytest

from vwl.storage.folder import Folder
from vwl.storage.record import Record, StoredFile, faults, read_record, stored_file, write_record

NAMES = ("a.png", "b.png", "done/00000.json")


@pytest.fixture
def folder(tmp_path) -> Folder:
    for name in NAMES:
        Folder(tmp_path).write(name, name.encode() * 9)
    return Folder(tmp_path)


@pytest.fixture
def files(folder) -> dict[str, StoredFile]:
    return {name: stored_file(folder, name) for name in NAMES}


def test_a_record_is_read_back_as_it_was_written(folder, files):
    assert read_record(folder) is None
    write_record(folder, Record({"stage": "cam"}, files))
    assert read_record(folder) == Record({"stage": "cam"}, files)


@pytest.mark.parametrize("content", [b"", b"{}", b'{"files": [], "manifest": {}}', b'{"files": {"a": [1]}, "manifest": {}}', b"\x00"])
def test_a_damaged_record_is_none(folder, content):
    folder.write("record.json", content)
    assert read_record(folder) is None


def test_files_that_have_not_changed_have_no_faults(folder, files):
    assert faults(folder, files) == ({}, files)
    assert faults(folder, {}) == ({}, {})


def test_a_missing_file_and_one_of_another_size_are_faults(folder, files):
    folder.delete("a.png")
    folder.write("done/00000.json", b"12")
    found, others = faults(folder, files)
    assert found == {"a.png": "is missing", "done/00000.json": "is damaged: it has 2 bytes instead of 135"}
    assert others == {"b.png": files["b.png"]}


@pytest.mark.parametrize("seconds", [-1000, 1000])
def test_a_file_whose_time_has_changed_is_read(folder, files, seconds):
    path = Path(folder.path, "a.png")
    later = path.stat().st_mtime_ns + seconds * 10**9
    os.utime(path, ns=(later, later))
    assert faults(folder, files) == ({}, {**files, "a.png": stored_file(folder, "a.png")})
    path.write_bytes(path.read_bytes()[::-1])
    os.utime(path, ns=(later, later))
    assert faults(folder, files)[0] == {"a.png": "is damaged: its content has changed since it was written"}


def test_a_file_of_unknown_content_counts_by_its_size(folder, files):
    unknown = {name: StoredFile(file.size, "") for name, file in files.items()}
    found, now = faults(folder, unknown)
    assert found == {}
    assert {name: file.mtime_ns for name, file in now.items()} == {name: file.mtime_ns for name, file in files.items()}
