"""Data-parallel training on one machine without Ray: a process for each worker, on its own GPU or on CPUs, joined by torch.distributed.

The workers meet through a file and talk over the loopback interface, so that no port can be reached from outside. The process that starts
them passes on progress and stop requests, and ends them all when one is lost.
"""

import os
import tempfile
import threading
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import torch
from torch import distributed

from vwl.config.layout import Layout
from vwl.errors import VwlError
from vwl.training.build import TrainSpec, build_task
from vwl.training.loop import Callbacks, Metrics, TrainResult, train
from vwl.training.processes import end_with_parent, forkserver, signals_left_to_parent, without_main_module

_COLLECTIVE_TIMEOUT = timedelta(seconds=300)
_POLL_SECONDS = 0.2
"""Time between looks at the stop request of this process."""

OnStep = Callable[[int, int, Metrics], None]


@dataclass(frozen=True)
class _Step:
    """Progress of worker 0."""

    step: int
    num_steps: int
    metrics: Metrics


@dataclass(frozen=True)
class _Error:
    """Why a worker ended: a user's mistake in one line, or the traceback of a bug."""

    text: str
    is_users: bool


def fit_in_processes(spec: TrainSpec, layout: Layout, on_step: OnStep, stop: threading.Event) -> TrainResult:
    """Train with `layout.workers` processes of this machine and return worker 0's result; when `stop` is set they save and return.

    Raises:
        VwlError: the batch does not divide among them, the training raised it, or a worker was killed.
    """
    if layout.min_workers is not None:
        raise VwlError("elastic workers (--workers MIN:MAX) need --backend ray; give one number of workers")
    layout.split_batch(getattr(spec.recipe, spec.stage).batch_size)
    with tempfile.TemporaryDirectory(prefix="vwl-workers-") as meeting:
        context = forkserver()
        stop_workers = context.Event()
        workers: list[tuple[Any, Connection]] = []
        try:
            with without_main_module(), signals_left_to_parent():
                for rank in range(layout.workers):
                    here, there = context.Pipe(duplex=False)
                    process = context.Process(target=_work, args=(spec, layout, rank, f"{meeting}/store", stop_workers, there))
                    process.start()
                    there.close()
                    workers.append((process, here))
            return _follow(spec.stage, workers, on_step, stop, stop_workers)
        finally:
            for process, here in workers:
                process.kill()
                process.join()
                here.close()


def _follow(stage: str, workers: list[tuple[Any, Connection]], on_step: OnStep, stop: threading.Event, stop_workers: Any) -> TrainResult:
    """Pass on progress until all workers have returned, and return worker 0's result."""
    results: dict[int, TrainResult] = {}
    ends = [here for _, here in workers]
    ranks: dict[Any, int] = {here: rank for rank, here in enumerate(ends)}
    while len(results) < len(workers):
        if stop.is_set():
            stop_workers.set()
        for here in wait([here for rank, here in enumerate(ends) if rank not in results], timeout=_POLL_SECONDS):
            rank = ranks[here]
            try:
                message = ends[rank].recv()
            except EOFError:
                raise VwlError(f"{stage}: {_lost(rank, workers)}") from None
            if isinstance(message, _Step):
                on_step(message.step, message.num_steps, message.metrics)
            elif isinstance(message, _Error):
                raise VwlError(message.text) if message.is_users else RuntimeError(f"worker {rank} of {stage}:\n{message.text}")
            else:
                results[rank] = message
    return results[0]


def _lost(rank: int, workers: list[tuple[Any, Connection]]) -> str:
    process = workers[rank][0]
    process.join()
    return (
        f"worker {rank} of {len(workers)} ended without a result (exit code {process.exitcode}); is there enough memory? "
        "start the command again, it goes on from the last checkpoint"
    )


def _work(spec: TrainSpec, layout: Layout, rank: int, store: str, stop: Any, parent: Connection) -> None:
    """Be one worker."""
    end_with_parent()
    try:
        parent.send(_train(spec, layout, rank, store, stop, parent))
    except VwlError as error:
        parent.send(_Error(str(error), is_users=True))
    except Exception:
        parent.send(_Error(traceback.format_exc(), is_users=False))


def _train(spec: TrainSpec, layout: Layout, rank: int, store: str, stop: Any, parent: Connection) -> TrainResult:
    torch.set_num_threads(layout.cpus_per_worker)
    for library in ("GLOO", "NCCL"):
        os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    if layout.gpus_per_worker:
        torch.cuda.set_device(rank)
    else:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""  # all would take the first GPU
    distributed.init_process_group(
        "nccl" if layout.gpus_per_worker else "gloo",
        init_method=f"file://{store}",
        rank=rank,
        world_size=layout.workers,
        timeout=_COLLECTIVE_TIMEOUT,
    )
    try:
        callbacks = Callbacks(lambda *step: parent.send(_Step(*step)), stop.is_set)
        return train(build_task(spec), layout, spec.folder, spec.fingerprint, callbacks)
    finally:
        distributed.destroy_process_group()
