"""The fingerprint of a data set, computed from its columns in a stream.

It is the hash of the JSON text of classes and rows, as if that were made at once: it names the runs that exist.
"""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vwl.data.columns import CORRECTED, Columns
from vwl.data.data_fingerprint import DataFingerprint
from vwl.data.image_ids import offsets_and_bytes
from vwl.data.row_checks import SPLITS

_QUOTED_SPLITS = pa.array([json.dumps(split) for split in SPLITS])


class IndexHash:
    """A fingerprint to which record batches are added in the order of their rows."""

    def __init__(self, classes: Sequence[str]) -> None:
        """Start with the class names, background first."""
        self._data, self._training, self._held_out = hashlib.sha256(f"[{json.dumps([*classes])}".encode()), _Pairs(), _Pairs()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of a batch of `vwl.data.rows`."""
        self._data.update(_text(batch))
        if CORRECTED.name in batch.schema.names and batch.column(CORRECTED.name).null_count < len(batch):
            for row in batch.select(["image_id", "split", CORRECTED.name]).to_pylist():
                if row[CORRECTED.name] is not None:
                    pairs = self._training if SPLITS[row["split"]] in ("train", "aug") else self._held_out
                    pairs.add(row["image_id"], hashlib.sha256(row[CORRECTED.name]).hexdigest())

    def result(self) -> str:
        """Return 16 hex digits, and those of corrected masks, if any."""
        data = self._data.copy()
        data.update(b"]")
        return str(DataFingerprint(data.hexdigest()[:16], self._training.result(), self._held_out.result()))


def fingerprint_of(columns: Columns, classes: Sequence[str]) -> str:
    """Return the fingerprint of all rows and the class names."""
    found = IndexHash(classes)
    for batch in columns.batches:
        found.add(batch)
    return found.result()


class _Pairs:
    """The hash of the JSON text of a list of pairs."""

    def __init__(self) -> None:
        self._hash, self._any = hashlib.sha256(b"["), False

    def add(self, *pair: str) -> None:
        self._hash.update(f"{', ' if self._any else ''}{json.dumps(pair)}".encode())
        self._any = True

    def result(self) -> str:
        if not self._any:
            return ""
        whole = self._hash.copy()
        whole.update(b"]")
        return whole.hexdigest()[:16]


def _text(batch: pa.RecordBatch) -> bytes | memoryview:
    """Return the JSON text of each row after `, `."""
    image_id, image, labels, mask, split, negative = (batch.column(n) for n in range(6))
    if any(map(_is_escaped, (image_id, image, mask))):
        return _text_of_values(batch)
    numbers = pa.ListArray.from_arrays(
        pa.array(np.concatenate([[0], np.cumsum(pc.list_value_length(labels).to_numpy())]), pa.int32()), labels.flatten().cast(pa.string())
    )
    parts = [
        ', ["',
        image_id,
        '", "',
        image,
        '", [',
        pc.binary_join(numbers, ", "),
        "], ",
        pc.binary_join_element_wise('"', mask, '"', "").fill_null("null"),
        ", ",
        _QUOTED_SPLITS.take(split),
        pc.if_else(negative, ", true]", "]"),
    ]
    text = pc.binary_join_element_wise(*parts, "")
    return offsets_and_bytes(text)[1].data


def _text_of_values(batch: pa.RecordBatch) -> bytes:
    columns = [batch.column(n).to_pylist() for n in range(6)]
    rows = [
        json.dumps([image_id, image, labels, mask, SPLITS[split], *([True] if negative else [])])
        for image_id, image, labels, mask, split, negative in zip(*columns, strict=True)
    ]
    return "".join(f", {row}" for row in rows).encode()


def _is_escaped(array: pa.Array) -> bool:
    """Return whether JSON text holds some character of the values otherwise than as it is."""
    _, data = offsets_and_bytes(array)
    return bool(((data < 0x20) | (data > 0x7E) | (data == ord('"')) | (data == ord("\\"))).any())
