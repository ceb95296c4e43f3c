"""Checks of an index table's columns, a record batch at a time: which rows may be wrong, and the columns in the types of `vwl.data.rows`.

`suspects` decides nothing: it finds the few rows that `row_checks.row_problem` has to look at, and leaves out only rows that it accepts.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vwl.data.columns import CORRECTED, SCHEMA
from vwl.data.image_ids import offsets_and_bytes
from vwl.data.row_checks import MAX_ID, SPLITS

_UNSAFE = r"[\x00-\x1f\x7f-\x{9f}\x{2028}\x{2029}]"
"""Characters that `row_checks` refuses, but for halves of surrogate pairs, which UTF-8 cannot hold."""
_IS_LIST = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)
_IS_TEXT = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
_IS_BINARY = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)


def canonical(raw: pa.RecordBatch) -> pa.RecordBatch | None:
    """Return a batch of an index table in the types of `SCHEMA`; None where a column's type or text is not that of an index table.

    Splits that are unknown and missing values become null.
    """
    try:
        columns = [
            _text(raw.column("image_id")),
            _text(raw.column("image")),
            _labels(raw.column("labels")),
            pa.nulls(len(raw), pa.string()) if pa.types.is_null(raw.column("mask").type) else _text(raw.column("mask")),
            _split(raw.column("split")),
            _negative(raw),
        ]
        corrected = CORRECTED.name in raw.schema.names
        if corrected:
            columns.append(_binary(raw.column(CORRECTED.name)))
    except (pa.ArrowException, _OtherType):
        return None
    return pa.RecordBatch.from_arrays(columns, schema=SCHEMA.append(CORRECTED) if corrected else SCHEMA)


def suspects(batch: pa.RecordBatch, num_objects: int) -> np.ndarray:
    """Return the numbers (k,) of rows of a canonical batch in which something may be wrong; all others are right.

    Args:
        batch: with the columns of `SCHEMA`.
        num_objects: number of object classes C.
    """
    image_id, image, labels, mask, split, negative = (batch.column(name) for name in SCHEMA.names)
    wrong = _nulls(image_id) | _nulls(image) | _nulls(labels) | _nulls(split) | _nulls(negative)
    wrong |= _unsafe_text(image_id, b"/\\") | _unsafe_path(image) | (_unsafe_path(mask) & ~_nulls(mask))
    lengths = np.diff(offsets_and_bytes(image_id)[0])
    wrong |= (lengths == 0) | (lengths > MAX_ID) | _first_byte(image_id, b".")
    wrong |= _wrong_labels(labels, num_objects)
    wrong |= (pc.list_value_length(labels).fill_null(0).to_numpy() > 0) & negative.fill_null(False).to_numpy(zero_copy_only=False)
    return np.flatnonzero(wrong)


class _OtherType(Exception):
    """A column has a type that only a check of each value can judge."""


def _text(array: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not any(is_text(array.type) for is_text in _IS_TEXT):
        raise _OtherType
    text = array.cast(pa.string())
    text.validate(full=True)  # the bytes of a file need not be UTF-8
    return text


def _labels(array: pa.Array) -> pa.Array:
    if not any(is_list(array.type) for is_list in _IS_LIST) or not pa.types.is_integer(array.type.value_type):
        raise _OtherType
    return array.cast(SCHEMA.field("labels").type)


def _split(array: pa.Array) -> pa.Array:
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not any(is_text(array.type) for is_text in _IS_TEXT):
        raise _OtherType
    return pc.index_in(array.cast(pa.string()), pa.array(SPLITS)).cast(pa.int8())


def _negative(raw: pa.RecordBatch) -> pa.Array:
    if "negative" not in raw.schema.names:
        return pa.array(np.zeros(len(raw), bool))
    if not pa.types.is_boolean(raw.column("negative").type):
        raise _OtherType
    return raw.column("negative")


def _binary(array: pa.Array) -> pa.Array:
    if pa.types.is_null(array.type):
        return pa.nulls(len(array), CORRECTED.type)
    if pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()
    if not any(is_binary(array.type) for is_binary in _IS_BINARY):
        raise _OtherType
    return array.cast(CORRECTED.type)


def _nulls(array: pa.Array) -> np.ndarray:
    return array.is_null().to_numpy(zero_copy_only=False) if array.null_count else np.zeros(len(array), bool)


def _unsafe_text(array: pa.Array, more: bytes) -> np.ndarray:
    """Return in which rows (n,) bool a text holds unsafe characters, or one of the bytes of `more`."""
    offsets, data = offsets_and_bytes(array)
    bad = (data < 0x20) | (data == 0x7F)
    for byte in more:
        bad |= data == byte
    wrong = _rows_with(offsets, bad)
    if (data >= 0x80).any():
        wrong |= pc.match_substring_regex(array, _UNSAFE).fill_null(True).to_numpy(zero_copy_only=False)
    return wrong


def _unsafe_path(array: pa.Array) -> np.ndarray:
    """Return in which rows (n,) bool a path may lead out of the root, be empty or hold unsafe characters."""
    offsets, data = offsets_and_bytes(array)
    dots = np.zeros(len(data), bool)
    dots[1:] = (data[1:] == ord(".")) & (data[:-1] == ord("."))
    return _rows_with(offsets, dots) | _first_byte(array, b"/.") | (np.diff(offsets) == 0) | _unsafe_text(array, b"")


def _first_byte(array: pa.Array, some: bytes) -> np.ndarray:
    """Return which texts (n,) bool begin with one of some bytes."""
    offsets, data = offsets_and_bytes(array)
    found = np.zeros(len(array), bool)
    there = np.flatnonzero(np.diff(offsets))
    found[there] = np.isin(data[offsets[there]], np.frombuffer(some, np.uint8))
    return found


def _rows_with(offsets: np.ndarray, marked: np.ndarray) -> np.ndarray:
    """Return which rows (n,) bool hold a marked value; row n has those from offsets[n] to offsets[n + 1]."""
    found = np.zeros(len(offsets) - 1, bool)
    at = np.flatnonzero(marked)
    if len(at):
        found[np.searchsorted(offsets, at, side="right") - 1] = True
    return found


def _wrong_labels(labels: pa.ListArray, num_objects: int) -> np.ndarray:
    """Return which rows (n,) bool have labels outside 1..C, or not in ascending order, each once."""
    values = labels.flatten()
    lengths = pc.list_value_length(labels).fill_null(0).to_numpy()
    offsets = np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
    wrong = _nulls(values)
    plain = values.fill_null(0).to_numpy()
    wrong |= (plain < 1) | (plain > num_objects)
    first = np.zeros(len(plain) + 1, bool)
    first[offsets] = True
    wrong[1:] |= (plain[1:] <= plain[:-1]) & ~first[1 : len(plain)]
    return _rows_with(offsets, wrong)
