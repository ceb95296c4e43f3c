"""The same work without Ray, for small machines, tests and debugging: trainings in this process, shards in plain processes."""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Any

import torch

from vwl.config.layout import Layout
from vwl.errors import Interrupted, VwlError
from vwl.inference.build import MapSpec, build_stage
from vwl.inference.runner import Shard, process
from vwl.inference.stage import Stage
from vwl.training.build import TrainSpec, build_task
from vwl.training.loop import Control, train

Report = Callable[[str, int, int, str | dict[str, float]], None]
_SHARDS_WORTH_A_PROCESS = 3
"""A process takes some seconds to start."""
_MAX_DEATHS = 10


def fit(spec: TrainSpec, layout: Layout, report: Report) -> dict[str, Any]:
    """Train a stage in this process; as `vwl.engine.train.fit`, for one worker."""
    torch.set_num_threads(layout.cpus_per_worker)
    with _stop_flag() as stop:
        control = Control(progress=lambda step, total, figures: report(spec.stage, step, total, figures), stop_requested=stop.is_set)
        result = train(build_task(spec), layout, spec.folder, spec.fingerprint, control)
    if not result["finished"]:
        raise Interrupted(f"{spec.stage} stopped")
    return result


def run_shards(spec: MapSpec, shards: list[Shard], images_done: int, report: Report, most: int | None = None) -> None:
    """Run shards through a stage in processes of this machine, one a CPU but at most `most`; few shards in this process.

    Raises:
        VwlError: as `vwl.engine.map.run_shards`.
    """
    total = images_done + sum(len(shard.rows) for shard in shards)
    report(spec.stage, images_done, total, "")
    workers = min(most or os.cpu_count() or 1, len(shards) // _SHARDS_WORTH_A_PROCESS)
    for images in _in_this_process(spec, shards) if workers < 2 else _in_processes(spec, shards, workers):
        images_done += images
        report(spec.stage, images_done, total, "")


def split() -> None:
    """One machine has one kind of place: a stage after the other is as fast."""


def _in_this_process(spec: MapSpec, shards: list[Shard]) -> Iterator[int]:
    torch.set_num_threads(1)  # as Ray's actors: the last bit of a convolution depends on the number of threads
    stage = build_stage(spec)
    for shard in shards:
        process(stage, shard, spec.run / spec.stage, spec.strict)
        yield len(shard.rows)


def _in_processes(spec: MapSpec, shards: list[Shard], workers: int) -> Iterator[int]:
    """Yield the images of each shard that is done; processes that die are replaced, and their shards done again."""
    left = {shard.number: shard for shard in shards}
    deaths = 0
    while left:
        pool = ProcessPoolExecutor(workers, get_context("spawn"), _begin, (spec,))
        try:
            for future in as_completed({pool.submit(_process, shard): shard for shard in left.values()}):
                shard = left.pop(future.result())
                yield len(shard.rows)
                deaths = 0
        except BrokenProcessPool:
            deaths += 1
            if deaths > _MAX_DEATHS:
                raise VwlError(f"{spec.stage}: its processes died {deaths} times and finished nothing; is there enough memory?") from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in active_children():
                child.kill()


_stage: Stage | VwlError
_spec: MapSpec


def _begin(spec: MapSpec) -> None:
    """Build the stage of a process; Ctrl-C is for the process above, which ends this one."""
    global _stage, _spec
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _spec = spec
    try:
        _stage = build_stage(spec)
    except VwlError as error:
        _stage = error


def _process(shard: Shard) -> int:
    if isinstance(_stage, VwlError):
        raise _stage
    process(_stage, shard, _spec.run / _spec.stage, _spec.strict)
    return shard.number


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
