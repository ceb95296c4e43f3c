"""Small index tables that announce, or decode to, more than any machine holds end in one line, soon and with little memory."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hostile.cases import Case, check
from vwl.storage.masks import voc_palette

NOT_A_TABLE = "index.parquet is not an index table made by vwl data prepare"
ABOUT = {"classes": ["background", "cat"], "palette": [int(value) for value in voc_palette()], "root": "/data", "source": "a test"}
MIB = 2**20


def same(value: str, num: int, kind: pa.DataType | None = None) -> pa.Array:
    """One text in every row, which takes a few bytes in memory and in a file."""
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(num, np.int8)), pa.array([value], kind or pa.string()))


def table(num: int, about: Any = ABOUT, **columns: pa.Array) -> pa.Table:
    empty = pa.ListArray.from_arrays(pa.array(np.zeros(num + 1, np.int32)), pa.array([], pa.int32()))
    plain = {"image_id": same("a", num), "image": same("a.jpg", num), "labels": empty, "mask": pa.nulls(num), "split": same("train", num)}
    text = about if isinstance(about, str) else json.dumps(about)
    return pa.table(plain | columns, metadata={b"vwl": text.encode()})


def written(*parts: pa.Table, **options: Any) -> Callable[[Path], Sequence[str | Path]]:
    """Return what writes tables as row groups of one file, and shows it."""

    def make(folder: Path) -> Sequence[str | Path]:
        with pq.ParquetWriter(folder / "index.parquet", parts[0].schema, compression="zstd", **options) as writer:
            for part in parts:
                writer.write_table(part)
        assert (folder / "index.parquet").stat().st_size < MIB
        return ["data", "show", folder / "index.parquet"]

    return make


def lying(folder: Path) -> Sequence[str | Path]:
    """Write a table whose metadata announces more rows than its row group has."""
    make = written(table(3, image_id=pa.array(["a", "b", "c"])))(folder)
    path = folder / "index.parquet"
    data = path.read_bytes()
    length = int.from_bytes(data[-8:-4], "little")
    footer = bytearray(data[-8 - length : -8])
    assert footer.count(b"\x16\x06") > 1  # the compact form of 3 as i64; the last but one of the file's is its number of rows
    for found in (at for at in range(len(footer)) if footer[at : at + 2] == b"\x16\x06"):
        changed = bytearray(footer)
        changed[found + 1] = 40 * 2
        path.write_bytes(data[: -8 - length] + bytes(changed) + data[-8:])
        try:
            metadata = pq.read_metadata(path)
        except Exception:
            continue
        if metadata.num_rows == 40:
            return make
    raise AssertionError("no number of rows found")


LONG = "a" * (10 * MIB)
BOMBS = [
    Case("rows", written(table(2 * MIB)), 1, (NOT_A_TABLE, "it announces 2,097,152 rows, more than", "bytes can hold")),
    Case(
        "a long value",
        written(table(1, image=pa.array(["a" * (40 * MIB)])), use_dictionary=False),
        1,
        (NOT_A_TABLE, "decoded bytes, more"),
    ),
    Case("a long value in every row", written(table(4096, image=same(LONG, 4096))), 1, (NOT_A_TABLE, "decode to more than")),
    Case(
        "a long mask in every row", written(table(4096, corrected=same(LONG, 4096, pa.binary()))), 1, (NOT_A_TABLE, "decode to more than")
    ),
    Case(
        "a long value that each row repeats",
        written(
            pa.table({**table(60).to_pydict(), "mask": [LONG] * 60}, table(60).schema.set(3, pa.field("mask", pa.string()))),
            use_dictionary=False,
            column_encoding={"mask": "DELTA_BYTE_ARRAY"},
        ),
        1,
        (NOT_A_TABLE, "decode to more than"),
    ),
    Case(
        "labels",
        written(table(1, labels=pa.ListArray.from_arrays(pa.array([0, 4 * MIB], pa.int32()), pa.array(np.ones(4 * MIB, np.int32))))),
        1,
        (NOT_A_TABLE, "it announces 4,194,304 labels for 1 rows"),
    ),
    Case("fewer rows than announced", lying, 1, (NOT_A_TABLE, "it announces 40 rows and holds 3")),
    Case("nested metadata", written(table(1, "[" * 100_000)), 1, (NOT_A_TABLE,)),
]


@pytest.mark.parametrize("case", BOMBS, ids=lambda case: case.name)
def test_a_parquet_bomb_ends_in_one_line(case, tmp_path):
    check(case, tmp_path)
