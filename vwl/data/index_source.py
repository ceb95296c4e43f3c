"""An index table's Parquet file: how much it announces, and its rows in record batches of bounded size.

Compressed and encoded, a small file can announce, or decode to, more than any machine holds. What no data set needs is refused before it
is decoded.
"""

import json
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vwl.data.columns import BATCH_ROWS, CORRECTED, SCHEMA

_ROWS_A_BYTE = 32
"""Rows that a byte of the file may stand for: with counted ids, in the densest encoding, there are 9; as vwl writes them, one or less."""
_EXPANSION = 1000
"""Bytes that a byte of the file may decode to; tables that vwl writes have some 40 where ids are counted."""
_ALWAYS = 16 * 2**20
"""Bytes that any file may decode to."""
_MORE_LABELS = 2**20
"""Labels that a table may have beyond one of each class in each row; the rows are then checked one by one."""
_BATCH_BYTES = 256 * 2**20
"""Bytes of text in a batch, however long single values are."""
_PLAIN = {"PLAIN", "RLE", "BIT_PACKED", "PLAIN_DICTIONARY", "RLE_DICTIONARY"}
"""Encodings in which a value takes its bytes in the file, or those of its entry in a dictionary."""
_TEXT = ("image_id", "image", "mask", "split", CORRECTED.name)


class Bomb(ValueError):
    """A file announces, or decodes to, more than it can hold."""


class IndexSource:
    """An index table's file.

    Attributes:
        num_rows: that it announces.
        num_bytes: of its decoded columns, as it announces them.
    """

    def __init__(self, file: pa.NativeFile) -> None:
        """Open a file for random access.

        Raises:
            pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError: it is not an index table; `Bomb`: it announces too
                much.
        """
        self._file, self._size = file, int(file.size())
        self._table = pq.ParquetFile(file)
        self.about: Any = json.loads(self._table.schema_arrow.metadata[b"vwl"])
        there = self._table.schema_arrow.names
        missing = [name for name in SCHEMA.names[:5] if name not in there]
        if missing:
            raise KeyError(f"it has no column {missing[0]}")
        self.names = [*SCHEMA.names[:5], *(name for name in ("negative", CORRECTED.name) if name in there)]
        self.num_rows = int(self._table.metadata.num_rows)
        self._chunks = list(self._column_chunks())
        self.num_bytes = sum(chunk.total_uncompressed_size for *_, chunk in self._chunks)
        self._check_announced()

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows in order.

        Raises:
            pa.ArrowException, OSError, ValueError: the file is damaged; `Bomb`: it decodes to more, or other rows, than it announces.
        """
        decoded = num_rows = 0
        for raw in self._table.iter_batches(self._batch_rows(), columns=self.names):
            num_rows += len(raw)
            decoded += sum(_text_size(raw.column(name)) for name in self.names if name in _TEXT)
            if decoded > self._most_bytes:
                raise Bomb(f"its {self._size:,} bytes decode to more than {self._most_bytes:,}")
            yield raw
        if num_rows != self.num_rows:
            raise Bomb(f"it announces {self.num_rows:,} rows and holds {num_rows:,}")

    @property
    def _most_bytes(self) -> int:
        return self._size * _EXPANSION + _ALWAYS

    def _column_chunks(self) -> Iterator[tuple[int, str, Any]]:
        """Yield row group, column and metadata of each column chunk that is read."""
        metadata = self._table.metadata
        for group in range(metadata.num_row_groups):
            for number in range(metadata.num_columns):
                chunk = metadata.row_group(group).column(number)
                name = chunk.path_in_schema.partition(".")[0]
                if name in self.names:
                    yield group, name, chunk

    def _check_announced(self) -> None:
        if not 0 <= self.num_rows <= self._size * _ROWS_A_BYTE:
            raise Bomb(f"it announces {self.num_rows:,} rows, more than {self._size:,} bytes can hold")
        if not 0 <= self.num_bytes <= self._most_bytes:
            raise Bomb(f"it announces {self.num_bytes:,} decoded bytes, more than {self._size:,} bytes can hold")
        num_labels = sum(chunk.num_values for _, name, chunk in self._chunks if name == "labels")
        num_classes = len(self.about["classes"]) if isinstance(self.about, dict) and isinstance(self.about.get("classes"), list) else 0
        if not 0 <= num_labels <= self.num_rows * (num_classes + 1) + _MORE_LABELS:
            raise Bomb(f"it announces {num_labels:,} labels for {self.num_rows:,} rows")

    def _batch_rows(self) -> int:
        """Return the number of rows of a batch, so many that none decodes to more than `_BATCH_BYTES` of text."""
        longest = 1
        for group, name, chunk in self._chunks:
            if name not in _TEXT:
                continue
            if not {*chunk.encodings} <= _PLAIN:  # a value may repeat any part of the one before
                longest = max(longest, chunk.total_uncompressed_size)
            elif chunk.has_dictionary_page:
                longest = max(longest, self._longest_in_dictionary(group, name))
        most = 1024 if CORRECTED.name in self.names else BATCH_ROWS
        return max(1, min(most, _BATCH_BYTES // longest))

    def _longest_in_dictionary(self, group: int, name: str) -> int:
        """Return the bytes of the longest value of a column chunk's dictionary, which the first row brings along."""
        table = pq.ParquetFile(self._file, read_dictionary=[name], metadata=self._table.metadata)
        first = next(table.iter_batches(1, row_groups=[group], columns=[name]), None)
        if first is None or not pa.types.is_dictionary(first.column(0).type):
            return 0
        return int(pc.max(pc.binary_length(first.column(0).dictionary)).as_py() or 0)


def _text_size(array: pa.Array) -> int:
    """Return the bytes of a column's text, 0 for one of another type."""
    try:
        if pa.types.is_dictionary(array.type):
            return int(pc.sum(pc.binary_length(array.dictionary).take(array.indices)).as_py() or 0)
        return int(pc.sum(pc.binary_length(array)).as_py() or 0)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return 0
