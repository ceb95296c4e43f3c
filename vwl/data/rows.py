"""The rows of a data set as columns: a lazy sequence of `Row` over Arrow record batches, which may be mapped from a file.

`Row` objects are made on access. What needs a column of all rows (labels, splits) takes it as a numpy array or works on masks of rows, so
that no process holds an object for each image of a large data set.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, overload

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vwl.data.columns import BATCH_ROWS, CORRECTED, SCHEMA, Columns
from vwl.data.row_checks import SPLITS

_MOST_BY_VALUE = BATCH_ROWS
"""Most rows that are sent to another process themselves."""
_PIECE_ROWS = 1024
"""Rows that an iteration makes at a time."""


@dataclass(frozen=True)
class Row:
    """One image of a data set.

    Attributes:
        image_id: unique name, without folder and extension.
        image: path of the image file, relative to the root.
        labels: class ids of the objects in it, 1..C, ascending.
        mask: path of the ground-truth mask, relative to the root; None if there is none.
        split: `train`, `aug`, `val` or `test`.
        negative: whether it is known to show no object; `labels` is then empty.
        corrected: PNG of its corrected mask; None if there is none.
    """

    image_id: str
    image: str
    labels: tuple[int, ...]
    mask: str | None
    split: str
    negative: bool = False
    corrected: bytes | None = field(default=None, repr=False)

    @property
    def is_labelled(self) -> bool:
        """Whether it is known which classes the image shows."""
        return bool(self.labels) or self.negative

    @property
    def has_truth(self) -> bool:
        """Whether the image has ground truth: a corrected mask, or one of the data set."""
        return self.corrected is not None or self.mask is not None


class Rows(Sequence[Row]):
    """Some rows of a data set, in an order: a sequence of `Row` objects that are made on access.

    Attributes:
        columns: all rows of the data set.
        positions: of these rows in it, (n,) integers or a range.
    """

    def __init__(self, columns: Columns, positions: "np.ndarray | range | None" = None) -> None:
        """Use the rows at some positions, by default all."""
        self.columns = columns
        self.positions: np.ndarray | range = range(len(columns)) if positions is None else positions

    def __len__(self) -> int:
        return len(self.positions)

    @overload
    def __getitem__(self, key: int) -> Row: ...
    @overload
    def __getitem__(self, key: slice) -> "Rows": ...
    def __getitem__(self, key: int | slice) -> "Row | Rows":
        if isinstance(key, slice):
            return Rows(self.columns, self.positions[key])
        position = int(self.positions[key])
        (piece,) = self.columns.pieces(range(position, position + 1), self._names)
        return next(_rows_of(piece))

    def __iter__(self) -> Iterator[Row]:
        for first in range(0, len(self), _PIECE_ROWS):
            for piece in self.columns.pieces(self.positions[first : first + _PIECE_ROWS], self._names):
                yield from _rows_of(piece)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sequence) or isinstance(other, str | bytes):
            return NotImplemented
        if isinstance(other, Rows) and other.columns is self.columns and np.array_equal(other.positions, self.positions):
            return True
        return len(self) == len(other) and all(mine == theirs for mine, theirs in zip(self, other, strict=True))

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __repr__(self) -> str:
        return f"Rows of {len(self):,} images"

    def __reduce__(self) -> tuple[Callable[..., "Rows"], tuple[Any, ...]]:
        """Travel with these rows only, or, where they are many, as positions in the table, which is opened again."""
        if self.columns.reopen is not None and len(self) > _MOST_BY_VALUE:
            return _reopened, (self.columns.reopen, self.positions)
        return _from_batches, (list(self.compact().columns.batches),)

    @property
    def _names(self) -> list[str]:
        return [*SCHEMA.names, CORRECTED.name] if self.columns.has_corrections else SCHEMA.names

    @property
    def is_whole(self) -> bool:
        """Whether these are all rows of the data set, in its order."""
        return isinstance(self.positions, range) and self.positions == range(len(self.columns))

    def compact(self) -> "Rows":
        """Return these rows with columns that hold no others."""
        if self.is_whole:
            return self
        pieces = self.columns.pieces(self.positions, self._names)
        return Rows(Columns([piece.take(pa.array(np.arange(len(piece)))) for piece in pieces]))  # a slice would keep all of its batch

    # Masks and counts: no object is made for a row.

    def where(self, mask: np.ndarray) -> "Rows":
        """Return the rows for which `mask` (n,) bool is true."""
        positions = np.asarray(self.positions, dtype=self.columns.position_type)[mask]
        if len(positions) and positions[-1] - positions[0] == len(positions) - 1 and (np.diff(positions) == 1).all():
            return Rows(self.columns, range(int(positions[0]), int(positions[-1]) + 1))
        return Rows(self.columns, positions)

    def in_splits(self, *names: str) -> np.ndarray:
        """Return which rows are in one of the splits, (n,) bool."""
        codes, found = self._column("split", lambda array: array.to_numpy()), np.zeros(len(self), bool)
        for name in names:
            found |= codes == (SPLITS.index(name) if name in SPLITS else -1)
        return found

    def split_counts(self) -> dict[str, int]:
        """Return the number of rows of each split, in the order in which the splits first occur."""
        codes, first, counts = np.unique(self._column("split", lambda array: array.to_numpy()), return_index=True, return_counts=True)
        return {SPLITS[int(codes[n])]: int(counts[n]) for n in np.argsort(first)}

    @property
    def num_labels(self) -> np.ndarray:
        """Number of labels of each row, (n,) int32."""
        return self._column("labels", lambda array: pc.list_value_length(array).to_numpy())

    @property
    def negative(self) -> np.ndarray:
        """Which rows are negative, (n,) bool."""
        return self._column("negative", lambda array: array.to_numpy(zero_copy_only=False))

    @property
    def is_labelled(self) -> np.ndarray:
        """Of which rows it is known which classes the image shows, (n,) bool."""
        return (self.num_labels > 0) | self.negative

    @property
    def has_mask(self) -> np.ndarray:
        """Which rows have a mask of the data set, (n,) bool."""
        return self._column("mask", _is_valid)

    @property
    def is_corrected(self) -> np.ndarray:
        """Which rows have a corrected mask, (n,) bool."""
        return self._column(CORRECTED.name, _is_valid) if self.columns.has_corrections else np.zeros(len(self), bool)

    @property
    def has_truth(self) -> np.ndarray:
        """Which rows have ground truth: a corrected mask, or one of the data set, (n,) bool."""
        return self.has_mask | self.is_corrected

    def label_counts(self, num_objects: int) -> np.ndarray:
        """Return the number of rows with each label, (C + 1,) int64, of class ids 0..C."""
        counts = np.zeros(num_objects + 1, np.int64)
        for piece in self.columns.pieces(self.positions, ["labels"]):
            counts += np.bincount(piece.column(0).flatten().to_numpy(), minlength=num_objects + 1)
        return counts

    def targets(self, num_objects: int) -> np.ndarray:
        """Return which labels each row has, (n, C) bool; column 0 is class id 1."""
        found, first = np.zeros((len(self), num_objects), bool), 0
        for piece in self.columns.pieces(self.positions, ["labels"]):
            lengths = pc.list_value_length(piece.column(0)).to_numpy()
            found[np.repeat(np.arange(first, first + len(piece)), lengths), piece.column(0).flatten().to_numpy() - 1] = True
            first += len(piece)
        return found

    @property
    def image_ids(self) -> "ImageIds":
        """The image ids, a sequence of str that are made on access."""
        return ImageIds(self)

    def includes(self, *some: "Rows") -> np.ndarray:
        """Return which rows are also in one of `some`, rows of the same data set, (n,) bool."""
        marked = np.zeros(len(self.columns), bool)
        for rows in some:
            marked[_index_of(rows.positions)] = True
        return marked[_index_of(self.positions)]

    def among(self, image_ids: Iterable[str]) -> np.ndarray:
        """Return which rows have one of the image ids, (n,) bool; ids of no row are ignored, and never held all at once."""
        marked, remaining = np.zeros(len(self.columns) + 1, bool), iter(image_ids)
        while some := list(islice(remaining, BATCH_ROWS)):
            marked[self.columns.find(some)] = True
        marked[-1] = False  # of ids without a row
        return marked[:-1][_index_of(self.positions)]

    def _column(self, name: str, values: Callable[[pa.Array], np.ndarray]) -> np.ndarray:
        found = [values(piece.column(0)) for piece in self.columns.pieces(self.positions, [name])]
        return np.concatenate(found) if found else np.zeros(0, np.int32)


class ImageIds(Sequence[str]):
    """The image ids of rows."""

    def __init__(self, rows: Rows) -> None:
        """Use the ids of `rows`."""
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, key: int) -> str: ...
    @overload
    def __getitem__(self, key: slice) -> "ImageIds": ...
    def __getitem__(self, key: int | slice) -> "str | ImageIds":
        return ImageIds(self._rows[key]) if isinstance(key, slice) else self._rows[key].image_id

    def __iter__(self) -> Iterator[str]:
        for piece in self._rows.columns.pieces(self._rows.positions, ["image_id"]):
            yield from piece.column(0).to_pylist()


def image_ids(rows: Sequence[Row]) -> Iterable[str]:
    """Return the image ids of rows; no object is made for a row of `Rows`."""
    return rows.image_ids if isinstance(rows, Rows) else [row.image_id for row in rows]


def joined(*some: Rows) -> Rows:
    """Return rows of the same data set one after the other."""
    columns = some[0].columns
    return Rows(columns, np.concatenate([np.asarray(rows.positions, dtype=columns.position_type) for rows in some]))


def batch_of(rows: Sequence[Row], corrected: bool) -> pa.RecordBatch:
    """Return rows, which `row_checks.row_problem` accepts, as a record batch; `corrected` says whether with the column of that name."""
    columns = [
        [row.image_id for row in rows],
        [row.image for row in rows],
        [row.labels for row in rows],
        [row.mask for row in rows],
        [SPLITS.index(row.split) for row in rows],
        [row.negative for row in rows],
    ]
    arrays = [pa.array(values, column.type) for values, column in zip(columns, SCHEMA, strict=True)]
    if not corrected:
        return pa.RecordBatch.from_arrays(arrays, schema=SCHEMA)
    return pa.RecordBatch.from_arrays([*arrays, pa.array([row.corrected for row in rows], CORRECTED.type)], schema=SCHEMA.append(CORRECTED))


def _rows_of(piece: pa.RecordBatch) -> Iterator[Row]:
    for image_id, image, labels, mask, split, *more in zip(*(column.to_pylist() for column in piece.columns), strict=True):
        yield Row(image_id, image, tuple(labels), mask, SPLITS[split], *more)


def _is_valid(array: pa.Array) -> np.ndarray:
    return array.is_valid().to_numpy(zero_copy_only=False)


def _index_of(positions: "np.ndarray | range") -> "np.ndarray | slice":
    """Return what selects positions in an array of all rows, without a copy for contiguous ones."""
    if isinstance(positions, range) and positions.step == 1:
        return slice(positions.start, positions.stop)
    return np.asarray(positions, dtype=np.int64)


def _reopened(reopen: Callable[[], Columns], positions: "np.ndarray | range") -> Rows:
    return Rows(reopen(), positions)


def _from_batches(batches: list[pa.RecordBatch]) -> Rows:
    return Rows(Columns(batches))
