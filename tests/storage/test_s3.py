"""Folders on an S3 server: they behave as on a disk, and calls made while the server is down succeed when it is up again."""

import os
import pickle
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from pyarrow import fs

from tests.helpers import tiny_scenes
from tests.s3 import S3Server, copy_tree, serving
from vwl.constants import map_size
from vwl.data.index import make_index, read_index, write_index
from vwl.errors import Unreachable, VwlError
from vwl.storage.folder import Folder
from vwl.storage.score_maps import MapReader, ScoreMap, write_maps


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def folder(server, request) -> Folder:
    return Folder(server.uri(request.node.name))


def files_below(folder: Folder) -> list[str]:
    infos = folder.filesystem.get_file_info(fs.FileSelector(folder.path, recursive=True, allow_not_found=True))
    return sorted(info.path.removeprefix(f"{folder.path}/") for info in infos if info.is_file)


def test_files_and_folders_behave_as_on_a_disk(folder):
    assert not folder.exists()
    assert folder.names() == []
    folder.write("maps/a.bin", b"\x00\xff")
    (folder / "maps").write("b?c d.bin", b"b")
    assert folder.exists()
    assert folder.read("maps/a.bin") == b"\x00\xff"
    assert (folder / "maps").names(".bin") == ["a.bin", "b?c d.bin"]
    assert pickle.loads(pickle.dumps(folder / "maps")).read("b?c d.bin") == b"b"  # noqa: S301
    folder.append("log.txt", "one\n")
    folder.append("log.txt", "two\n")
    assert folder.read("log.txt") == b"one\ntwo\n"
    assert files_below(folder) == ["log.txt", "maps/a.bin", "maps/b?c d.bin"]
    folder.delete("log.txt")
    folder.delete("log.txt")
    assert not folder.exists("log.txt")
    (folder / "maps").clear()
    assert (folder / "maps").names() == []


def test_temporary_files_of_killed_writers_are_not_listed_and_are_swept(folder):
    with folder.filesystem.open_output_stream(f"{folder.path}/below/.part-0-a") as stream:
        stream.write(b"half")
    folder.write("below/a", b"whole")
    assert (folder / "below").names() == ["a"]
    folder.sweep()
    assert files_below(folder) == ["below/a"]


def test_a_missing_file_or_bucket_is_an_error_without_retries(server, folder):
    with pytest.raises(VwlError, match=r"cannot read s3://bucket/\S+/a\?endpoint_override=\S+: No such file or directory"):
        folder.read("a")
    with pytest.raises(VwlError, match=r"cannot write s3://.*NO_SUCH_BUCKET") as caught:
        Folder(server.uri("").replace("//bucket", "//none")).write("a", b"")
    assert not isinstance(caught.value, Unreachable)


def test_maps_and_index_are_read_in_any_order(folder, tmp_path):
    index = tiny_scenes(tmp_path / "scenes", 3, 1)
    copy_tree(tmp_path / "scenes", folder / "scenes")
    there = make_index(index.rows, index.classes, folder / "scenes", index.source)
    write_index(there, (folder / "data").uri_of("index.parquet"))
    read = read_index((folder / "data").uri_of("index.parquet"))
    assert read.fingerprint() == index.fingerprint()
    maps = [ScoreMap(row.image_id, (1,), 40, 56, np.full((1, *map_size(40, 56)), n, np.float16)) for n, row in enumerate(index.rows)]
    write_maps(folder, "part-0.parquet", maps[:2])
    write_maps(folder, "part-1.parquet", maps[2:])
    reader = MapReader(folder)
    assert [float(reader.read(m.image_id).values.max()) for m in reversed(maps)] == [3, 2, 1, 0]


def test_images_and_masks_are_read_from_the_server_once(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "temporary"))
    index = tiny_scenes(tmp_path / "scenes", 2, 0)
    copy_tree(tmp_path / "scenes", folder)
    there = make_index(index.rows, index.classes, folder, index.source)
    for _ in range(2):
        for row in index.rows:
            assert there.read_image(row).tobytes() == index.read_image(row).tobytes()
            assert np.array_equal(there.read_mask(row), index.read_mask(row))
        folder.clear()  # the second round reads only the cache
    kept = list((tmp_path / "temporary" / f"vwl-cache-{os.getuid()}").iterdir())
    assert len(kept) == 4


def test_calls_during_an_outage_succeed_when_the_server_is_up_again(server, folder):
    folder.write("a", b"before")
    done: list[str] = []

    def work() -> None:
        folder.write("a", b"after" * 1_000_000)
        done.append("written")
        assert folder.read("a") == b"after" * 1_000_000
        done.append("read")

    with server.away():
        thread = threading.Thread(target=work)
        thread.start()
        thread.join(timeout=5)
        assert done == []
    thread.join(timeout=200)
    assert done == ["written", "read"]
    folder.sweep()
    assert files_below(folder) == ["a"]
