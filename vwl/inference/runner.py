"""Runs one shard of images through a stage, and finds the shards that are left: the part of inference that does not depend on the engine.

A shard is a fixed slice of a stage's images, so that its files have the same bytes whenever they are made, and on whichever node (a GPU
and a CPU differ in the last bits). Its data is written first (`part-00012.parquet`, or one PNG per image), then `done/00012.json` with the
failed images and their reasons; a shard without that file runs again. `begun/00012.json` exists in between. A shard whose process died is
run with a record of the current image in that file, so that an image which crashes its process repeatedly is found, listed and left out.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from vwl.data.index import Row
from vwl.errors import Unreachable, VwlError
from vwl.inference.stage import Stage
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask
from vwl.storage.score_maps import ScoreMap, write_maps

SHARD_SIZE = 16
"""Images per shard: at least a second of work on one core in every stage."""


@dataclass(frozen=True)
class Shard:
    """A numbered slice of a stage's images."""

    number: int
    rows: tuple[Row, ...]


def shards(rows: Sequence[Row]) -> list[Shard]:
    """Cut a stage's rows into shards."""
    return [Shard(i // SHARD_SIZE, tuple(rows[i : i + SHARD_SIZE])) for i in range(0, len(rows), SHARD_SIZE)]


def unfinished(all_shards: Sequence[Shard], out: Folder) -> list[Shard]:
    """Return the shards that are not finished in `out`."""
    done = set((out / "done").names(".json"))
    return [shard for shard in all_shards if f"{shard.number:05d}.json" not in done]


def process(stage: Stage, shard: Shard, out: Folder, strict: bool = False) -> dict[str, str]:
    """Run a shard through a stage and write its results; return the reason by id of each image that failed.

    Raises:
        VwlError: the results cannot be written, storage cannot be reached, or, with `strict`, an image failed.
    """
    maps: list[ScoreMap] = []
    crash_record = _CrashRecord(out / "begun", f"{shard.number:05d}.json")
    failed = crash_record.crashing_images()
    if strict and failed:
        raise VwlError(_stopped(*next(iter(failed.items()))))
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
            failed[row.image_id] = str(error)
            continue
        if isinstance(result, np.ndarray):
            out.write(f"{row.image_id}.png", encode_mask(result, stage.index.palette))
        else:
            maps.append(result)
    if maps:
        write_maps(out, f"part-{shard.number:05d}.parquet", maps)
    (out / "done").write_json(f"{shard.number:05d}.json", {"images": len(shard.rows), "failed": failed})
    crash_record.end()
    return failed


def _stopped(image_id: str, reason: str) -> str:
    return f"image {image_id}: {reason}; fix it, or leave --strict out to continue without it"


class _CrashRecord:
    """A shard's record: how often it was started, its current image (from the second start on), and crashes by image."""

    def __init__(self, folder: Folder, name: str) -> None:
        """Start the shard; a record that still exists is of a process that died."""
        self._folder, self._name = folder, name
        before = folder.read_json(name) if folder.exists(name) else {"starts": 0, "image": None, "crashes": {}}
        crashes = before["crashes"]
        if before["image"] is not None:
            crashes[before["image"]] = crashes.get(before["image"], 0) + 1
        self._record = {"starts": before["starts"] + 1, "image": None, "crashes": crashes}
        folder.write_json(name, self._record)

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
        self._folder.write_json(self._name, self._record | {"image": image_id})
        try:
            yield
        except BaseException:  # an exception is not a crash
            self._folder.write_json(self._name, self._record)
            raise

    def end(self) -> None:
        self._folder.delete(self._name)


def failures(out: Folder) -> dict[str, str]:
    """Return the images of a stage that failed, with reasons."""
    found: dict[str, str] = {}
    for name in (out / "done").names(".json"):
        found |= (out / "done").read_json(name)["failed"]
    return found
