"""Index tables of more and more rows: time and memory of all that a process does with one; no images are behind them.

Each measurement runs in a process of its own. Memory is counted above the same process before: private memory (what each process holds for
itself) and, beside it, pages of mapped files, which all processes of a node share and the kernel may drop at any time. Parity: ids are
found where they were written, and the order of an epoch has each sample of a sampled part once.

`first process` checks the table and writes the node's mapped copy, `next process` maps it; below `MAPPED_ROWS` rows both decode the table.
`--in-memory` adds a process without a cache (VWL_CACHE_GIB=0), which holds the columns itself.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from vwl.data.columns import SCHEMA
from vwl.data.index import read_index
from vwl.data.sampler import generator, global_batch
from vwl.storage.masks import voc_palette

SIZES = (10**4, 10**5, 10**6)
NUM_CLASSES, ROW_GROUP, ACCESSED, BATCH = 20, 2**20, 1000, 16


@dataclass(frozen=True)
class Measured:
    """One row of the table.

    Attributes:
        rows: of the index.
        process: which one.
        what: it did.
        seconds, cpu_seconds: that this took.
        private_mib: private memory after it, above that at the start of the process.
        mapped_mib: pages of mapped files after it, above those at the start.
        peak_mib: highest resident memory so far, both kinds, above that at the start.
    """

    rows: int
    process: str
    what: str
    seconds: float
    cpu_seconds: float
    private_mib: float
    mapped_mib: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=SIZES)
    parser.add_argument("--in-memory", action="store_true")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        print(json.dumps([asdict(line) for line in child(*options.child)]))
        return
    lines: list[Measured] = []
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "index.parquet")
            write_table(path, rows)
            for process in ("first", "next", *(["in memory"] if options.in_memory else [])):
                lines += started(path, process, Path(folder))
    if options.json:
        print(json.dumps([asdict(line) for line in lines], indent=2))
    else:
        Console(width=140).print(table_of(lines))


def write_table(path: Path, num_rows: int) -> None:
    """Write an index table column-wise: counted ids out of order, one to three labels, a mask for each twentieth image, which is in val."""
    about = {
        "classes": ["background", *(f"class {number}" for number in range(1, NUM_CLASSES + 1))],
        "palette": [int(value) for value in voc_palette()],
        "root": "/nowhere",
        "source": "a benchmark",
        "format": 1,
    }
    schema = pa.schema([*(SCHEMA.field(n) for n in range(4)), ("split", pa.string())], {b"vwl": json.dumps(about).encode()})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, num_rows, ROW_GROUP):
            numbers, rng = np.arange(first, min(first + ROW_GROUP, num_rows)), np.random.default_rng(first)
            ids = image_ids(numbers)
            lengths = rng.integers(1, 4, len(numbers))
            offsets = np.concatenate([[0], np.cumsum(lengths)])
            labels = (
                np.repeat(rng.integers(1, NUM_CLASSES - 2, len(numbers)), lengths)
                + np.arange(offsets[-1])
                - np.repeat(offsets[:-1], lengths)
            )
            in_val = pa.array(numbers % 20 == 0)
            columns = [
                ids,
                pc.binary_join_element_wise("images/", ids, ".jpg", ""),
                pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), pa.array(labels, pa.int32())),
                pc.if_else(in_val, pc.binary_join_element_wise("masks/", ids, ".png", ""), None),
                pc.if_else(in_val, "val", "train"),
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


def image_ids(numbers: np.ndarray) -> pa.Array:
    """Return the ids of rows; 7,919 is prime, so each occurs once."""
    return pc.binary_join_element_wise("img_", pc.utf8_lpad(pa.array(numbers * 7919 % 10**10).cast(pa.string()), 10, "0"), "")


def started(path: Path, process: str, folder: Path) -> list[Measured]:
    env = os.environ | {"TMPDIR": str(folder), "VWL_CACHE_GIB": "0" if process == "in memory" else "100"}
    command = [sys.executable, __file__, "--child", str(path), process]
    return [Measured(**line) for line in json.loads(subprocess.run(command, env=env, check=True, stdout=subprocess.PIPE).stdout)]


def child(path: str, process: str) -> list[Measured]:
    """Do everything in this process and return a line for each part."""
    lines: list[Measured] = []
    before = memory()

    def measured(what: str, work: Callable[[], Any]) -> Any:
        wall, cpu = time.perf_counter(), time.process_time()
        result = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        grown = [round(after - start, 1) for after, start in zip(memory(), before, strict=True)]
        lines.append(Measured(num_rows(), process, what, round(wall, 3), round(cpu, 3), *grown))
        return result

    def num_rows() -> int:
        return pq.read_metadata(path).num_rows

    index = measured("read_index", lambda: read_index(path))
    measured("fingerprint", index.fingerprint)
    rng = np.random.default_rng(0)

    def accessed() -> list[Any]:
        rows = index.split("train_aug")
        return [rows[int(number)] for number in rng.integers(0, len(rows), ACCESSED)]

    measured(f"split, {ACCESSED:,} random rows", accessed)
    wanted = np.sort(rng.choice(len(index.rows), ACCESSED))
    found = measured(f"lookup of {ACCESSED:,} ids", lambda: index.rows.columns.find(image_ids(wanted).to_pylist()))
    if not np.array_equal(found, wanted):
        sys.exit("ids are NOT found where they were written")
    measured("labels of all rows counted", lambda: index.rows.label_counts(NUM_CLASSES))
    steps = min(len(index.rows) // BATCH, 2000)

    def order() -> list[np.ndarray]:
        return [global_batch(0, step, len(index.rows), BATCH)[1] for step in range(steps)]

    batches = measured(f"order of {steps:,} steps of {BATCH}", order)
    if len(np.unique(np.concatenate(batches))) != steps * BATCH:
        sys.exit("a sample is NOT in an epoch once")
    if process == "first":
        rng = generator("old")
        measured("order of 1 step, whole array", lambda: rng.permutation(len(index.rows))[:BATCH])
    return lines


def memory() -> tuple[float, float, float]:
    """Return private memory, pages of mapped files and the peak of both, MiB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    private, mapped, peak = (int(status[key].split()[0]) / 1024 for key in ("RssAnon", "RssFile", "VmHWM"))
    return private, mapped, peak


def table_of(lines: list[Measured]) -> Table:
    heads = ("rows", "process", "what", "seconds", "CPU s", "private MiB", "mapped MiB", "peak MiB")
    table = Table(*heads, title="An index of more and more rows")
    for line in lines:
        figures = [f"{line.seconds:,.2f}", f"{line.cpu_seconds:,.2f}"]
        figures += [f"{value:,.0f}" for value in (line.private_mib, line.mapped_mib, line.peak_mib)]
        table.add_row(f"{line.rows:,}", line.process, line.what, *figures)
    return table


if __name__ == "__main__":
    main()
