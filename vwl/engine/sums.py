"""Makes sums over images on a Ray cluster: one task for each part, wherever a CPU is free, also on nodes that join later.

Tasks and not the actors of Ray Data, which are worth their start of seconds only where a network is loaded: a part takes a quarter of a
second, and Ray keeps the processes of tasks for the next ones.
"""

import uuid
from collections import deque
from collections.abc import Sequence
from typing import Any

import ray
import torch
from ray.exceptions import OutOfMemoryError, WorkerCrashedError

from vwl.data.index import Row
from vwl.engine.pool import inference_nodes
from vwl.engine.session import cluster_cpus
from vwl.engine.shared_folder import check_shared
from vwl.errors import VwlError
from vwl.evaluation.sums import Count, OnImages, SumType, parts, sum_part

_MAX_RETRIES = 7
"""Retries of a part whose process or node died."""
_PARTS_PER_CPU = 4
"""Parts that are sent before the first one that is not finished: their sums wait in memory for it."""


def sum_images(count: Count[SumType], rows: Sequence[Row], on_images: OnImages) -> SumType:
    """Make a sum on the connected cluster, as `vwl.evaluation.sums.SumImages` says.

    Raises:
        VwlError: also if the nodes do not share the folder, or the processes crash.
    """
    check_shared(count.folder)
    total, done = count.empty(), 0
    on = inference_nodes()
    remote_sum = _sum.options(label_selector=dict(on)) if on else _sum
    sent, name = ray.put(count), uuid.uuid4().hex
    todo, waiting = deque(parts(rows)), deque[tuple[Any, int]]()
    try:
        while todo or waiting:
            while todo and len(waiting) < max(2, _PARTS_PER_CPU * cluster_cpus(on)):
                part = todo.popleft()
                waiting.append((remote_sum.remote([sent], name, part), len(part)))
            answer, num_images = waiting.popleft()
            found = _answer(answer, count)
            total.merge(found)
            done += num_images
            on_images(done)
    finally:
        for answer, _ in waiting:
            ray.cancel(answer)
    return total


def _answer(answer: Any, count: Count[SumType]) -> SumType:
    try:
        found = ray.get(answer)
    except (WorkerCrashedError, OutOfMemoryError):
        raise VwlError(f"{count.folder}: a process that scored it crashed {_MAX_RETRIES + 1} times; is there enough memory?") from None
    if isinstance(found, VwlError):
        raise found
    part: SumType = found
    return part


_own: tuple[str, Count[Any]] | None = None
"""This process's copy of what is summed, with its open files, and the name of the sum that it belongs to."""


# Explicitly spread, so that a trial's tasks are not placed in the placement group of its process, which holds no CPU.
@ray.remote(num_cpus=1, max_retries=_MAX_RETRIES, scheduling_strategy="SPREAD")
def _sum(sent: list[Any], name: str, part: Sequence[Row]) -> Any:
    """Return the sum over a part, or the user's error."""
    global _own
    try:
        if _own is None or _own[0] != name:
            torch.set_num_threads(1)
            _own = name, ray.get(sent[0])
        return sum_part(_own[1], part)
    except VwlError as error:
        return error
