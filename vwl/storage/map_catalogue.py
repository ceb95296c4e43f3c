"""The catalogue of a stage of score maps: in which shard the map of an image lies, so that nobody opens every file to find it.

A shard is a fixed slice of the stage's images, so the catalogue is known when the stage starts: `catalogue.arrow` in its folder, with the
CRC-32 of each image id, ascending, and the number of the image's shard, 8 bytes an image. A local file is mapped, and the processes of a
node share its memory. Two images with the same CRC only mean that two files are asked. The file is no part of the stage's result: where it
is missing, damaged or of other images, the maps are found by opening the files.
"""

import io
import zlib
from collections.abc import Iterable

import numpy as np
import pyarrow as pa

from vwl.errors import VwlError
from vwl.storage.cache import read_cached
from vwl.storage.checked import digest
from vwl.storage.folder import Folder

NAME = "catalogue.arrow"
_SCHEMA = pa.schema([("crc", pa.uint32()), ("shard", pa.uint32())])
_FINGERPRINT, _DIGEST = b"vwl.fingerprint", b"vwl.digest"


def part_name(shard: int) -> str:
    """Return the name of a shard's file of score maps."""
    return f"part-{shard:05d}.parquet"


class MapCatalogue:
    """The shards of images."""

    def __init__(self, crcs: np.ndarray, shards: np.ndarray) -> None:
        """Take the CRC-32 of each image id (n,) uint32, ascending, and its shard (n,) uint32."""
        self._crcs, self._shards = crcs, shards
        self.num_shards = int(shards.max()) + 1 if len(shards) else 0

    def __len__(self) -> int:
        return len(self._crcs)

    def shards_of(self, image_id: str) -> list[int]:
        """Return the shards in which an image can be: none if it is not of the stage, mostly one."""
        crc = np.uint32(zlib.crc32(image_id.encode()))
        first, last = np.searchsorted(self._crcs, crc), np.searchsorted(self._crcs, crc, side="right")
        return sorted({int(shard) for shard in self._shards[first:last]})


def make_catalogue(image_ids: Iterable[Iterable[str]]) -> MapCatalogue:
    """Return the catalogue of a stage, from the ids of the images of each shard, in the order of the shards."""
    crcs = [np.fromiter((zlib.crc32(image_id.encode()) for image_id in ids), np.uint32) for ids in image_ids]
    shards = np.repeat(np.arange(len(crcs), dtype=np.uint32), [len(ids) for ids in crcs])
    joined = np.concatenate([np.zeros(0, np.uint32), *crcs])
    order = np.argsort(joined, kind="stable")
    return MapCatalogue(joined[order], shards[order])


def write_catalogue(folder: Folder, catalogue: MapCatalogue, fingerprint: str) -> None:
    """Write a stage's catalogue, atomically; `fingerprint` is the stage's.

    Raises:
        VwlError: it cannot be written.
    """
    metadata = {_FINGERPRINT: fingerprint.encode(), _DIGEST: _digest(catalogue._crcs, catalogue._shards)}
    table = pa.table([pa.array(catalogue._crcs), pa.array(catalogue._shards)], schema=_SCHEMA.with_metadata(metadata))
    sink = io.BytesIO()
    with pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    folder.write(NAME, sink.getvalue())


def read_catalogue(folder: Folder, fingerprint: str | None) -> MapCatalogue | None:
    """Return a stage's catalogue; none if there is none, or it is damaged or of a stage with another fingerprint."""
    if not folder.exists(NAME):
        return None
    try:
        folder.require_inside(NAME)
        source = pa.memory_map(f"{folder.path.rstrip('/')}/{NAME}") if folder.is_local else pa.BufferReader(read_cached(folder, NAME))
        table = pa.ipc.open_file(source).read_all()
        metadata = table.schema.metadata or {}
        if not table.schema.equals(_SCHEMA) or metadata.get(_FINGERPRINT) != (fingerprint or "").encode():
            return None
        crcs, shards = (column.combine_chunks().to_numpy() if table.num_rows else np.zeros(0, np.uint32) for column in table.columns)
    except (pa.ArrowException, OSError, ValueError, VwlError):
        return None
    return MapCatalogue(crcs, shards) if metadata.get(_DIGEST) == _digest(crcs, shards) else None


def _digest(crcs: np.ndarray, shards: np.ndarray) -> bytes:
    return (digest(crcs.tobytes()) + digest(shards.tobytes())).encode()
