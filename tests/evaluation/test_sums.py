"""Sums over images: the same bits for any number of parts and workers, and an end on request."""

from dataclasses import dataclass, field

import numpy as np
import pytest

from vwl.constants import map_size
from vwl.data.index import Row
from vwl.errors import VwlError
from vwl.evaluation import sums
from vwl.evaluation.counts import OtsuCount
from vwl.evaluation.sums import Count, no_progress, parts, sum_in_threads, sum_part
from vwl.storage.folder import Folder
from vwl.storage.score_maps import MapReader, ScoreMap, write_maps


def rows_of(number: int) -> list[Row]:
    return [Row(f"p{i}", f"p{i}.jpg", (1,), None, "train") for i in range(number)]


@dataclass
class Ids:
    """The ids of images, in the order in which they were merged."""

    ids: list[str] = field(default_factory=list)

    def merge(self, other: "Ids") -> None:
        self.ids += other.ids


class IdCount(Count[Ids]):
    def __init__(self, wrong: tuple[str, ...] = ()) -> None:
        self.wrong = wrong

    @property
    def folder(self) -> Folder:
        return Folder("/tmp")

    def empty(self) -> Ids:
        return Ids()

    def add(self, total: Ids, row: Row) -> None:
        if row.image_id in self.wrong:
            raise VwlError(row.image_id)
        total.ids.append(row.image_id)


@pytest.mark.parametrize(("number", "sizes"), [(0, []), (1, [1]), (64, [64]), (65, [64, 1]), (65_537, [128] * 512 + [1])])
def test_parts_hold_all_images_in_order_and_grow_with_the_data_set(number, sizes):
    rows = rows_of(number)
    cut = parts(rows)
    assert [len(part) for part in cut] == sizes
    assert [row for part in cut for row in part] == rows


def test_parts_are_merged_in_order_and_reported_as_they_are(monkeypatch):
    monkeypatch.setattr(sums, "PART_SIZE", 3)
    seen = []
    rows = rows_of(10)
    assert sum_in_threads(IdCount(), rows, seen.append).ids == [row.image_id for row in rows]
    assert seen == [3, 6, 9, 10]


def test_of_several_wrong_images_the_first_is_named(monkeypatch):
    monkeypatch.setattr(sums, "PART_SIZE", 2)
    with pytest.raises(VwlError, match=r"^p3$"):
        sum_in_threads(IdCount(("p8", "p3")), rows_of(10), no_progress)


def test_a_stop_keeps_the_threads_from_counting_on(monkeypatch):
    monkeypatch.setattr(sums, "PART_SIZE", 1)
    counted: list[str] = []

    class Recorded(IdCount):
        def __deepcopy__(self, memo):
            return self

        def add(self, total: Ids, row: Row) -> None:
            counted.append(row.image_id)

    def stop(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sum_in_threads(Recorded(), rows_of(100_000), stop)
    assert len(counted) < 100_000


@pytest.fixture
def maps(tmp_path) -> MapReader:
    """Random maps of 23 images in two files."""
    rng, found = np.random.default_rng(0), []
    for row in rows_of(23):
        height, width = (int(side) for side in rng.integers(30, 70, 2))
        classes = tuple(sorted(int(c) for c in rng.choice(4, 2, replace=False) + 1))
        found.append(ScoreMap(row.image_id, classes, height, width, rng.random((2, *map_size(height, width))).astype(np.float16)))
    folder = Folder(tmp_path / "maps")
    write_maps(folder, "part-00000.parquet", found[:16])
    write_maps(folder, "part-00001.parquet", found[16:])
    return MapReader(folder)


@pytest.mark.parametrize("size", [1, 5, 64])
def test_otsus_sums_have_the_same_bits_however_the_images_are_cut(maps, monkeypatch, size):
    """Sums of float16 scores are exact in float64, so that even the order of the parts does not matter."""
    monkeypatch.setattr(sums, "PART_SIZE", size)
    count, rows = OtsuCount(maps, by_class=True), rows_of(23)
    whole = sum_part(count, rows)
    found = sum_in_threads(count, rows, no_progress)
    backwards = count.empty()
    for part in reversed(parts(rows)):
        backwards.merge(sum_part(count, part))
    for other in (found, backwards):
        assert other.num_images == whole.num_images
        assert other.by_class.keys() == whole.by_class.keys() == {1, 2, 3, 4}
        for ours, theirs in [(other.strongest, whole.strongest), *((other.by_class[c], whole.by_class[c]) for c in range(1, 5))]:
            np.testing.assert_array_equal(ours.counts, theirs.counts)
            np.testing.assert_array_equal(ours.sums, theirs.sums)


def test_classes_are_counted_apart_only_if_asked_for(maps):
    found = sum_part(OtsuCount(maps, by_class=False), rows_of(3))
    assert found.by_class == found.num_images == {}
    assert found.strongest.counts.sum() == sum(maps.read(f"p{i}").values[0].size for i in range(3))


def test_sums_that_other_processes_send_may_be_read_only(maps):
    """Ray hands out arrays that lie in its store."""
    count, rows = OtsuCount(maps, by_class=True), rows_of(4)
    sent = sum_part(count, rows)
    for otsu in (sent.strongest, *sent.by_class.values()):
        otsu.counts.setflags(write=False)
        otsu.sums.setflags(write=False)
    total = count.empty()
    total.merge(sent)
    total.merge(sent)
    np.testing.assert_array_equal(total.strongest.counts, 2 * sent.strongest.counts)
    assert total.num_images == {class_id: 2 * number for class_id, number in sent.num_images.items()}
