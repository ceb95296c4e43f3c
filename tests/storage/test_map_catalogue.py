"""Where a map lies is known from the catalogue, and found without it: the same maps, whatever happened to that file."""

import os
import pickle
import zlib
from pathlib import Path

import pytest

from tests.storage.test_score_maps import assert_same, score_map
from vwl.errors import Damaged, VwlError
from vwl.storage.folder import Folder
from vwl.storage.map_catalogue import NAME, make_catalogue, part_name, read_catalogue, write_catalogue
from vwl.storage.record import Record, write_record
from vwl.storage.score_maps import MapReader, write_maps

SHARDS = [[f"i{3 * shard + n}" for n in range(3)] for shard in range(8)]
IDS = [image_id for shard in SHARDS for image_id in shard]
SAME_CRC = ("plumless", "buckeroo")


@pytest.fixture
def folder(tmp_path) -> Folder:
    """A stage of eight shards of maps, of which the image i4 failed."""
    folder = Folder(tmp_path / "cam")
    for number, ids in enumerate(SHARDS):
        write_maps(folder, part_name(number), [score_map(i, (1,), 9, 9, int(i[1:])) for i in ids if i != "i4"])
    write_record(folder, Record({"fingerprint": "of the stage"}))
    write_catalogue(folder, make_catalogue(SHARDS), "of the stage")
    return folder


def opened_files(monkeypatch) -> list[str]:
    """Return a list that the names of the score map files which are opened from now on are added to."""
    names: list[str] = []
    opened = Folder.open
    monkeypatch.setattr(Folder, "open", lambda folder, name: (names.append(name), opened(folder, name))[1])
    return names


def test_only_the_file_of_an_image_is_opened(folder, monkeypatch):
    names = opened_files(monkeypatch)
    reader = MapReader(folder)
    for image_id in ("i22", "i21", "i3"):
        assert_same(reader.read(image_id), score_map(image_id, (1,), 9, 9, int(image_id[1:])))
    assert set(names) == {part_name(7), part_name(1)}
    assert len(names) < len(SHARDS)


def test_an_image_that_failed_and_one_of_no_shard_have_no_maps(folder, monkeypatch):
    names = opened_files(monkeypatch)
    reader = MapReader(folder)
    assert [image_id in reader for image_id in ("i3", "i4", "other")] == [True, False, False]
    for image_id in ("i4", "other"):
        with pytest.raises(VwlError, match=f"has no score map of image {image_id}; run its stage first"):
            reader.read(image_id)
    assert set(names) == {part_name(1)}


def test_a_shard_that_is_not_finished_has_no_maps_yet(folder):
    Path(folder.path, part_name(2)).unlink()
    reader = MapReader(folder)
    assert [image_id in reader for image_id in ("i5", "i6", "i9")] == [True, False, True]
    write_maps(folder, part_name(2), [score_map("i6", (1,), 9, 9)])
    assert "i6" in reader


def truncated(folder: Folder) -> None:
    folder.write(NAME, folder.read(NAME)[:-30])


def a_pipe(folder: Folder) -> None:
    folder.delete(NAME)
    os.mkfifo(Path(folder.path, NAME))


def of_another_stage(folder: Folder) -> None:
    write_catalogue(folder, make_catalogue([IDS]), "of another stage")


def without_a_file(folder: Folder) -> None:
    write_catalogue(folder, make_catalogue(SHARDS[:5]), "of the stage")


@pytest.mark.parametrize(
    "harm",
    [lambda folder: folder.delete(NAME), lambda folder: folder.write(NAME, b""), truncated, a_pipe, of_another_stage, without_a_file],
)
def test_without_a_right_catalogue_the_maps_are_found_by_opening_the_files(folder, harm):
    harm(folder)
    reader = MapReader(folder)
    for image_id in IDS:
        if image_id == "i4":
            assert image_id not in reader
        else:
            assert_same(reader.read(image_id), score_map(image_id, (1,), 9, 9, int(image_id[1:])))


def test_a_changed_catalogue_does_not_fit_its_digest(folder):
    data = bytearray(folder.read(NAME))
    at = bytes(data).find(make_catalogue(SHARDS)._crcs.tobytes())
    assert at > 0
    data[at + 2] ^= 1
    folder.write(NAME, bytes(data))
    assert read_catalogue(folder, "of the stage") is None


def test_a_damaged_file_keeps_only_its_own_images_from_being_read(folder):
    Path(folder.path, part_name(1)).write_bytes(b"PAR1")
    reader = MapReader(folder)
    for image_id in ("i3", "i5"):
        with pytest.raises(Damaged, match=part_name(1)):
            reader.read(image_id)
        assert image_id not in reader
    assert_same(reader.read("i6"), score_map("i6", (1,), 9, 9, 6))
    with pytest.raises(VwlError, match="run its stage first"):
        reader.read("other")


def test_images_with_the_same_crc_are_told_apart(tmp_path):
    assert zlib.crc32(SAME_CRC[0].encode()) == zlib.crc32(SAME_CRC[1].encode())
    folder = Folder(tmp_path / "cam")
    for number, image_id in enumerate(SAME_CRC):
        write_maps(folder, part_name(number), [score_map(image_id, (1,), 9, 9, number)])
    write_record(folder, Record({"fingerprint": "f"}))
    write_catalogue(folder, make_catalogue([[image_id] for image_id in SAME_CRC]), "f")
    catalogue = read_catalogue(folder, "f")
    assert catalogue is not None
    assert catalogue.shards_of(SAME_CRC[0]) == [0, 1]
    for number, image_id in enumerate(SAME_CRC):
        assert_same(MapReader(folder).read(image_id), score_map(image_id, (1,), 9, 9, number))


def test_a_catalogue_knows_every_image_and_takes_eight_bytes_for_each(tmp_path):
    shards = [[f"image {shard}-{n}" for n in range(100)] for shard in range(1000)]
    write_catalogue(Folder(tmp_path), make_catalogue(shards), "f")
    found = read_catalogue(Folder(tmp_path), "f")
    assert found is not None
    assert (len(found), found.num_shards) == (100_000, 1000)
    assert all(number in found.shards_of(shards[number][number % 100]) for number in range(1000))
    assert Path(tmp_path, NAME).stat().st_size < 100_000 * 8 + 2000


def test_an_empty_stage_has_an_empty_catalogue(tmp_path):
    write_catalogue(Folder(tmp_path), make_catalogue([]), "f")
    found = read_catalogue(Folder(tmp_path), "f")
    assert found is not None
    assert (len(found), found.num_shards, found.shards_of("a")) == (0, 0, [])


def test_a_reader_that_has_read_is_sent_to_another_process_without_what_it_has_read(folder):
    reader = MapReader(folder, {1: 0.5})
    size = len(pickle.dumps(reader))
    assert len(reader) == len(IDS) - 1
    before = reader.read("i9")
    assert len(pickle.dumps(reader)) == size
    copy = pickle.loads(pickle.dumps(reader)).read("i9")  # noqa: S301
    assert copy.values.tobytes() == before.values.tobytes()


def test_a_reader_keeps_the_footers_of_few_files(folder, monkeypatch):
    monkeypatch.setattr("vwl.storage.score_maps._KEPT", 2)
    reader = MapReader(folder)
    for image_id in [*IDS[5:], *IDS[5:]]:
        assert reader.read(image_id).image_id == image_id
    assert len(reader._footers) == len(reader._rows_of) == 2
