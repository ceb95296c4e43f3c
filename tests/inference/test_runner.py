"""Shards: fixed slices of the images, written whole or not at all, with what failed and why."""

import pickle
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from vwl.constants import map_size
from vwl.data.index import Index, Row, write_index
from vwl.errors import Damaged, VwlError
from vwl.inference.runner import MAX_SHARDS, SHARD_SIZE, Shard, process, shard_size, shards, unfinished, waiting_images
from vwl.inference.shard_files import check_shards
from vwl.inference.stage import Stage
from vwl.storage.checked import digest, read_checked
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask
from vwl.storage.score_maps import MapReader, ScoreMap


class Bright(Stage):
    """Masks of the bright pixels."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def __call__(self, row: Row) -> np.ndarray:
        return (np.asarray(self.index.read_image(row)).mean(axis=2) > 128).astype(np.uint8)


class Brightness(Bright):
    """Maps of how bright the pixels are."""

    def __call__(self, row: Row) -> ScoreMap:
        grey = np.asarray(self.index.read_image(row)).mean(axis=2) / 255
        height, width = grey.shape
        return ScoreMap(row.image_id, (1,), height, width, grey[None, ::4, ::4].astype(np.float16))


def contents(out: Folder) -> dict[str, bytes]:
    return {str(path.relative_to(out.path)): path.read_bytes() for path in sorted(Path(out.path).rglob("*")) if path.is_file()}


def truncate(index: Index, row: Row) -> None:
    path = Path(index.root.path, row.image)
    path.write_bytes(path.read_bytes()[:60])


def test_shards_are_fixed_slices_that_hold_every_image_once(index):
    found = shards(index.rows)
    assert [shard.number for shard in found] == [0, 1, 2]
    assert [len(shard.rows) for shard in found] == [SHARD_SIZE, SHARD_SIZE, 3]
    assert [row for shard in found for row in shard.rows] == list(index.rows)
    assert shards(index.rows[: SHARD_SIZE + 1])[0] == found[0]


def test_no_images_make_no_shards():
    assert shards([]) == []


@pytest.mark.parametrize(
    ("images", "size"), [(0, 16), (1, 16), (320_000, 16), (320_001, 32), (640_000, 32), (640_001, 48), (1_000_000, 64), (10_000_000, 512)]
)
def test_shards_grow_with_the_data_set_above_a_limit_of_their_number(images, size):
    assert shard_size(images) == size
    assert images <= size * MAX_SHARDS


def test_each_group_has_shards_of_its_own_size(index):
    found = shards(index.rows[:9], index.rows[9:14], sizes=[4, 2])
    assert [len(shard.rows) for shard in found] == [4, 4, 1, 2, 2, 1]
    assert [shard.number for shard in found] == list(range(6))
    assert [row for shard in found for row in shard.rows] == list(index.rows[:14])


def test_a_shard_travels_with_its_own_rows_only(index):
    everything = shards(index.rows)
    for shard in everything:
        assert pickle.loads(pickle.dumps(shard)) == shard  # noqa: S301
    assert len(pickle.dumps(everything[2])) < len(pickle.dumps(Shard(0, index.rows)))


def test_a_shard_of_masks_is_a_png_an_image_and_its_done_file(index, out):
    shard = shards(index.rows)[2]
    assert process(Bright(index), shard, out) == {}
    assert set(contents(out)) == {"done/00002.json", *(f"{row.image_id}.png" for row in shard.rows)}
    for row in shard.rows:
        np.testing.assert_array_equal(decode_mask(out.read(f"{row.image_id}.png"), ""), Bright(index)(row))
    files = {name: [len(data), digest(data)] for name, data in contents(out).items() if name.endswith(".png")}
    assert read_checked(out / "done", "00002.json") == {"images": 3, "failed": {}, "ids": shard.images_digest, "files": files}


def test_a_shard_of_maps_is_one_file_and_its_done_file(index, out):
    shard = shards(index.rows)[0]
    process(Brightness(index), shard, out)
    assert set(contents(out)) == {"done/00000.json", "part-00000.parquet"}
    reader = MapReader(out)
    assert len(reader) == SHARD_SIZE
    for row in shard.rows:
        found = reader.read(row.image_id)
        assert found.values.shape == (1, *map_size(found.height, found.width))
        np.testing.assert_array_equal(found.values, Brightness(index)(row).values)


@pytest.mark.parametrize("kind", [Bright, Brightness])
def test_an_image_that_cannot_be_read_is_listed_and_the_others_are_kept(index, out, kind):
    broken, gone = index.rows[3], index.rows[5]
    truncate(index, broken)
    Path(index.root.path, gone.image).unlink()
    failed = process(kind(index), shards(index.rows)[0], out)
    assert list(failed) == [broken.image_id, gone.image_id]
    assert broken.image in failed[broken.image_id]
    assert gone.image in failed[gone.image_id]
    assert read_checked(out / "done", "00000.json")["failed"] == failed
    there = {*MapReader(out).locations, *(name.removesuffix(".png") for name in out.names(".png"))}
    assert there == {row.image_id for row in index.rows[:SHARD_SIZE]} - failed.keys()


def test_a_shard_of_which_every_image_failed_is_done_and_leaves_no_maps(index, out):
    for row in index.rows[-3:]:
        truncate(index, row)
    assert len(process(Brightness(index), shards(index.rows)[2], out)) == 3
    assert set(contents(out)) == {"done/00002.json"}


def test_failures_are_those_of_all_shards(index, out):
    assert check_shards(shards(index.rows), out, maps=False).failed == {}
    bad = [index.rows[0], index.rows[SHARD_SIZE]]
    for row in bad:
        truncate(index, row)
    found = {}
    for shard in shards(index.rows):
        found |= process(Bright(index), shard, out)
    assert list(found) == [row.image_id for row in bad]
    assert check_shards(shards(index.rows), out, maps=False).failed == found


def test_what_is_left_to_do_are_the_shards_without_a_done_file(index, out):
    everything = shards(index.rows)
    assert unfinished(everything, out) == everything
    process(Bright(index), everything[1], out)
    assert unfinished(everything, out) == [everything[0], everything[2]]


@pytest.mark.parametrize("kind", [Bright, Brightness])
def test_a_shard_without_its_done_file_is_done_again_with_the_same_bytes(index, out, kind):
    everything = shards(index.rows)
    for shard in everything:
        process(kind(index), shard, out)
    before = contents(out)
    out.delete("done/00001.json")
    for name in [name for name in before if name in {"part-00001.parquet", f"{everything[1].rows[4].image_id}.png"}]:
        out.delete(name)
    (todo,) = unfinished(everything, out)
    process(kind(index), todo, out)
    assert contents(out) == before


def test_the_bytes_do_not_depend_on_the_order_of_the_shards(index, out, tmp_path):
    for shard in shards(index.rows):
        process(Brightness(index), shard, out)
    for shard in reversed(shards(index.rows)):
        process(Brightness(index), shard, Folder(tmp_path / "other"))
    assert contents(Folder(tmp_path / "other")) == contents(out)


def test_nothing_is_left_under_a_temporary_name(index, out):
    truncate(index, index.rows[1])
    for kind in (Bright, Brightness):
        for shard in shards(index.rows):
            process(kind(index), shard, out)
    assert [name for name in contents(out) if "part-" in name and not name.startswith("part-0")] == []


def test_results_that_cannot_be_written_leave_the_shard_undone(index, tmp_path):
    (tmp_path / "file").write_text("in the way")
    shard = shards(index.rows)[0]
    with pytest.raises(VwlError, match="cannot write"):
        process(Bright(index), shard, Folder(tmp_path / "file" / "out"))


def test_a_bug_in_a_stage_is_not_taken_for_a_bad_image(index, out):
    class Buggy(Bright):
        def __call__(self, row: Row) -> np.ndarray:
            return super().__call__(row)[5]  # a row of pixels is no mask

    with pytest.raises(AssertionError):
        process(Buggy(index), Shard(0, index.rows[:2]), out)
    assert set(contents(out)) == {"begun/00000.json"}


def test_with_strict_the_first_image_that_fails_stops_the_shard(index, out):
    truncate(index, index.rows[3])
    with pytest.raises(VwlError, match=rf"image {index.rows[3].image_id}: .*; fix it, or leave --strict out"):
        process(Bright(index), shards(index.rows)[0], out, strict=True)
    assert unfinished(shards(index.rows), out) == shards(index.rows)


FATAL = """
import os, signal, sys
from tests.inference.test_runner import Bright, Shard, process
from vwl.data.index import read_index
from vwl.storage.folder import Folder

