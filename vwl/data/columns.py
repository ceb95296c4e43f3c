"""The rows of a data set as Arrow record batches, in memory or mapped from a file: parts of them by position, and positions by image id."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from vwl.data.image_ids import IdLookup, id_hashes, text_bytes

SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", pa.string()),
        ("labels", pa.list_(pa.int32())),
        ("mask", pa.string()),
        ("split", pa.int8()),  # position in SPLITS
        ("negative", pa.bool_()),
    ]
)
CORRECTED = pa.field("corrected", pa.binary())
"""Column that only tables with corrected masks have."""
BATCH_ROWS = 65_536
"""Rows of a record batch."""


class Columns:
    """All rows of a data set: record batches with `SCHEMA`, and `CORRECTED` where masks are corrected.

    Attributes:
        batches: the record batches, none empty.
        starts: (batches + 1,) int64, the position of the first row of each, and the number of rows.
    """

    def __init__(self, batches: Sequence[pa.RecordBatch], lookup: IdLookup | None = None) -> None:
        """Use batches, and the lookup of their image ids if it is known."""
        self.batches = [batch for batch in batches if len(batch)]
        self.starts = np.cumsum([0, *map(len, self.batches)], dtype=np.int64)
        self._lookup = lookup

    def __len__(self) -> int:
        return int(self.starts[-1])

    @property
    def position_type(self) -> type[np.signedinteger[Any]]:
        """The smallest integer type that holds each position."""
        return np.int32 if len(self) < 2**31 else np.int64

    @property
    def has_corrections(self) -> bool:
        """Whether there is a column of corrected masks."""
        return bool(self.batches) and CORRECTED.name in self.batches[0].schema.names

    @property
    def lookup(self) -> IdLookup:
        """The lookup of image ids, which is made at the first use."""
        if self._lookup is None:
            hashes = [id_hashes(batch.column("image_id")) for batch in self.batches]
            self._lookup = IdLookup.of(np.concatenate([np.zeros(0, np.uint64), *hashes]))
        return self._lookup

    def pieces(self, positions: "np.ndarray | range", columns: Sequence[str]) -> Iterator[pa.RecordBatch]:
        """Yield the rows at some positions, in their order, in pieces of at most `BATCH_ROWS` rows.

        Args:
            positions: of rows, each from 0 to the number of rows - 1.
            columns: names of the columns that are wanted.
        """
        if isinstance(positions, range) and positions.step == 1:
            for number in range(*self._batches_of(positions)):
                start = int(self.starts[number])
                low, high = max(positions.start - start, 0), min(positions.stop - start, len(self.batches[number]))
                yield self.batches[number].select(columns).slice(low, high - low)
            return
        for first in range(0, len(positions), BATCH_ROWS):
            some = np.asarray(positions[first : first + BATCH_ROWS], dtype=np.int64)
            numbers = np.searchsorted(self.starts, some, side="right") - 1
            ends = [*(np.flatnonzero(np.diff(numbers)) + 1), len(some)]
            for low, high in zip([0, *ends[:-1]], ends, strict=True):
                number = int(numbers[low])
                yield self.batches[number].select(columns).take(pa.array(some[low:high] - self.starts[number]))

    def _batches_of(self, positions: range) -> tuple[int, int]:
        """Return the first and the last but one of the batches that hold contiguous positions."""
        if not positions:
            return 0, 0
        first, last = np.searchsorted(self.starts, [positions.start, positions.stop - 1], side="right") - 1
        return int(first), int(last) + 1

    def with_corrected(self, masks: Mapping[int, bytes]) -> "Columns":
        """Return the columns with the corrected masks of the rows at some positions; those of other rows stay."""
        some = np.array(sorted(masks), np.int64)
        batches = []
        for start, batch in zip(self.starts, self.batches, strict=False):
            values = batch.column(CORRECTED.name) if self.has_corrections else pa.nulls(len(batch), CORRECTED.type)
            own = some[(some >= start) & (some < start + len(batch))]
            if len(own):
                changed = values.to_pylist()
                for position in own.tolist():
                    changed[position - int(start)] = masks[position]
                values = pa.array(changed, CORRECTED.type)
            columns = [*(batch.column(name) for name in SCHEMA.names), values]
            batches.append(pa.RecordBatch.from_arrays(columns, schema=SCHEMA.append(CORRECTED)))
        return Columns(batches, self._lookup)

    def find(self, image_ids: Sequence[str]) -> np.ndarray:
        """Return the position (n,) int64 of the row of each image id, -1 where there is none."""

        def stored(positions: np.ndarray) -> pa.Array:
            order = np.argsort(positions)
            found = [batch.column(0) for batch in self.pieces(positions[order], ["image_id"])]
            inverse = np.empty(len(order), np.int64)
            inverse[order] = np.arange(len(order))
            return text_bytes(pa.concat_arrays(found)).take(pa.array(inverse))

        return self.lookup.find(image_ids, stored)
