"""Where images are segmented: in this process, with threads that read and write beside a GPU, or in several processes on CPUs.

At any time only a few images of each process are in memory, however many there are.
"""

import mmap
import os
import signal
import tempfile
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from itertools import islice
from multiprocessing import get_context
from multiprocessing.reduction import DupFd
from typing import Any

import joblib
import torch

from vwl.errors import VwlError
from vwl.model_file.content import decode_model, encode_model
from vwl.model_file.models import SegmentationModel, model_from
from vwl.prediction import images
from vwl.prediction.images import Job, Output
from vwl.prediction.results import PredictionLine
from vwl.training.processes import end_with_parent

_IMAGES_PER_PROCESS = 8
"""Images that are worth starting a process for, which takes seconds."""
_AHEAD = 2
"""Chunks of images that wait for each process or thread."""
_MAX_CRASHES = 10
"""Images in a row that crash their process, after which there is another reason than the images."""
_THREADS = 4
"""Threads that read images, and threads that write results, beside a GPU."""

Chunk = Sequence[Job]
Lines = Generator[list[PredictionLine], None, None]


def num_processes(wanted: int | None, num_images: int, device: torch.device) -> int:
    """Return the number of processes: as wanted, else one for each physical CPU that this process may use, where the images are worth it.

    Raises:
        VwlError: several are wanted on a GPU.
    """
    if device.type != "cpu":
        if (wanted or 1) > 1:
            raise VwlError(f"a model on {device} is used by one process; leave --processes out, or choose --device cpu")
        return 1
    if wanted is not None:
        return max(1, min(wanted, num_images))
    return max(1, min(joblib.cpu_count(only_physical_cores=True), num_images // _IMAGES_PER_PROCESS))


def chunks(jobs: Iterable[Job], batch: int) -> Iterator[Chunk]:
    """Cut images into the parts that are given to a process at once: single ones, or enough to find batches of one size."""
    rest = iter(jobs)
    return iter(lambda: list(islice(rest, 1 if batch == 1 else 4 * batch)), [])


def in_this_process(model: SegmentationModel, parts: Iterable[Chunk], output: Output) -> Lines:
    """Segment images and yield their lines, part by part; on a CPU with one thread, as a run's stages do."""
    if model.device.type != "cpu":
        yield from beside_threads(model, parts, output)
        return
    for part in parts:
        with _one_thread():  # results depend on the number of threads in the last bit
            lines = images.process(model, part, output)
        yield lines


def beside_threads(model: SegmentationModel, parts: Iterable[Chunk], output: Output) -> Lines:
    """As `in_this_process`, while threads read the next images and write the results of those before: a GPU does not wait for files."""
    with ThreadPoolExecutor(_THREADS) as readers, ThreadPoolExecutor(_THREADS) as writers:
        rest, writing = iter(parts), deque[list[Future[PredictionLine]]]()

        def read_next() -> list[list[Future[images.Read]]]:
            return [[readers.submit(images.read, job) for job in part] for part in islice(rest, 1)]

        reading = deque(part for _ in range(_AHEAD) for part in read_next())
        try:
            while reading:
                part = [future.result() for future in reading.popleft()]
                reading.extend(read_next())
                writing.append([writers.submit(images.write, model, found, output) for found in images.segment(model, part, output)])
                if len(writing) > _AHEAD * _THREADS:
                    yield [future.result() for future in writing.popleft()]
            while writing:
                yield [future.result() for future in writing.popleft()]
        finally:
            for pool in (readers, writers):
                pool.shutdown(wait=False, cancel_futures=True)


def in_processes(model: SegmentationModel, parts: Iterable[Chunk], output: Output, processes: int) -> Lines:
    """Segment images in several processes of one thread each, and yield their lines as they are ready.

    An image that crashes its process is tried again alone, and listed as failed if it crashes that one too.

    Raises:
        VwlError: files cannot be written, or processes crash whatever the image is.
    """
    with tempfile.TemporaryFile() as opened:
        opened.write(encode_model(model.description, model.weights))
        opened.flush()
        file = _UnnamedFile(opened.fileno())
        rest, ready, crashed = iter(parts), deque[Chunk](), False
        waiting: dict[Future[list[PredictionLine]], Chunk] = {}
        while True:
            with _pool(file, output, processes) as submit:
                try:
                    while True:
                        ready.extend(islice(rest, max(0, _AHEAD * processes - len(waiting) - len(ready))))
                        while ready:
                            waiting[submit(ready[0])] = ready[0]
                            ready.popleft()
                        if not waiting:
                            return
                        for future in wait(waiting, return_when=FIRST_COMPLETED).done:
                            lines = future.result()
                            del waiting[future]
                            yield lines
                except BrokenProcessPool:
                    crashed = True
            if crashed:
                suspects, waiting, crashed = [job for part in waiting.values() for job in part], {}, False
                yield from _one_by_one(file, suspects, output)


class _UnnamedFile:
    """An open file without a name, which processes that this one starts can read; it disappears with them, however they end."""

    def __init__(self, number: int) -> None:
        """Take the number of an open file."""
        self._number = number

    def __reduce__(self) -> tuple[Callable[[Any], "_UnnamedFile"], tuple[Any]]:
        return _received, (DupFd(self._number),)

    def read(self) -> bytes:
        """Return its content."""
        with mmap.mmap(self._number, 0, access=mmap.ACCESS_READ) as content:
            return content[:]


def _received(number: Any) -> _UnnamedFile:
    return _UnnamedFile(number.detach())


def _one_by_one(file: _UnnamedFile, jobs: Sequence[Job], output: Output) -> Lines:
    """Segment images that were in a process that crashed, each in a process of its own while they crash."""
    rest, crashes = deque(jobs), 0
    while rest:
        with _pool(file, output, 1) as submit:
            try:
                while rest:
                    yield submit([rest[0]]).result()
                    rest.popleft()
                    crashes = 0
            except BrokenProcessPool:
                crashes += 1
                if crashes > _MAX_CRASHES:
                    raise VwlError(f"{crashes} processes crashed in a row; is there enough memory? use fewer --processes") from None
                line = rest.popleft().line
                problem = f"{line.image}: its process crashed twice"
                yield [line.model_copy(update={"status": "failed", "problem": problem})]


@contextmanager
def _pool(file: _UnnamedFile, output: Output, processes: int) -> Iterator[Callable[[Chunk], "Future[list[PredictionLine]]"]]:
    """Start processes and give the function that hands them a part; at the end they are killed, whatever they do."""
    pool = ProcessPoolExecutor(processes, get_context("spawn"), _start, (file, output))
    try:
        yield lambda part: pool.submit(_process, part)
    finally:
        started = list((pool._processes or {}).values())  # only these: the caller may have children of its own
        pool.shutdown(wait=False, cancel_futures=True)
        for child in started:
            child.kill()


_model: SegmentationModel | VwlError
_output: Output


def _start(file: _UnnamedFile, output: Output) -> None:
    """Load the model of a process. Ctrl-C and SIGTERM are handled by the parent process, which ends this one."""
    global _model, _output
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    end_with_parent()
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    torch.set_num_threads(1)
    _output = output
    try:
        found = model_from(*decode_model(file.read(), "the model"), "the model", "cpu")
        assert isinstance(found, SegmentationModel)
        _model = found
    except VwlError as error:
        _model = error


def _process(part: Chunk) -> list[PredictionLine]:
    if isinstance(_model, VwlError):
        raise _model
    return images.process(_model, part, _output)


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
