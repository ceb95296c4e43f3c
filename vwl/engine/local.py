"""The same work without Ray: trainings and shards in this process, for tests, debugging and machines that Ray does not run on."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from vwl.errors import Interrupted
from vwl.inference.build import MapSpec, build_stage
from vwl.inference.runner import Shard, process
from vwl.training.build import TrainSpec, build_task
from vwl.training.distributed import Layout
from vwl.training.loop import Control, train

Report = Callable[[str, int, int, str | dict[str, float]], None]


def fit(spec: TrainSpec, layout: Layout, report: Report) -> dict[str, Any]:
    """Train a stage in this process; as `vwl.engine.train.fit`, for one worker."""
    torch.set_num_threads(layout.cpus_per_worker)
    with _stop_flag() as stop:
        control = Control(progress=lambda step, total, figures: report(spec.stage, step, total, figures), stop_requested=stop.is_set)
        result = train(build_task(spec), layout, spec.folder, spec.fingerprint, control)
    if not result["finished"]:
        raise Interrupted(f"{spec.stage} stopped")
    return result


def run_shards(spec: MapSpec, shards: list[Shard], images_done: int, report: Report) -> None:
    """Run shards through a stage in this process; as `vwl.engine.map.run_shards`."""
    torch.set_num_threads(1)  # as Ray's actors: the last bit of a convolution depends on the number of threads
    stage = build_stage(spec)
    total = images_done + sum(len(shard.rows) for shard in shards)
    report(spec.stage, images_done, total, "")
    for shard in shards:
        process(stage, shard, spec.run / spec.stage)
        images_done += len(shard.rows)
        report(spec.stage, images_done, total, "")


@contextmanager
def _stop_flag() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a request to save and leave (main thread only)."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
