"""Sums over images, from which thresholds and scores are computed: made part by part, on any worker.

A `Count` adds one image to a sum. The images are cut into parts (`parts`); an engine makes the sum of each part wherever there is a CPU
and merges them in the order of the parts, so that the result has the same bits for any number of workers. `sum_in_threads` does so in
this process, `vwl.engine.sums` on a Ray cluster.
"""

import copy
import os
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, Protocol, Self, TypeVar

from vwl.data.index import Row
from vwl.storage.folder import Folder

PART_SIZE = 64
"""Images of a part: about a quarter of a second on a core, and some shards, so that few parts read the same file."""
MAX_PARTS = 1024
"""Parts at most, since the sum of each is sent to the driver: a large data set has larger parts."""
_MAX_THREADS = 8


class Sum(Protocol):
    """A sum over images."""

    def merge(self, other: Self) -> None:
        """Add the sum over other images, whose arrays may be read-only."""


SumType = TypeVar("SumType", bound=Sum)


class Count(ABC, Generic[SumType]):
    """What is summed. Each worker has a copy, with open files of its own."""

    @property
    @abstractmethod
    def folder(self) -> Folder:
        """The folder that it reads, which all workers must see."""

    @abstractmethod
    def empty(self) -> SumType:
        """Return the sum over no image."""

    @abstractmethod
    def add(self, total: SumType, row: Row) -> None:
        """Add an image to a sum.

        Raises:
            VwlError: its maps or a mask are missing or damaged, or do not belong together.
        """


OnImages = Callable[[int], None]
"""Called with the number of images that have been counted so far."""


class SumImages(Protocol):
    """Makes a sum over images."""

    def __call__(self, count: Count[SumType], rows: Sequence[Row], on_images: OnImages) -> SumType:
        """Return the sum over the images of `rows`.

        Raises:
            VwlError: an image could not be counted; the first one, if there are several.
            KeyboardInterrupt: Ctrl-C, or raised by `on_images`.
        """
        ...


def parts(rows: Sequence[Row]) -> list[Sequence[Row]]:
    """Cut images into parts, which depend on their number only."""
    size = PART_SIZE * max(1, -(-len(rows) // (PART_SIZE * MAX_PARTS)))
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def sum_in_threads(count: Count[SumType], rows: Sequence[Row], on_images: OnImages) -> SumType:
    """Make a sum in threads of this process, as `SumImages` says: decoding, enlarging and counting release the GIL."""
    total, done = count.empty(), 0
    stop, own = threading.Event(), threading.local()

    def sum_of(part: Sequence[Row]) -> SumType:
        if not hasattr(own, "count"):
            own.count = copy.deepcopy(count)
        return sum_part(own.count, part, stop.is_set)

    with ThreadPoolExecutor(min(_MAX_THREADS, os.cpu_count() or 1), "sums") as pool:
        try:
            for part, answer in [(part, pool.submit(sum_of, part)) for part in parts(rows)]:
                total.merge(answer.result())
                done += len(part)
                on_images(done)
        except BaseException:
            stop.set()
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return total


def sum_part(count: Count[SumType], part: Sequence[Row], is_stopped: Callable[[], bool] = lambda: False) -> SumType:
    """Return the sum over a part, or over its first images if `is_stopped` says so in between."""
    total = count.empty()
    for row in part:
        if is_stopped():
            break
        count.add(total, row)
    return total


def no_progress(num_images: int) -> None:
    """Show nothing."""
