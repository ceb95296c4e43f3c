"""Which shards are finished: those whose files are there with the content that was written."""

import json
from pathlib import Path

import pytest

from tests.inference.test_runner import Bright, Brightness, truncate
from vwl.inference.runner import SHARD_SIZE, Shard, process, shards, unfinished
from vwl.inference.shard_files import check_shards, expected_files, forget
from vwl.storage.record import stored_file


@pytest.fixture(params=[Bright, Brightness])
def maps(request, index, out) -> bool:
    """A stage of masks and one of score maps, with all shards done; whether it leaves maps."""
    truncate(index, index.rows[2])
    for shard in shards(index.rows):
        process(request.param(index), shard, out)
    return request.param is Brightness


def test_whole_shards_have_no_faults_and_their_files_are_the_expected_ones(index, out, maps):
    found = check_shards(shards(index.rows), out, maps)
    assert (found.faults, list(found.failed)) == ({}, [index.rows[2].image_id])
    assert set(found.files) == {name for shard in shards(index.rows) for name in expected_files(shard, maps, found.failed)}
    assert found.files == {name: stored_file(out, name) for name in found.files}


@pytest.mark.parametrize("content", [None, b"", b"changed"])
def test_a_shard_with_a_faulty_file_is_forgotten_and_the_others_are_kept(index, out, maps, content):
    everything = shards(index.rows)
    name = "part-00001.parquet" if maps else f"{index.rows[SHARD_SIZE].image_id}.png"
    path = Path(out.path, name)
    path.unlink() if content is None else path.write_bytes(content)
    found = check_shards(everything, out, maps)
    assert list(found.faults) == [name]
    assert set(found.files) == {name for n in (0, 2) for name in expected_files(everything[n], maps, found.failed)}
    forget(everything, out, maps, found.faults)
    assert unfinished(everything, out) == [everything[1]]
    assert not path.exists()


def test_content_that_was_changed_after_the_marker_was_written_is_a_fault(index, out, maps):
    name = "part-00001.parquet" if maps else f"{index.rows[SHARD_SIZE].image_id}.png"
    data = bytearray(out.read(name))
    data[40] ^= 1
    Path(out.path, name).write_bytes(data)
    assert check_shards(shards(index.rows), out, maps).faults == {name: "is damaged: its content has changed since it was written"}


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[]", b"{}", b'{"failed": 3}', b'{"failed": {}, "files": {"a": 1}}', b'{"failed": {}, "files": 7}']
)
def test_a_damaged_marker_is_a_fault(index, out, maps, content):
    (out / "done").write("00001.json", content)
    assert check_shards(shards(index.rows), out, maps).faults == {"done/00001.json": "is damaged"}


def test_a_marker_of_other_images_is_a_fault(index, out, maps):
    other = shards(index.rows[1:])
    assert set(check_shards(other, out, maps).faults) == {f"done/{shard.marker}" for shard in other}


def test_a_marker_of_an_earlier_version_counts_if_the_expected_files_are_there(index, out, maps):
    for name in (out / "done").names():
        stored = json.loads((out / "done").read(name))
        (out / "done").write_json(name, {key: stored[key] for key in ("images", "failed")})
    found = check_shards(shards(index.rows), out, maps)
    assert (found.faults, len(found.failed)) == ({}, 1)
    assert {file.digest for name, file in found.files.items() if not name.startswith("done/")} == {""}
    name = "part-00002.parquet" if maps else f"{index.rows[-1].image_id}.png"
    out.delete(name)
    assert check_shards(shards(index.rows), out, maps).faults == {name: "is missing"}


def test_shards_without_a_marker_have_no_faults(out):
    assert check_shards([Shard(0, ())], out, maps=True).faults == {}


def test_groups_are_cut_each_by_itself_so_that_another_group_changes_none_before_it(index):
    first, second = index.rows[: SHARD_SIZE + 1], index.rows[SHARD_SIZE + 1 :]
    both = shards(first, second)
    assert both[:2] == shards(first)
    assert [row for shard in both for row in shard.rows] == list(index.rows)
    assert [shard.number for shard in both] == list(range(len(both)))


@pytest.fixture
def many(index, out) -> list[Shard]:
    """Two shards of masks that are larger than those of small data sets, of which an image failed."""
    truncate(index, index.rows[2])
    found = shards(index.rows, sizes=[2 * SHARD_SIZE])
    for shard in found:
        process(Bright(index), shard, out)
    return found


def test_of_many_masks_only_the_markers_are_recorded(index, out, many):
    found = check_shards(many, out, maps=False)
    assert (found.faults, list(found.failed)) == ({}, [index.rows[2].image_id])
    assert found.files == {name: stored_file(out, name) for name in ("done/00000.json", "done/00001.json")}


@pytest.mark.parametrize("content", [None, b"", b"changed"])
def test_one_faulty_mask_of_many_is_found(index, out, many, content):
    path = Path(out.path, f"{index.rows[20].image_id}.png")
    path.unlink() if content is None else path.write_bytes(content)
    found = check_shards(many, out, maps=False)
    assert (list(found.faults), list(found.files)) == ([path.name], ["done/00001.json"])
    forget(many, out, False, found.faults)
    assert unfinished(many, out) == [many[0]]
