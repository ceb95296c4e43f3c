"""The engine without Ray, for one machine: trains in this process or in one for each worker, and runs shards in plain processes."""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import active_children, get_context
from typing import Any

import torch

from vwl.config.layout import Layout
from vwl.engine.base import OnProgress, Progress
from vwl.engine.local_workers import fit_in_processes
from vwl.errors import Interrupted, VwlError
from vwl.inference.build import NETWORK_STAGES, PROCESSES_PER_GPU, InferenceSpec, ProcessShard, hide_gpus
from vwl.inference.runner import Shard
from vwl.training.build import TrainSpec, build_task
from vwl.training.loop import Callbacks, Metrics, TrainResult, train
from vwl.training.processes import without_main_module

_SHARDS_PER_PROCESS = 3
"""Shards that are worth starting a process for, which takes seconds."""
_MAX_CRASHES = 10
"""Crashes of the process pool in a row, without a shard finished, after which a stage fails."""


def fit(spec: TrainSpec, layout: Layout, on_progress: OnProgress) -> TrainResult:
    """Train a stage as `vwl.engine.train.fit`: in this process, or with several workers in a process for each.

    A KeyboardInterrupt of `on_progress` counts as Ctrl-C.
    """
    with _stop_on_ctrl_c() as stop:

        def report(step: int, num_steps: int, metrics: Metrics) -> None:
            try:
                on_progress(Progress(spec.stage, step, num_steps, metrics=metrics))
            except KeyboardInterrupt:
                stop.set()

        if layout.workers > 1:
            result = fit_in_processes(spec, layout, report, stop)
        else:
            torch.set_num_threads(layout.cpus_per_worker)
            result = train(build_task(spec), layout, spec.folder, spec.fingerprint, Callbacks(report, stop.is_set))
    if not result.finished:
        raise Interrupted(f"{spec.stage} stopped")
    return result


def run_shards(
    spec: InferenceSpec, shards: list[Shard], images_done: int, on_progress: OnProgress, max_processes: int | None = None
) -> None:
    """Run shards through a stage in processes of this machine, at most `max_processes`; few shards in this process.

    Raises:
        VwlError: as `vwl.engine.map.run_shards`.
    """
    total = images_done + sum(len(shard.rows) for shard in shards)
    on_progress(Progress(spec.stage, images_done, total))
    gpus = torch.cuda.device_count() if spec.stage in NETWORK_STAGES else 0
    processes = min(max_processes or num_processes(os.cpu_count() or 1, gpus), len(shards) // _SHARDS_PER_PROCESS)
    for images in _in_this_process(spec, shards) if processes < 2 else _in_processes(spec, shards, processes):
        images_done += images
        on_progress(Progress(spec.stage, images_done, total))


def num_processes(cpus: int, gpus: int) -> int:
    """Return the number of processes of a stage: one per CPU, or as many as share the GPUs."""
    return min(cpus, gpus * PROCESSES_PER_GPU) if gpus else cpus


def split_processes() -> None:
    """Return none: on one machine, one stage after the other is as fast."""


def _in_this_process(spec: InferenceSpec, shards: list[Shard]) -> Iterator[int]:
    torch.set_num_threads(1)  # as in Ray's actors: results depend on the number of threads in the last bit
    process = spec.processor()
    for shard in shards:
        process(shard)
        yield len(shard.rows)


def _in_processes(spec: InferenceSpec, shards: list[Shard], processes: int) -> Iterator[int]:
    """Yield the number of images of each finished shard; crashed processes are replaced and their shards run again."""
    remaining = {shard.number: shard for shard in shards}
    crashes = 0
    while remaining:
        context = get_context("spawn")
        pool = ProcessPoolExecutor(processes, context, _start, (spec, context.Value("i", 0)))
        try:
            with without_main_module():
                futures = [pool.submit(_process, shard) for shard in remaining.values()]
            for future in as_completed(futures):
                shard = remaining.pop(future.result())
                yield len(shard.rows)
                crashes = 0
        except BrokenProcessPool:
            crashes += 1
            if crashes > _MAX_CRASHES:
                raise VwlError(
                    f"{spec.stage}: its processes crashed {crashes} times in a row without finishing a shard; is there enough memory?"
                ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            for child in active_children():
                child.kill()


_process_shard: ProcessShard | VwlError


def _start(spec: InferenceSpec, started: Any) -> None:
    """Build the stage of a process, on its share of the GPUs; `started` counts the processes.

    Ctrl-C is handled by the parent process, which ends this one.
    """
    global _process_shard
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    hide_gpus(spec.stage)
    if torch.cuda.is_available():
        with started.get_lock():
            number, started.value = started.value, started.value + 1
        torch.cuda.set_device(number % torch.cuda.device_count())
    try:
        _process_shard = spec.processor()
    except VwlError as error:
        _process_shard = error


def _process(shard: Shard) -> int:
    if isinstance(_process_shard, VwlError):
        raise _process_shard
    _process_shard(shard)
    return shard.number


@contextmanager
def _stop_on_ctrl_c() -> Iterator[threading.Event]:
    """Turn the first Ctrl-C into a request to save and stop (main thread only)."""
    stop = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = signal.signal(signal.SIGINT, lambda *_: stop.set())
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, before)
