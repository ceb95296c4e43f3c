"""How the images of an inference stage are cut into shards: large data sets have larger shards, and what was started keeps its own."""

from collections.abc import Sequence

from vwl.data.index import Row
from vwl.data.rows import image_ids
from vwl.inference.runner import SHARD_SIZE, Shard, shard_size
from vwl.storage.folder import Folder
from vwl.storage.map_catalogue import make_catalogue, write_catalogue
from vwl.workflow.manifest import Manifest


def shard_sizes(started: Manifest | None, groups: Sequence[Sequence[Row]]) -> list[int]:
    """Return the images per shard of each group of a stage's images.

    Args:
        started: the stage's manifest, if it was started; its groups keep the size of their shards.
        groups: of images, those of earlier starts first, failed images included.
    """
    before = [] if started is None else started.shard_sizes or [SHARD_SIZE] * (1 + len(started.splits or []))
    return [*before, *(shard_size(len(rows)) for rows in groups[len(before) :])]


def sizes_in_manifest(sizes: list[int]) -> list[int] | None:
    """Return sizes as a manifest holds them: none if all are those of small data sets."""
    return None if set(sizes) == {SHARD_SIZE} else sizes


def catalogue_maps(folder: Folder, all_shards: Sequence[Shard], fingerprint: str) -> None:
    """Write which shard of a stage of score maps will hold the maps of which image; `fingerprint` is the stage's."""
    write_catalogue(folder, make_catalogue(image_ids(shard.rows) for shard in all_shards), fingerprint)
