"""The columns of a large index as files on the node's disk, which all its processes map into memory: the kernel holds them once.

Parquet has to be decoded, and its decoded rows would be in each process. The first process of a node therefore checks the table and
writes its columns, the lookup of the image ids and the fingerprint into the node's cache (`vwl.storage.cache`). The files are named
after the digest of the table's content, so they never belong to another table, and only the user can write there.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from vwl.data.columns import BATCH_ROWS, CORRECTED, SCHEMA, Columns
from vwl.data.image_ids import IdLookup
from vwl.data.index_columns import Builder
from vwl.data.index_hash import IndexHash
from vwl.data.index_source import IndexSource
from vwl.storage.cache import cache_of_this_node

MAPPED_ROWS = 100_000
MAPPED_BYTES = 32 * 2**20
"""A table with as many rows or decoded bytes is mapped; a smaller one is decoded in each process, in less time than it takes to look."""
_VERSION = 1
"""Of the files and of the checks of rows: a table that an earlier version accepted is checked again by a later one."""
_CHUNK = 2**22


def is_mapped(source: IndexSource) -> bool:
    """Return whether the columns of a table are worth mapping."""
    return source.num_rows >= MAPPED_ROWS or source.num_bytes >= MAPPED_BYTES


def mapped(file: pa.NativeFile, source: IndexSource, name: str, num_objects: int) -> tuple[Columns, str] | None:
    """Return the mapped columns of an index table and its fingerprint; None where the cache is off or has no room.

    Args:
        file: the table's file, open for random access.
        source: the same, opened as a table.
        name: of the table, with which error messages start.
        num_objects: number of object classes C.

    Raises:
        VwlError: a row is wrong, or an image id occurs twice.
        pa.ArrowException, ValueError: the table is damaged.
    """
    names = [f"index-{_VERSION}-{_digest(file)}.{part}" for part in ("rows", "ids")]
    for _ in range(2):
        paths = cache_of_this_node().make(names, lambda parts, check_room: _write(source, name, num_objects, parts, check_room))
        if paths is None:
            return None
        try:
            return _opened(paths, source.num_rows)
        except (pa.ArrowException, OSError, KeyError, ValueError):  # damaged, or deleted by another process to make room
            for path in paths:
                path.unlink(missing_ok=True)
    return None


def _digest(file: pa.NativeFile) -> str:
    found = hashlib.sha256()
    file.seek(0)
    while data := file.read(_CHUNK):
        found.update(data)
    return found.hexdigest()


def _write(source: IndexSource, name: str, num_objects: int, paths: Sequence[Path], check_room: Callable[[], None]) -> None:
    """Check the rows of a table and write its columns, and the lookup of its image ids with its fingerprint."""
    rows, ids = paths
    schema = SCHEMA.append(CORRECTED) if CORRECTED.name in source.names else SCHEMA
    fingerprint = IndexHash(source.about["classes"])
    with pa.OSFile(str(rows), "wb") as sink, pa.ipc.new_file(sink, schema) as writer:
        waiting: list[pa.RecordBatch] = []

        def write(batch: pa.RecordBatch | None) -> None:
            """Write whole batches, which the reader of a Parquet file need not give; None writes what is left."""
            waiting.extend([] if batch is None else [batch])
            num = sum(map(len, waiting))
            if num and (batch is None or num >= BATCH_ROWS):
                writer.write_batch(pa.concat_batches(waiting))
                waiting.clear()
                check_room()

        builder = Builder(name, num_objects, True, write, fingerprint)
        for batch in source.batches():
            builder.add_batch(batch)
        write(None)
    lookup = builder.finish(lambda: Columns(_batches(rows)))
    about = {b"vwl": json.dumps({"rows": source.num_rows, "fingerprint": fingerprint.result()}).encode()}
    columns = pa.RecordBatch.from_arrays([pa.array(lookup.hashes), pa.array(lookup.positions)], names=["hash", "position"])
    with pa.OSFile(str(ids), "wb") as sink, pa.ipc.new_file(sink, columns.schema.with_metadata(about)) as writer:
        writer.write_batch(columns.replace_schema_metadata(about))


def _opened(paths: Sequence[Path], num_rows: int) -> tuple[Columns, str]:
    rows, ids = paths
    with pa.ipc.open_file(pa.memory_map(str(ids))) as file:
        about: dict[str, Any] = json.loads(file.schema.metadata[b"vwl"])
        (hashes, positions) = file.get_batch(0).columns
    columns = Columns(_batches(rows), IdLookup(hashes.to_numpy(), positions.to_numpy()))
    if not num_rows == len(columns) == len(hashes) == about["rows"]:
        raise ValueError("the files are of another table")
    return columns, str(about["fingerprint"])


def _batches(path: Path) -> list[pa.RecordBatch]:
    with pa.ipc.open_file(pa.memory_map(str(path))) as file:
        return [file.get_batch(number) for number in range(file.num_record_batches)]
