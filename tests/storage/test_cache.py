"""The cache of a node: it returns its origin's bytes, keeps to its limit, and ignores folders that other users can write."""

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


def cached_numbers(folder: Path) -> list[int]:
    """Return the first byte of every cached file, sorted: the numbers of the images."""
    return sorted(path.read_bytes()[0] for path in folder.iterdir()) if folder.exists() else []


def test_a_file_is_read_from_the_cache_the_second_time(origin, tmp_path):
    cache = Cache(tmp_path / "cache", 1000)
    assert cache.read(origin, "3.jpg") == b"\3" * 100
    Path(origin.path, "3.jpg").unlink()
    assert cache.read(origin, "3.jpg") == b"\3" * 100
    assert cached_numbers(tmp_path / "cache") == [3]
    assert (tmp_path / "cache").stat().st_mode & 0o077 == 0


def test_processes_share_the_cache_and_a_replaced_image_is_read_again(origin, tmp_path):
    Cache(tmp_path / "cache", 1000).read(origin, "3.jpg")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"\7" * 100)  # other bytes show that the cached file is read
    assert Cache(tmp_path / "cache", 1000).read(origin, "3.jpg") == b"\7" * 100
    origin.write("3.jpg", b"\5" * 101)
    assert Cache(tmp_path / "cache", 1000).read(origin, "3.jpg") == b"\5" * 101


def test_the_least_recently_used_files_are_deleted_at_the_limit(origin, tmp_path):
    cache = Cache(tmp_path / "cache", 550)
    for number in (0, 1, 2, 3, 4):
        cache.read(origin, f"{number}.jpg")
        for age, file in enumerate(sorted((tmp_path / "cache").iterdir(), key=lambda path: path.stat().st_mtime_ns)):
            os.utime(file, ns=(0, 10**9 * age))  # file times are too coarse to order these files
    cache.read(origin, "0.jpg")
    cache.read(origin, "5.jpg")
    assert cached_numbers(tmp_path / "cache") == [0, 3, 4, 5]  # deleted down to 90 % of the limit
    assert all(cache.read(origin, f"{number}.jpg") == bytes([number]) * 100 for number in range(10))
    assert sum(file.stat().st_size for file in (tmp_path / "cache").iterdir()) <= 550


def test_a_file_larger_than_the_limit_is_not_cached(origin, tmp_path):
    assert Cache(tmp_path / "cache", 99).read(origin, "1.jpg") == b"\1" * 100
    assert cached_numbers(tmp_path / "cache") == []


def test_a_truncated_cached_file_is_read_again_from_its_origin(origin, tmp_path):
    cache = Cache(tmp_path / "cache", 1000)
    cache.read(origin, "3.jpg")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"\3")
    assert cache.read(origin, "3.jpg") == b"\3" * 100
    assert file.read_bytes() == b"\3" * 100


def test_a_cache_folder_that_other_users_can_write_is_not_used(origin, tmp_path):
    cache = Cache(tmp_path / "cache", 1000)
    cache.read(origin, "3.jpg")
    (file,) = (tmp_path / "cache").iterdir()
    file.write_bytes(b"\7" * 100)
    (tmp_path / "cache").chmod(0o777)
    assert cache.read(origin, "3.jpg") == b"\3" * 100
    assert cache.read(origin, "4.jpg") == b"\4" * 100
    assert cached_numbers(tmp_path / "cache") == [7]


def test_threads_share_the_cache(origin, tmp_path):
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


def test_a_missing_file_is_named(origin, tmp_path):
    with pytest.raises(VwlError, match=r"cannot read .*/none\.jpg: No such file or directory"):
        Cache(tmp_path / "cache", 1000).read(origin, "none.jpg")


def test_local_files_are_not_cached(origin, tmp_path, monkeypatch):
    monkeypatch.setattr(cache.tempfile, "gettempdir", lambda: str(tmp_path / "temporary"))
    assert read_cached(origin, "1.jpg") == b"\1" * 100
    assert not (tmp_path / "temporary").exists()


def writer(contents: list[bytes], calls: list[int]):
    def write(paths, check_room):
        calls.append(1)
        for path, content in zip(paths, contents, strict=True):
            path.write_bytes(content)
            check_room()

    return write


class TestFilesThatAreMadeOnce:
    def test_they_are_made_by_the_first_and_found_by_the_others(self, tmp_path):
        calls: list[int] = []
        for _ in range(2):
            paths = Cache(tmp_path / "cache", 1000).make(["a", "b"], writer([b"1", b"22"], calls))
            assert [path.read_bytes() for path in paths] == [b"1", b"22"]
        assert calls == [1]

    def test_they_are_made_again_if_one_is_gone(self, tmp_path):
        calls: list[int] = []
        node_cache = Cache(tmp_path / "cache", 1000)
        first = node_cache.make(["a", "b"], writer([b"1", b"22"], calls))
        first[1].unlink()
        assert [path.read_bytes() for path in node_cache.make(["a", "b"], writer([b"1", b"22"], calls))] == [b"1", b"22"]
        assert calls == [1, 1]

    @pytest.mark.parametrize("limit", [0, 2])
    def test_what_is_larger_than_the_limit_is_not_kept(self, tmp_path, limit):
        assert Cache(tmp_path / "cache", limit).make(["a", "b"], writer([b"1", b"22"], [])) is None
        assert not list((tmp_path / "cache").glob("[!.]*")) if limit else not (tmp_path / "cache").exists()
        assert not list(tmp_path.rglob(".part-*"))

    def test_the_least_recently_used_files_make_room_for_them(self, origin, tmp_path):
        node_cache = Cache(tmp_path / "cache", 250)
        for number in (1, 2):
            node_cache.read(origin, f"{number}.jpg")
        old = next(path for path in (tmp_path / "cache").iterdir() if path.read_bytes()[0] == 1)
        os.utime(old, (0, 0))
        (made,) = node_cache.make(["a"], writer([b"x" * 90], []))
        assert made.exists()
        assert not old.exists()

    def test_an_error_of_who_makes_them_is_passed_on_and_leaves_nothing(self, tmp_path):
        def fail(paths, check_room):
            paths[0].write_bytes(b"half")
            raise VwlError("row 3 is wrong")

        with pytest.raises(VwlError, match="row 3 is wrong"):
            Cache(tmp_path / "cache", 1000).make(["a"], fail)
        assert [path.name for path in (tmp_path / "cache").iterdir()] == [".lock-a"]
