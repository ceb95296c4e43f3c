"""Runs one shard of images through a stage, and finds the shards that are left: the part of inference that does not depend on the engine.

A shard is a fixed slice of a stage's images, so that its files have the same bytes whenever they are made, and on whichever node (a GPU
and a CPU differ in the last bits). Its data is written first (`part-00012.parquet`, or one PNG per image), then `done/00012.json` with the
failed images and their reasons, and size and digest of the data; a shard without that file runs again (`vwl.inference.shard_files`).
`begun/00012.json` exists in between. A shard whose process died is run with a record of the current image in that file, so that an image
which crashes its process repeatedly is found, listed and left out.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np

from vwl.data.rows import Row, image_ids
from vwl.errors import Damaged, Unreachable, VwlError
from vwl.inference.stage import Stage
from vwl.storage.checked import digest, read_checked, write_checked
from vwl.storage.folder import Folder
from vwl.storage.map_catalogue import part_name
from vwl.storage.masks import encode_mask
from vwl.storage.score_maps import ScoreMap, encode_maps

SHARD_SIZE = 16
"""Images per shard: at least a second of work on one core in every stage. Shards of large data sets have a multiple of it."""
MAX_SHARDS = 20_000
"""Shards of a group of a stage's images: as many markers and files of score maps, and as many tasks of the cluster."""


@dataclass(frozen=True)
class Shard:
    """A numbered slice of a stage's images."""

    number: int
    rows: Sequence[Row]

    @property
    def marker(self) -> str:
        """Name of the file in `done/` that says that the shard is finished, and of its crash record in `begun/`."""
        return f"{self.number:05d}.json"

    @property
    def part(self) -> str:
        """Name of its file of score maps."""
        return part_name(self.number)

    @property
    def images_digest(self) -> str:
        """Digest of the ids of its images, which its marker holds."""
        return digest("\n".join(image_ids(self.rows)).encode())


def shard_size(num_images: int) -> int:
    """Return the images per shard of a group of so many images: the smallest multiple of `SHARD_SIZE` that gives at most `MAX_SHARDS`."""
    return max(1, math.ceil(num_images / (MAX_SHARDS * SHARD_SIZE))) * SHARD_SIZE


def shards(*groups: Sequence[Row], sizes: Sequence[int] | None = None) -> list[Shard]:
    """Cut a stage's rows into shards; no shard holds rows of two groups, so that another group changes none of those before it.

    Args:
        groups: of rows.
        sizes: images per shard of each group; default `shard_size`.
    """
    sizes = [shard_size(len(rows)) for rows in groups] if sizes is None else sizes
    slices = [rows[i : i + size] for rows, size in zip(groups, sizes, strict=True) for i in range(0, len(rows), size)]
    return [Shard(number, rows) for number, rows in enumerate(slices)]


def unfinished(all_shards: Sequence[Shard], out: Folder) -> list[Shard]:
    """Return the shards that are not finished in `out`."""
    done = set((out / "done").names(".json"))
    return [shard for shard in all_shards if shard.marker not in done]


def process(stage: Stage, shard: Shard, out: Folder, strict: bool = False) -> dict[str, str]:
    """Run a shard through a stage and write its results; return the reason by id of each image that failed.

    Where a file that an earlier stage wrote is damaged, the shard is left unfinished: its images are made when that file is.

    Raises:
        VwlError: the results cannot be written, storage cannot be reached, or, with `strict`, an image failed.
    """
    maps: list[ScoreMap] = []
    waiting: dict[str, str] = {}
    crash_record = _CrashRecord(out / "begun", shard.marker)
    failed = crash_record.crashing_images()
    if strict and failed:
        raise VwlError(_stopped(*next(iter(failed.items()))))
    written: dict[str, list[int | str]] = {}

    def write(name: str, data: bytes) -> None:
        out.write(name, data)
        written[name] = [len(data), digest(data)]

    for row in shard.rows:
        if row.image_id in failed:
            continue
        try:
            with crash_record.processing(row.image_id):
                result = stage(row)
        except Unreachable:  # other images would fail as well
            raise
        except VwlError as error:
            if strict:
                raise VwlError(_stopped(row.image_id, str(error))) from None
            (waiting if isinstance(error, Damaged) else failed)[row.image_id] = str(error)
            continue
        if isinstance(result, np.ndarray):
            write(f"{row.image_id}.png", encode_mask(result, stage.index.palette))
        else:
            maps.append(result)
    if waiting:
        crash_record.wait(waiting)
        return failed | waiting
    if maps:
        write(shard.part, encode_maps(maps))
    write_checked(out / "done", shard.marker, {"images": len(shard.rows), "failed": failed, "ids": shard.images_digest, "files": written})
    crash_record.end()
    return failed


def _stopped(image_id: str, reason: str) -> str:
    return f"image {image_id}: {reason}; fix it, or leave --strict out to continue without it"


class _CrashRecord:
    """A shard's record: how often it was started, its current image (from the second start on), and crashes by image.

    `waiting` are the images that a damaged file of an earlier stage kept from being made, with the reason.
    """

    def __init__(self, folder: Folder, name: str) -> None:
        """Start the shard; a record that still exists is of a process that died."""
        self._folder, self._name = folder, name
        before: dict[str, Any] = {"starts": 0, "image": None, "crashes": {}}
        if folder.exists(name):
            try:
                before |= read_checked(folder, name)
            except Damaged:  # its process died, and so perhaps did the machine
                before["starts"] = 1
        crashes = before["crashes"]
        if before["image"] is not None:
            crashes[before["image"]] = crashes.get(before["image"], 0) + 1
        self._record: dict[str, Any] = {"starts": before["starts"] + 1, "image": None, "crashes": crashes}
        self._write({})

    def crashing_images(self) -> dict[str, str]:
        """Return the images that crashed their process more than once, with the reason."""
        crashes = self._record["crashes"]
        return {image_id: f"its process crashed {times} times" for image_id, times in crashes.items() if times > 1}

    @contextmanager
    def processing(self, image_id: str) -> Iterator[None]:
        """Record the image while it is processed, if the shard was started before."""
        if self._record["starts"] == 1:
            yield
            return
        self._write({"image": image_id})
        try:
            yield
        except BaseException:  # an exception is not a crash
            self._write({})
            raise

    def wait(self, images: dict[str, str]) -> None:
        self._record["starts"] -= 1  # nothing crashed
        self._write({"waiting": images})

    def end(self) -> None:
        self._folder.delete(self._name)

    def _write(self, changes: dict[str, object]) -> None:
        write_checked(self._folder, self._name, self._record | changes)


def waiting_images(some: Sequence[Shard], out: Folder) -> dict[str, str]:
    """Return the images of unfinished shards that a damaged file of an earlier stage kept from being made, with the reason."""
    found: dict[str, str] = {}
    records = set((out / "begun").names(".json"))
    for shard in some:
        if shard.marker in records:
            found |= read_checked(out / "begun", shard.marker).get("waiting", {})
    return found
