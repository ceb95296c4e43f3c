"""What the runner adds: a stage of about 50 ms an image over 1,000 images, by a plain loop, multiprocessing.Pool, plain processes and Ray.

The stage is the CAM stage, EfficientNet-Lite0 at one scale on one thread; each form writes the same maps. The loop has one process and
the others two; they start from nothing, but a Ray cluster stands already, as it does for the stages of a run. Of the runner's two
forms the overhead is their time over the pool's. Parity: the files have the same bytes.
"""

import argparse
import statistics
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch
from _paired import Line, seconds_of, show
from _runs import cam_run

from vwl.engine import local, session
from vwl.engine import map as ray_map
from vwl.inference.build import MapSpec, build_stage
from vwl.inference.runner import Shard, shards
from vwl.inference.stage import Stage
from vwl.recipe import load_recipe
from vwl.run import Run
from vwl.store import Folder, write_maps

KEYS = ["cam.scales=[1.0]", "cam.mirror=false", "cam.long_side=320", "classifier.backbone.weights=none"]
CORES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3, help="of the forms with two processes; the plain loop is timed once")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, session.session(None, cpus=CORES):
        run = cam_run(Path(folder, "data"), load_recipe("demo", KEYS), options.images)
        spec = MapSpec("cam", run.recipe, run.index_path, run.folder)
        forms: dict[str, Callable[[], None]] = {
            "plain loop": lambda: loop(spec, shards(run.index.rows)),
            "Pool": lambda: pool(spec, shards(run.index.rows)),
            "processes": lambda: local.run_shards(spec, shards(run.index.rows), 0, lambda *_: None, CORES),
            "Ray": lambda: ray_map.run_shards(spec, shards(run.index.rows), 0, lambda *_: None, CORES),
        }
        seconds: dict[str, list[float]] = {name: [] for name in forms}
        files: list[dict[str, bytes]] = []
        for repeat in range(options.repeats):
            for name, work in list(forms.items())[:: -1 if repeat % 2 else 1]:  # in turn, the order turned round
                if repeat and name == "plain loop":
                    continue
                run.stage_folder("cam").clear()
                seconds[name].append(seconds_of(work))
                files.append(maps_of(run))
    equal = all(found == files[0] for found in files)
    parity = "same bytes" if equal else "NOT the same bytes"
    medians = {name: statistics.median(found) for name, found in seconds.items()}
    shown = {name: f"{median / options.images * 1e3:.1f} ms" for name, median in medians.items()}

    def line(what: str, first: str, second: str, wanted: str = "") -> Line:
        ratio = statistics.median(b / a for a, b in zip(seconds[first], seconds[second], strict=False))
        return Line(f"runner, image: {what}", shown[first], shown[second], ratio, wanted, parity)

    lines = [
        line("Pool, our processes (overhead)", "Pool", "processes", "under 1.05"),
        line("Pool, Ray (overhead)", "Pool", "Ray", "under 1.05"),
        line("plain loop on one core, our processes on 2", "plain loop", "processes"),
    ]
    show(f"Runner, {options.images} images, {CORES} cores", lines, equal)


def maps_of(run: Run) -> dict[str, bytes]:
    folder = run.stage_folder("cam")
    return {name: folder.read(name) for name in folder.names(".parquet")}


def loop(spec: MapSpec, todo: list[Shard]) -> None:
    """The stage over all images in this process."""
    stage = build_stage(spec)
    for shard in todo:
        write(stage, shard, spec.run / spec.stage)


def write(stage: Stage, shard: Shard, out: Folder) -> None:
    write_maps(out, f"part-{shard.number:05d}.parquet", [stage(row) for row in shard.rows])


_stage: Stage
_out: Folder


def begin(spec: MapSpec) -> None:
    """Build the stage of a process of the pool."""
    global _stage, _out
    torch.set_num_threads(1)
    _stage, _out = build_stage(spec), spec.run / spec.stage


def one(shard: Shard) -> None:
    write(_stage, shard, _out)


def pool(spec: MapSpec, todo: list[Shard]) -> None:
    with get_context("spawn").Pool(CORES, begin, (spec,)) as workers:
        for _ in workers.imap_unordered(one, todo):
            pass


if __name__ == "__main__":
    main()