class Fatal(Bright):
    def __call__(self, row):
        if row.image_id == "p01":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().__call__(row)

index = read_index(sys.argv[1])
print(process(Fatal(index), Shard(0, index.rows[:4]), Folder(sys.argv[2])))
"""


def test_an_image_that_crashes_its_process_twice_is_listed_and_the_others_are_processed(index, out, tmp_path):
    write_index(index, tmp_path / "index.parquet")
    command = [sys.executable, "-c", FATAL, str(tmp_path / "index.parquet"), out.path]
    starts = [subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True) for _ in range(4)]
    assert [start.returncode for start in starts] == [-signal.SIGKILL] * 3 + [0], starts[-1].stderr
    assert starts[-1].stdout == "{'p01': 'its process crashed 2 times'}\n"
    assert check_shards([Shard(0, index.rows[:4])], out, maps=False).failed == {"p01": "its process crashed 2 times"}
    assert out.names(".png") == ["p00.png", "p02.png", "p03.png"]
    assert (out / "begun").names() == []


def test_one_crash_or_an_interrupt_does_not_fail_an_image(index, out):
    shard = shards(index.rows)[2]
    (out / "begun").write_json("00002.json", {"starts": 2, "image": shard.rows[1].image_id, "crashes": {}})

    class Interrupted(Bright):
        def __call__(self, row: Row) -> np.ndarray:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        process(Interrupted(index), shard, out)
    assert process(Bright(index), shard, out) == {}
    assert len(out.names(".png")) == 3


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'{"starts": 1, "image": null, "crashes": {}, "checksum": "0"}'])
def test_a_damaged_record_of_a_killed_process_does_not_keep_the_shard_from_running(index, out, content):
    shard = shards(index.rows)[2]
    (out / "begun").write("00002.json", content)
    assert process(Bright(index), shard, out) == {}
    assert (out / "begun").names() == []


def test_a_damaged_file_of_an_earlier_stage_leaves_its_shard_unfinished_and_the_reason(index, out):
    class Reading(Bright):
        damaged = True

        def __call__(self, row: Row) -> np.ndarray:
            if self.damaged and row == index.rows[1]:
                raise Damaged("maps.parquet is damaged")
            return super().__call__(row)

    stage, everything = Reading(index), shards(index.rows)
    for shard in everything:
        process(stage, shard, out)
    assert unfinished(everything, out) == [everything[0]]
    assert waiting_images(everything, out) == {"p01": "maps.parquet is damaged"}
    stage.damaged = False
    assert process(stage, everything[0], out) == {}
    assert (unfinished(everything, out), waiting_images(everything, out), (out / "begun").names()) == ([], {}, [])
