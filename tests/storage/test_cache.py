"""The cache of a node: its own bytes are the origin's, it has a bound, and trusts nobody else's files."""

import os
import threading
from pathlib import Path

import pytest

from vwl.errors import VwlError
from vwl.storage import cache
from vwl.storage.cache import Cache, read_cached
from vwl.storage.folder import Folder


@pytest.fixture
def origin(tmp_path) -> Folder:
    folder = Folder(tmp_path / "origin")
    for number in range(10):
        folder.write(f"{number}.jpg", bytes([number]) * 100)
    return folder


def kept(folder: Path) -> list[int]:
    """The first byte of every file, sorted: which images are there."""
    return sorted(path.read_bytes()[0] for path in folder.iterdir()) if folder.exists() else []


def test_what_was_read_once_is_read_from_here(origin, tmp_path):
    cache = Cache(tmp_path / "cache", 1000)
    assert cache.read(origin, "3.jpg") == b"\3" * 100
    Path(origin.path, "3.jpg").unlink()
    assert cache.read(origin, "3.jpg") == b"\3" * 100
    assert kept(tmp_path / "cache") == [3]
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_another_process_finds_it_and_an_image_that_was_replaced_is_read_anew(origin, tmp_path):
    Cache(tmp_path / "cache", 1000).read(origin, "3.jpg")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"\7" * 100)  # to see where it is read
    assert Cache(tmp_path / "cache", 1000).read(origin, "3.jpg") == b"\7" * 100
    origin.write("3.jpg", b"\5" * 101)
    assert Cache(tmp_path / "cache", 1000).read(origin, "3.jpg") == b"\5" * 101


def test_the_bound_holds_and_what_was_not_used_for_longest_goes(origin, tmp_path):
    cache = Cache(tmp_path / "cache", 550)
    for number in (0, 1, 2, 3, 4):
        cache.read(origin, f"{number}.jpg")
        for age, file in enumerate(sorted((tmp_path / "cache").iterdir(), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(file, ns=(0, 10**9 * age))  # the clock of a disk is coarse
    cache.read(origin, "0.jpg")
    cache.read(origin, "5.jpg")
    assert kept(tmp_path / "cache") == [0, 3, 4, 5]  # room is made down to nine tenths
    assert all(cache.read(origin, f"{number}.jpg") == bytes([number]) * 100 for number in range(10))
    assert sum(file.stat().st_size for file in (tmp_path / "cache").iterdir()) <= 550


def test_what_is_larger_than_the_bound_is_read_and_not_kept(origin, tmp_path):
    assert Cache(tmp_path / "cache", 99).read(origin, "1.jpg") == b"\1" * 100
    assert kept(tmp_path / "cache") == []


def test_a_file_that_was_cut_off_is_read_anew(origin, tmp_path):
    cache = Cache(tmp_path / "cache", 1000)
    cache.read(origin, "3.jpg")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"\3")
    assert cache.read(origin, "3.jpg") == b"\3" * 100
    assert file.read_bytes() == b"\3" * 100


def test_a_folder_that_others_can_write_is_neither_read_nor_written(origin, tmp_path):
    cache = Cache(tmp_path / "cache", 1000)
    cache.read(origin, "3.jpg")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"\7" * 100)
    (tmp_path / "cache").chmod(0o777)
    assert cache.read(origin, "3.jpg") == b"\3" * 100
    assert cache.read(origin, "4.jpg") == b"\4" * 100
    assert kept(tmp_path / "cache") == [7]


def test_threads_share_it(origin, tmp_path):
    cache, wrong = Cache(tmp_path / "cache", 350), []

    def read() -> None:
        for number in list(range(10)) * 10:
            if cache.read(origin, f"{number}.jpg") != bytes([number]) * 100:
                wrong.append(number)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []
    assert not [path for path in (tmp_path / "cache").iterdir() if path.name.startswith(".part-")]


def test_what_is_not_there_is_named(origin, tmp_path):
    with pytest.raises(VwlError, match=r"cannot read .*/none\.jpg: No such file or directory"):
        Cache(tmp_path / "cache", 1000).read(origin, "none.jpg")


def test_a_disk_of_this_machine_is_not_copied(origin, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    assert read_cached(origin, "1.jpg") == b"\1" * 100
    assert not (tmp_path / "temporary").exists()
