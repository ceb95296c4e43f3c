"""What the runner adds: a stage of about 50 ms an image over 1,000 images, by a plain loop, multiprocessing.Pool, plain processes and Ray.

The stage is the CAM stage, EfficientNet-Lite0 at one scale on one thread; each form writes the same maps. The loop has one process and
the others two; they start from nothing, but a Ray cluster stands already, as it does for the stages of a run. Of the runner's two
forms the overhead is their time over that of a pool just before or after. Parity: the files have the same bytes.
"""

import argparse
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path

import torch
from _paired import Line, paired, seconds_of, show
from _runs import cam_run

from vwl.config.files import load_recipe
from vwl.engine import local, session
from vwl.engine import map as ray_map
from vwl.inference.build import InferenceSpec, build_stage
from vwl.inference.runner import Shard, shards
from vwl.inference.stage import Stage
from vwl.storage.folder import Folder
from vwl.storage.score_maps import write_maps
from vwl.workflow.run_folder import Run

KEYS = ["cam.scales=[1.0]", "cam.hflip=false", "cam.long_side=320", "classifier.backbone.weights=none"]
CORES = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--repeats", type=int, default=3, help="of each pair; the plain loop is timed once")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder, session.session(None, cpus=CORES):
        run = cam_run(Path(folder, "data"), load_recipe("demo", KEYS), options.images)
        spec = InferenceSpec("cam", run.recipe, run.index_path, run.folder)
        todo = shards(run.index.rows)
        forms: dict[str, Callable[[], None]] = {
            "plain loop": lambda: loop(spec, todo),
            "Pool": lambda: pool(spec, todo),
            "processes": lambda: local.run_shards(spec, todo, 0, lambda *_: None, CORES),
            "Ray": lambda: ray_map.run_shards(spec, todo, 0, lambda *_: None, CORES),
        }
        files: list[dict[str, bytes]] = []

        def afresh(name: str) -> Callable[[], None]:
            def work() -> None:
                run.stage_folder("cam").clear()
                forms[name]()
                files.append(maps_of(run))

            return work

        found = {name: paired(afresh("Pool"), afresh(name), options.repeats, warm_up=False) for name in ("processes", "Ray")}
        single = seconds_of(afresh("plain loop"))
    equal = all(one == files[0] for one in files)
    parity = "same bytes" if equal else "NOT the same bytes"

    def line(what: str, first: float, second: float, ratio: float, wanted: str = "") -> Line:
        return Line(
            f"runner, image: {what}", *(f"{seconds / options.images * 1e3:.1f} ms" for seconds in (first, second)), ratio, wanted, parity
        )

    ours = found["processes"]
    lines = [
        *(line(f"Pool, {name} (overhead)", pair.first, pair.second, 1 / pair.ratio, "under 1.05") for name, pair in found.items()),
        line("plain loop on one core, our processes on 2", single, ours.second, single / ours.second),
    ]
    show(f"Runner, {options.images} images, {CORES} cores", lines, equal)


def maps_of(run: Run) -> dict[str, bytes]:
    folder = run.stage_folder("cam")
    return {name: folder.read(name) for name in folder.names(".parquet")}


def loop(spec: InferenceSpec, todo: list[Shard]) -> None:
    """The stage over all images in this process."""
    stage = build_stage(spec)
    for shard in todo:
        write(stage, shard, spec.run / spec.stage)


def write(stage: Stage, shard: Shard, out: Folder) -> None:
    write_maps(out, f"part-{shard.number:05d}.parquet", [stage(row) for row in shard.rows])


_stage: Stage
_out: Folder


def begin(spec: InferenceSpec) -> None:
    """Build the stage of a process of the pool."""
    global _stage, _out
    torch.set_num_threads(1)
    _stage, _out = build_stage(spec), spec.run / spec.stage


def one(shard: Shard) -> None:
    write(_stage, shard, _out)


def pool(spec: InferenceSpec, todo: list[Shard]) -> None:
    with get_context("spawn").Pool(CORES, begin, (spec,)) as workers:
        for _ in workers.imap_unordered(one, todo):
            pass


if __name__ == "__main__":
    main()
