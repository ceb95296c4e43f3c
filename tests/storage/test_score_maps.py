"""Score maps are read back from their shards bit for bit, and a damaged shard is named."""

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vwl.constants import map_size
from vwl.errors import Damaged, VwlError
from vwl.storage.folder import Folder
from vwl.storage.record import Record, stored_file, write_record
from vwl.storage.score_maps import MapReader, ScoreMap, write_maps


def score_map(image_id: str, classes: tuple[int, ...], height: int, width: int, seed: int = 0) -> ScoreMap:
    """Return maps of random bits: any float16, NaN and negative zero included."""
    bits = np.random.default_rng(seed).integers(0, 2**16, (len(classes), *map_size(height, width)), dtype=np.uint16)
    return ScoreMap(image_id, classes, height, width, bits.view(np.float16))


def assert_same(one: ScoreMap, other: ScoreMap) -> None:
    assert (one.image_id, one.classes, one.height, one.width) == (other.image_id, other.classes, other.height, other.width)
    assert one.values.dtype == other.values.dtype == np.float16
    assert one.values.shape == other.values.shape
    assert one.values.tobytes() == other.values.tobytes()


@settings(max_examples=30, deadline=None)
@given(
    sizes=st.lists(
        st.tuples(st.integers(1, 33), st.integers(1, 33), st.lists(st.integers(0, 90), max_size=3, unique=True).map(sorted)), max_size=4
    )
)
def test_maps_are_read_back_bit_for_bit(sizes, tmp_path_factory):
    folder = Folder(tmp_path_factory.mktemp("maps"))
    maps = [score_map(f"i{n}", tuple(classes), h, w, seed=n) for n, (h, w, classes) in enumerate(sizes)]
    write_maps(folder, "s.parquet", maps)
    reader = MapReader(folder)
    assert len(reader) == len(maps)
    for m in maps:
        assert_same(reader.read(m.image_id), m)


@pytest.mark.parametrize(("pixels", "cells"), [(1, 1), (4, 1), (5, 2), (500, 125), (375, 94)])
def test_the_size_of_a_map_is_a_quarter_of_the_image_rounded_up(pixels, cells):
    assert map_size(pixels, 4) == (cells, 1)
    assert map_size(4, pixels) == (1, cells)


def test_equal_maps_give_equal_bytes(tmp_path):
    maps = [score_map("a", (1, 5), 30, 41), score_map("b", (), 7, 7)]
    write_maps(Folder(tmp_path), "one.parquet", maps)
    write_maps(Folder(tmp_path), "two.parquet", maps)
    assert (tmp_path / "one.parquet").read_bytes() == (tmp_path / "two.parquet").read_bytes()


def test_a_map_that_does_not_fit_its_image_is_refused(tmp_path):
    good = score_map("a", (1,), 30, 41)
    with pytest.raises(ValueError, match="map of a has shape"):
        write_maps(Folder(tmp_path), "s.parquet", [ScoreMap("a", (1,), 30, 60, good.values)])
    assert Folder(tmp_path).names() == []


def test_images_of_several_shards_are_read_in_any_order(tmp_path):
    maps = {f"i{n}": score_map(f"i{n}", (n,), 16 + n, 20, seed=n) for n in range(9)}
    for shard in range(3):
        write_maps(Folder(tmp_path), f"{shard}.parquet", list(maps.values())[3 * shard : 3 * shard + 3])
    reader = MapReader(Folder(tmp_path))
    assert "i4" in reader
    assert "i9" not in reader
    for image_id in ["i8", "i0", "i4", "i4", "i1", "i7"]:
        assert_same(reader.read(image_id), maps[image_id])


def test_a_reader_can_be_sent_to_another_process_at_any_time(tmp_path):
    m = score_map("a", (1, 2), 17, 9)
    write_maps(Folder(tmp_path), "s.parquet", [m])
    reader = MapReader(Folder(tmp_path))
    for _ in range(2):
        assert_same(pickle.loads(pickle.dumps(reader)).read("a"), m)  # noqa: S301
        assert_same(reader.read("a"), m)


def test_an_image_without_maps_is_named(tmp_path):
    write_maps(Folder(tmp_path), "s.parquet", [score_map("a", (1,), 8, 8)])
    with pytest.raises(VwlError, match=f"{tmp_path} has no score map of image b; run its stage first"):
        MapReader(Folder(tmp_path)).read("b")


@pytest.mark.parametrize("keep", [0, 7, 200])
def test_a_truncated_shard_is_named(keep, tmp_path):
    write_maps(Folder(tmp_path), "s.parquet", [score_map("a", (1,), 80, 80)])
    whole = (tmp_path / "s.parquet").read_bytes()
    (tmp_path / "s.parquet").write_bytes(whole[:keep])
    with pytest.raises(VwlError, match=r"s.parquet is damaged") as caught:
        MapReader(Folder(tmp_path)).read("a")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [lambda data: data[:-9], lambda data: b"", lambda data: b"PAR1" + bytes(60) + b"PAR1"])
def test_a_damaged_shard_keeps_only_its_own_images_from_being_read(tmp_path, content):
    maps = {f"i{n}": score_map(f"i{n}", (n,), 16 + n, 20, seed=n) for n in range(9)}
    for shard in range(3):
        write_maps(Folder(tmp_path), f"{shard}.parquet", list(maps.values())[3 * shard : 3 * shard + 3])
    path = tmp_path / "1.parquet"
    path.write_bytes(content(path.read_bytes()))
    reader = MapReader(Folder(tmp_path))
    for image_id in ("i0", "i2", "i6", "i8"):
        assert_same(reader.read(image_id), maps[image_id])
    for image_id in ("i3", "i5"):
        with pytest.raises(Damaged, match=rf"^{path} is damaged \(.*\); delete it and run its stage again \(vwl infer "):
            reader.read(image_id)
    assert len(reader) == 6


def test_a_shard_that_does_not_have_its_recorded_content_is_damaged_though_it_can_be_read(tmp_path):
    folder = Folder(tmp_path / "cam")
    one, other = (score_map("a", (1,), 80, 80, seed) for seed in (0, 1))
    write_maps(folder, "s.parquet", [one])
    write_record(folder, Record({}, {"s.parquet": stored_file(folder, "s.parquet")}))
    assert_same(MapReader(folder).read("a"), one)
    write_maps(folder, "s.parquet", [other])
    with pytest.raises(Damaged) as caught:
        MapReader(folder).read("a")
    assert str(caught.value) == (
        f"{tmp_path}/cam/s.parquet is damaged: its content has changed since it was written; "
        "delete it and run its stage again (vwl infer cam)"
    )
