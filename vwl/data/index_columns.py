"""Builds the columns of an index from rows or from the record batches of a table, and checks each row and that no image id occurs twice.

The batches go to a sink, which keeps them in memory or writes them to a file; beside them only a hash of each image id is held.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa

from vwl.data.column_checks import canonical, suspects
from vwl.data.columns import BATCH_ROWS, CORRECTED, SCHEMA, Columns
from vwl.data.image_ids import IdLookup, id_hashes
from vwl.data.index_hash import IndexHash
from vwl.data.index_source import IndexSource
from vwl.data.row_checks import row_problem
from vwl.data.rows import Row, batch_of
from vwl.errors import VwlError

Sink = Callable[[pa.RecordBatch], None]


class Builder:
    """Checks the rows of an index and passes them on, in record batches of `vwl.data.rows`."""

    def __init__(self, name: str, num_objects: int, is_table: bool, sink: Sink, fingerprint: IndexHash | None = None) -> None:
        """Start without rows.

        Args:
            name: file or data set, with which error messages start.
            num_objects: number of object classes C.
            is_table: whether the rows are those of a file, so that messages name their number.
            sink: gets each batch.
            fingerprint: gets each batch as well.
        """
        self._name, self._num_objects, self._is_table, self._sink, self._fingerprint = name, num_objects, is_table, sink, fingerprint
        self._hashes: list[np.ndarray] = []
        self._num_rows = 0

    def add_rows(self, rows: Sequence[Row], corrected: bool) -> None:
        """Add rows.

        Raises:
            VwlError: one is wrong.
        """
        for number, row in enumerate(rows, self._num_rows + 1):
            self._check(number, vars(row))
        self._pass_on(batch_of(rows, corrected))

    def add_batch(self, raw: pa.RecordBatch) -> None:
        """Add a record batch of an index table, with columns of any type.

        Raises:
            VwlError: a row is wrong.
            ValueError, pa.ArrowException: a text is not UTF-8.
        """
        batch = canonical(raw)
        wrong = np.arange(len(raw)) if batch is None else suspects(batch, self._num_objects)
        some = [column.take(pa.array(wrong)).to_pylist() for column in raw.columns]
        rows = [dict(zip(raw.schema.names, values, strict=True)) for values in zip(*some, strict=True)]
        for number, row in zip(wrong, rows, strict=True):
            self._check(self._num_rows + int(number) + 1, row)
        if batch is None:  # unusual types, whose values are right
            batch = batch_of([Row(**row | {"labels": tuple(row["labels"])}) for row in rows], CORRECTED.name in raw.schema.names)
        self._pass_on(batch)

    def finish(self, columns: Callable[[], Columns]) -> IdLookup:
        """Return the lookup of all image ids.

        Args:
            columns: returns what the sink has got.

        Raises:
            VwlError: an image id occurs twice.
        """
        lookup = IdLookup.of(np.concatenate([np.zeros(0, np.uint64), *self._hashes]))
        self._hashes.clear()
        runs = lookup.same_hash()
        if len(runs):
            self._check_duplicates(lookup, runs, columns())
        return lookup

    def _check(self, number: int, row: dict[str, Any]) -> None:
        values = {name: row[name] for name in (*SCHEMA.names[:5], "negative") if name in row}
        problem = row_problem(**values, num_objects=self._num_objects)
        if not problem and not isinstance(row.get(CORRECTED.name), bytes | None):
            problem = f"the corrected mask of image {row['image_id']} is not the content of a file"
        if problem:
            raise VwlError(f"{self._name} row {number}: {problem}" if self._is_table else f"{self._name}: {problem}")

    def _pass_on(self, batch: pa.RecordBatch) -> None:
        self._hashes.append(id_hashes(batch.column(0)))
        self._num_rows += len(batch)
        if self._fingerprint is not None:
            self._fingerprint.add(batch)
        self._sink(batch)

    def _check_duplicates(self, lookup: IdLookup, runs: np.ndarray, columns: Columns) -> None:
        first: tuple[int, int, str] | None = None
        num_duplicates = 0
        for low, high in runs:
            positions = np.sort(lookup.positions[low:high])
            ids = [image_id for piece in columns.pieces(positions, ["image_id"]) for image_id in piece.column(0).to_pylist()]
            for image_id, count in Counter(ids).items():
                if count > 1:
                    num_duplicates += 1
                    one = ids.index(image_id)
                    both = (int(positions[one]), int(positions[ids.index(image_id, one + 1)]), image_id)
                    first = both if first is None else min(first, both)
        if first is not None:
            where = f"{self._name} rows {first[0] + 1} and {first[1] + 1}" if self._is_table else self._name
            more = f" (and {num_duplicates - 1} more)" if num_duplicates > 1 else ""
            raise VwlError(f"{where}: image id '{first[2]}' occurs more than once{more}; every image needs an id of its own")


def in_memory(name: str, num_objects: int, rows: Iterable[Row]) -> Columns:
    """Return the columns of rows.

    Raises:
        VwlError: a row is wrong, or an image id occurs twice; the message starts with `name`.
    """
    batches: list[pa.RecordBatch] = []
    builder = Builder(name, num_objects, is_table=False, sink=batches.append)
    for some in _chunks(rows):
        builder.add_rows(some, corrected=True)
    batches = without_empty_corrections(batches)
    return Columns(batches, builder.finish(lambda: Columns(batches)))


def table_in_memory(source: IndexSource, name: str, num_objects: int) -> Columns:
    """Return the columns of an index table.

    Raises:
        VwlError: a row is wrong, or an image id occurs twice; the message starts with `name`.
        pa.ArrowException, OSError, ValueError: the table is damaged.
    """
    batches: list[pa.RecordBatch] = []
    builder = Builder(name, num_objects, is_table=True, sink=batches.append)
    for batch in source.batches():
        builder.add_batch(batch)
    return Columns(batches, builder.finish(lambda: Columns(batches)))


def without_empty_corrections(batches: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Return batches without the column of corrected masks if none has one."""
    if all(batch.column(CORRECTED.name).null_count == len(batch) for batch in batches):
        return [batch.select(SCHEMA.names) for batch in batches]
    return batches


def unchecked(rows: Iterable[Row]) -> Columns:
    """Return the columns of rows of an index, which have been checked before."""
    return Columns(without_empty_corrections([batch_of(some, corrected=True) for some in _chunks(rows)]))


def _chunks(rows: Iterable[Row]) -> Iterator[list[Row]]:
    remaining = iter(rows)
    while some := list(islice(remaining, BATCH_ROWS)):
        yield some
