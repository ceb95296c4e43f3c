"""How the cost of an inference stage grows with the data set, without the stage's own work: memory, start, scheduling, resuming, finding.

Synthetic index tables of more and more rows, without images. All shards of a CAM stage are scheduled on a local Ray; one in a hundred
writes tiny maps of its images, the others only their markers. Then a new process looks which shards are finished, as a resumed stage
does, and reads one map. Each size has processes of its own, and memory is the resident set above that of the same process before.

`--rows 10000 100000 1000000 10000000` is the table of docs/performance.md; 10,000,000 rows take half an hour and 4 GiB of disk.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console
from rich.table import Table

from vwl.config.files import load_recipe
from vwl.data.index import Row
from vwl.data.rows import image_ids
from vwl.engine import map as ray_map
from vwl.engine.base import Progress
from vwl.engine.session import session
from vwl.inference.build import InferenceSpec, ProcessShard
from vwl.inference.runner import Shard, process, unfinished
from vwl.inference.shard_files import check_shards
from vwl.inference.stage import Stage
from vwl.storage.checked import write_checked
from vwl.storage.score_maps import MapReader, ScoreMap
from vwl.workflow.run_folder import Run

CORES = 2
STAGE = "cam"
SAMPLE = 100
"""One in so many shards has maps."""
CLASSES = ("background", *(f"class {number}" for number in range(1, 21)))


class TinyMaps(Stage):
    """A map of one cell for each image."""

    def __call__(self, row: Row) -> ScoreMap:
        return ScoreMap(row.image_id, row.labels, 4, 4, np.full((len(row.labels), 1, 1), 0.5, np.float16))


@dataclass(frozen=True)
class TinySpec(InferenceSpec):
    """A stage that does next to nothing, and records the memory of its actors in `memory`."""

    memory: str = ""

    def processor(self) -> ProcessShard:
        stage, out, before, done = TinyMaps(), self.run / self.stage, resident(), 0
        stage.index = self.index
        peak = before

        def work(shard: Shard) -> dict[str, str]:
            nonlocal peak, done
            if shard.number % SAMPLE == 0:
                process(stage, shard, out)
            else:
                about = {"images": len(shard.rows), "failed": {}, "ids": shard.images_digest, "files": {}}
                write_checked(out / "done", shard.marker, about)
            peak, done = max(peak, resident()), done + 1
            if done % 20 == 1:
                Path(self.memory, f"{os.getpid()}.json").write_text(json.dumps([before, peak]))
            return {}

        return work


def resident() -> int:
    """Return the resident memory of this process, MiB."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") // 2**20


