"""One shard of images through a stage, and what is left to do of a stage: all of inference but where it runs.

A shard is a fixed slice of a stage's images, so its files have the same bytes whenever and wherever they are made. Its data is
written first (`part-00012.parquet`, or one PNG an image), then `done/00012.json` with the images that failed and why; a shard
without that file is done again.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vwl.data.index import Row
from vwl.errors import VwlError
from vwl.inference.stage import Stage
from vwl.store import Folder, ScoreMap, encode_mask, write_maps

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


def process(stage: Stage, shard: Shard, out: Folder) -> dict[str, str]:
    """Run a shard through a stage and write its results; return the reason for each image that failed.

    Raises:
        VwlError: the results cannot be written.
    """
    maps: list[ScoreMap] = []
    failed: dict[str, str] = {}
    for row in shard.rows:
        try:
            result = stage(row)
        except VwlError as error:
            failed[row.image_id] = str(error)
            continue
        if isinstance(result, np.ndarray):
            out.write(f"{row.image_id}.png", encode_mask(result, stage.index.palette))
        else:
            maps.append(result)
    if maps:
        write_maps(out, f"part-{shard.number:05d}.parquet", maps)
    (out / "done").write_json(f"{shard.number:05d}.json", {"images": len(shard.rows), "failed": failed})
    return failed


def failures(out: Folder) -> dict[str, str]:
    """Return the images of a stage that failed, with reasons."""
    found: dict[str, str] = {}
    for name in (out / "done").names(".json"):
        found |= (out / "done").read_json(name)["failed"]
    return found
