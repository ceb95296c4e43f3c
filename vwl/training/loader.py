"""Reads and augments the samples of a training ahead of its steps: in threads of the worker, or in processes by torch's DataLoader.

Which samples a step has, and their augmentation, depend on (seed, epoch, image id) only, so both give the same batches in the same order,
from any step on. Processes are worth their start and memory where threads cannot feed the device.
"""

import copy
import signal
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing.reduction import ForkingPickler
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, Sampler

from vwl.data.sampler import global_batch, share
from vwl.errors import VwlError
from vwl.training.distributed import rank, world_size
from vwl.training.processes import end_with_parent, forkserver, signals_left_to_parent, without_main_module
from vwl.training.task import Sample, Task

_THREADS = 2
"""Threads of a worker without loader processes."""
_LOST = (RuntimeError, ConnectionError, EOFError, FileNotFoundError)
"""What the loader raises when a process was killed: torch's own error, or those of the socket that hands its tensors over."""
_STEPS_AHEAD = 2
"""Steps whose samples loader processes read ahead, at least."""

Batches = Generator[list[Sample], None, None]
"""This worker's micro-batches of each step, on the CPU."""
_Request = list[tuple[int, int]]
"""Number and epoch of each sample of a micro-batch."""


@dataclass(frozen=True)
class Reading:
    """What is read, and how.

    Attributes:
        first_step: from which the samples are read, to the end of the training.
        micro_batch: images of a micro-batch.
        processes: that read; 0: threads.
        dtype: of floating-point tensors.
        pinned: whether batches are put into page-locked memory, from where a GPU takes them while the host works on.
    """

    first_step: int
    micro_batch: int
    processes: int
    dtype: torch.dtype
    pinned: bool


def read_ahead(task: Task, how: Reading) -> Batches:
    """Yield this worker's micro-batches of each step, while those of the next steps are read; close it to end threads or processes.

    Raises:
        VwlError: an image cannot be read, or a process was killed.
    """
    return _in_processes(task, how) if how.processes else _in_threads(task, how)


def _requests(task: Task, how: Reading, step: int) -> list[_Request]:
    epoch, batch = global_batch(task.seed, step, task.num_samples, task.batch_size)
    return [[(int(number), epoch) for number in part] for part in share(batch, rank(), world_size(), how.micro_batch)]


def _in_threads(task: Task, how: Reading) -> Batches:
    def order(step: int) -> list[list[Future[Sample]]]:
        return [[pool.submit(task.sample, *one) for one in part] for part in _requests(task, how, step)]

    with ThreadPoolExecutor(_THREADS, thread_name_prefix="samples") as pool:
        upcoming = order(how.first_step)
        for step in range(how.first_step, task.num_steps):
            current, upcoming = upcoming, (order(step + 1) if step + 1 < task.num_steps else [])
            batches = [stacked([future.result() for future in part], how.dtype) for part in current]
            yield [{name: value.pin_memory() for name, value in batch.items()} for batch in batches] if how.pinned else batches


def _in_processes(task: Task, how: Reading) -> Batches:
    if how.first_step >= task.num_steps:
        return
    per_step = len(_requests(task, how, how.first_step))
    loader = DataLoader(
        _Samples(task, how.dtype),
        batch_size=None,  # the requests are micro-batches already
        sampler=_Order(task, how),
        collate_fn=_unchanged,
        num_workers=how.processes,
        prefetch_factor=max(2, -(-_STEPS_AHEAD * per_step // how.processes)),
        pin_memory=how.pinned,
        multiprocessing_context=forkserver(),
        worker_init_fn=_start,
        generator=torch.Generator(),  # the loader draws a seed, and the training's own generator must not move
    )
    with without_main_module(), signals_left_to_parent():
        batches: Any = iter(loader)
    processes = list(batches._workers)
    try:
        for _ in range(how.first_step, task.num_steps):
            yield [_next(batches, task.name) for _ in range(per_step)]
    finally:
        # Not left to the collector: the traceback of an error would keep the processes alive.
        batches._shutdown_workers()
        for process in processes:
            process.kill()  # one that is busy with a slow storage


def _start(number: int) -> None:
    """Leave signals to the parent, also where the server was started by somebody else, and end with it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    end_with_parent()


def _next(batches: Iterator[Sample | VwlError], stage: str) -> Sample:
    """Return the next micro-batch.

    Raises:
        VwlError: an image cannot be read, or a process was killed.
    """
    try:
        found = next(batches)
    except _LOST as error:
        if isinstance(error, RuntimeError) and not str(error).startswith("DataLoader worker"):
            raise
        reason = " ".join(str(error).split())
        raise VwlError(
            f"{stage}: a process that reads images was lost ({reason}); is there enough memory, and in a container enough /dev/shm? "
            "use fewer --loader-workers (0: threads), and start the command again: it goes on from the last checkpoint"
        ) from None
    if isinstance(found, VwlError):
        raise found
    return found


class _Order(Sampler[_Request]):
    """The micro-batches of all steps, in order."""

    def __init__(self, task: Task, how: Reading) -> None:
        self._task, self._how = task, how

    def __iter__(self) -> Iterator[_Request]:
        for step in range(self._how.first_step, self._task.num_steps):
            yield from _requests(self._task, self._how, step)


class _Samples(Dataset[Sample | VwlError]):
    """The samples of a task, read in loader processes, which share one pickled copy of it."""

    def __init__(self, task: Task, dtype: torch.dtype) -> None:
        # In shared memory: through a pipe, a process would be started only when the one before has read its copy.
        pickled = torch.frombuffer(bytearray(ForkingPickler.dumps(without_networks(task))), dtype=torch.uint8)
        self._pickled: torch.Tensor = pickled.share_memory_()  # type: ignore[no-untyped-call]
        self._dtype = dtype
        self._task: Task | None = None

    def __getitem__(self, request: _Request) -> Sample | VwlError:
        """Return a micro-batch; a user's error is returned, because torch would add its traceback to the message."""
        if self._task is None:
            self._task = ForkingPickler.loads(self._pickled.numpy().tobytes())
        try:
            return stacked([self._task.sample(number, epoch) for number, epoch in request], self._dtype)
        except VwlError as error:
            return error


def _unchanged(batch: Any) -> Any:
    return batch


def without_networks(task: Task) -> Task:
    """Return a copy of a task that can read samples and do nothing else: without network and tensors, which may be on a GPU."""
    reader = copy.copy(task)
    for name, value in vars(task).items():
        if isinstance(value, nn.Module | torch.Tensor):
            setattr(reader, name, None)
    backbone = getattr(task.model, "backbone", None)
    mean_and_std = {name: getattr(backbone, name) for name in ("mean", "std") if hasattr(backbone, name)}
    reader.model = SimpleNamespace(backbone=SimpleNamespace(**mean_and_std))
    return reader


def stacked(samples: list[Sample], dtype: torch.dtype) -> Sample:
    """Return a micro-batch: floating-point values of `dtype`, images (B, 3, H, W) in memory format channels_last."""
    return {name: _stack([sample[name] for sample in samples], dtype) for name in samples[0]}


def _stack(values: list[torch.Tensor], dtype: torch.dtype) -> torch.Tensor:
    if values[0].is_floating_point():
        values = [value.to(dtype) for value in values]
    if values[0].dim() != 3:
        return torch.stack(values)
    # An image is (H, W, 3) in memory already; stacked as (3, H, W) it would be turned over twice.
    return torch.stack([value.permute(1, 2, 0) for value in values]).permute(0, 3, 1, 2)