def peak_resident() -> int:
    """Return the largest resident memory that this process has had, MiB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) // 2**10


def write_table(path: Path, num_rows: int) -> None:
    """Write an index table of images that do not exist, column by column."""
    about = {"classes": CLASSES, "palette": [0] * 768, "root": str(path.parent), "source": "synthetic", "format": 1}
    fields = [("image_id", pa.string()), ("image", pa.string()), ("labels", pa.list_(pa.int32())), ("mask", pa.string())]
    schema = pa.schema([*fields, ("split", pa.string())]).with_metadata({b"vwl": json.dumps(about).encode()})
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for first in range(0, num_rows, 2**20):
            numbers = np.arange(first, min(first + 2**20, num_rows), dtype=np.int32)
            ids = pc.binary_join_element_wise("img", pc.utf8_lpad(pa.array(numbers).cast(pa.string()), 9, "0"), "_")
            images = pc.binary_join_element_wise(pc.binary_join_element_wise("images", ids, "/"), "jpg", ".")
            labels = pa.ListArray.from_arrays(np.arange(len(numbers) + 1, dtype=np.int32), pa.array(numbers % 20 + 1))
            split = pa.array(np.full(len(numbers), "train"))
            writer.write_table(pa.Table.from_arrays([ids, images, labels, pa.nulls(len(numbers), pa.string()), split], schema=schema))


def drive(folder: Path, ray: bool) -> dict[str, float]:
    """Open a run and schedule all shards of its stage on Ray, or run them one after the other in this process."""
    before, begin, cpu = resident(), time.perf_counter(), time.process_time()
    run = Run.start(str(folder / "run"), load_recipe("demo"), str(folder / "index.parquet"))
    opened = time.perf_counter()
    run.start_stage(STAGE)
    todo = unfinished(run.shards(STAGE), run.stage_folder(STAGE))
    started = time.perf_counter()
    seen: list[tuple[float, int]] = []

    def follow(progress: Progress) -> None:
        seen.append((time.perf_counter(), progress.done))
        if len(seen) % 1000 == 2:
            print(f"{time.perf_counter() - begin:,.0f} s: {len(seen) - 1} shards, driver {resident() - before} MiB", file=sys.stderr)

    (folder / "memory").mkdir()
    cpu = time.process_time() - cpu
    spec = TinySpec(STAGE, run.recipe, run.index_path, run.folder, index=run.index.without_rows(), memory=str(folder / "memory"))
    found = {"images_per_shard": len(todo[0].rows), "shards": len(todo), "open_s": opened - begin, "start_stage_s": started - opened}
    if not ray:
        work = spec.processor()
        for shard in todo:
            work(shard)
        return found | {"start_cpu_s": cpu, "driver_mib": peak_resident() - before}
    with session(None, cpus=CORES):
        connected, cpu_connected = time.perf_counter(), time.process_time()
        ray_map.run_shards(spec, todo, 0, follow)
        cpu_scheduling = time.process_time() - cpu_connected
    at = [when for when, done in seen if done]
    actors = [json.loads(path.read_text()) for path in (folder / "memory").iterdir()]
    return found | {
        "start_cpu_s": cpu,
        "first_shard_s": at[0] - connected + started - begin,
        "shards_per_min": (len(at) - 1) / (at[-1] - at[0]) * 60,
        "driver_cpu_ms_per_shard": cpu_scheduling / len(todo) * 1e3,
        "driver_mib": peak_resident() - before,
        "actor_mib": max(peak - empty for empty, peak in actors),
    }


def resume(folder: Path, ray: bool) -> dict[str, float]:
    """Look which shards are finished, as a stage that is resumed does."""
    before, begin = resident(), time.perf_counter()
    run = Run.open(str(folder / "run"))
    opened, cpu = time.perf_counter(), time.process_time()
    all_shards, out = run.shards(STAGE), run.stage_folder(STAGE)
    found = check_shards(all_shards, out, maps=True)
    left = unfinished(all_shards, out)
    scanned, cpu = time.perf_counter(), time.process_time() - cpu
    if found.faults or left:
        sys.exit(f"{len(left)} shards are not finished, {len(found.faults)} files are damaged")
    return {
        "resume_open_s": opened - begin,
        "resume_scan_s": scanned - opened,
        "resume_scan_cpu_s": cpu,
        "resume_mib": peak_resident() - before,
    }


def find(folder: Path, ray: bool) -> dict[str, float]:
    """Read a map, where it lies being unknown, by the catalogue and by a scan of all files; a hundredth of the files is there."""
    run = Run.open(str(folder / "run"))
    shard = run.shards(STAGE)[len(run.shards(STAGE)) // SAMPLE // 2 * SAMPLE]
    image_id = next(iter(image_ids(shard.rows[-1:])))
    before, begin = resident(), time.perf_counter()
    value = MapReader(run.stage_folder(STAGE)).read(image_id)
    read = time.perf_counter()
    memory = resident() - before
    scanned = len(MapReader(run.stage_folder(STAGE)).locations)
    ended = time.perf_counter()
    if value.image_id != image_id or not scanned:
        sys.exit("another map was read")
    return {"find_ms": (read - begin) * 1e3, "find_mib": memory, "scan_of_1_percent_ms": (ended - read) * 1e3}


PARTS = {"drive": drive, "resume": resume, "find": find}


def measure(num_rows: int, engine: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        write_table(Path(folder, "index.parquet"), num_rows)
        found: dict[str, float] = {"rows": num_rows}
        for part in PARTS:
            done = subprocess.run(
                [sys.executable, __file__, "--part", part, folder, "--engine", engine], stdout=subprocess.PIPE, check=True
            )
            found |= json.loads(done.stdout.splitlines()[-1])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--engine", choices=["ray", "none"], default="ray", help="none: without Ray, in one process")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--part", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part:
        print(json.dumps(PARTS[options.part[0]](Path(options.part[1]), options.engine == "ray")))
        return
    lines = [measure(num_rows, options.engine) for num_rows in options.rows]
    if options.json:
        print(json.dumps(lines, indent=2))
        return
    table = Table("", *(f"{line['rows']:,.0f} rows" for line in lines), title=f"An inference stage without work, {CORES} cores")
    for name in [name for name in lines[0] if name != "rows"]:
        table.add_row(name.replace("_", " "), *(f"{line[name]:,.1f}" if line[name] < 100 else f"{line[name]:,.0f}" for line in lines))
    Console(width=160).print(table)


if __name__ == "__main__":
    main()
