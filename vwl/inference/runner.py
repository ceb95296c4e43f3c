"""One shard of images through a stage, and what is left to do of a stage: all of inference but where it runs.

A shard is a fixed slice of a stage's images, so its files have the same bytes whenever and wherever they are made. Its data is
written first (`part-00012.parquet`, or one PNG an image), then `done/00012.json` with the images that failed and why; a shard
without that file is done again. `begun/00012.json` is there meanwhile: a shard that was begun and not ended is done with a note of
each image, so that one whose process dies over it again and again is found, listed and left out.
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
"""Images a shard: at least a second of work on one core in every stage."""


@dataclass(frozen=True)
class Shard:
    """A slice of a stage's images and its number."""

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
    """Run a shard through a stage and write its results; return the reason for each image that failed.

    Raises:
        VwlError: the results cannot be written, storage does not answer, or, with `strict`, an image failed.
    """
    maps: list[ScoreMap] = []
    watch = _Watch(out / "begun", f"{shard.number:05d}.json")
    failed = watch.crashing_images()
    if strict and failed:
        raise VwlError(_stopped(*next(iter(failed.items()))))
    for row in shard.rows:
        if row.image_id in failed:
            continue
        try:
            with watch.over(row.image_id):
                result = stage(row)
        except Unreachable:  # not the image's fault; the others would fare no better
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
    watch.end()
    return failed


def _stopped(image_id: str, reason: str) -> str:
    return f"image {image_id}: {reason}; put that right, or leave --strict out to go on without it"


class _Watch:
    """A shard's note: how often it was begun, over which image it is (from the second time on), and how often each was fatal."""

    def __init__(self, folder: Folder, name: str) -> None:
        """Begin: a note that is still there is of a process that did not end."""
        self._folder, self._name = folder, name
        before = folder.read_json(name) if folder.exists(name) else {"begun": 0, "over": None, "deaths": {}}
        if before["over"] is not None:
            before["deaths"][before["over"]] = before["deaths"].get(before["over"], 0) + 1
        self._note = {"begun": before["begun"] + 1, "over": None, "deaths": before["deaths"]}
        folder.write_json(name, self._note)

    def crashing_images(self) -> dict[str, str]:
        """Return the images that are given up, with the reason."""
        deaths = self._note["deaths"]
        return {image_id: f"the process that worked on it died {times} times" for image_id, times in deaths.items() if times > 1}

    @contextmanager
    def over(self, image_id: str) -> Iterator[None]:
        """Note the image while it is worked on, if the shard was begun before."""
        if self._note["begun"] == 1:
            yield
            return
        self._folder.write_json(self._name, self._note | {"over": image_id})
        try:
            yield
        except BaseException:  # raised is not died
            self._folder.write_json(self._name, self._note)
            raise

    def end(self) -> None:
        self._folder.delete(self._name)


def failures(out: Folder) -> dict[str, str]:
    """Return the images of a stage that failed, with reasons."""
    found: dict[str, str] = {}
    for name in (out / "done").names(".json"):
        found |= (out / "done").read_json(name)["failed"]
    return found
