"""The Tune trainables of a search: each runs one task in a thread and passes its events to Tune step by step.

Trainings of a task run through Ray Train, whose workers hold the CPUs and GPUs; the trainable's own process holds none. A task that
Tune ends asks its training to save and return first, so that its placement group is released before the process ends.
"""

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray import tune

from vwl.config.layout import Layout
from vwl.data.index import Row
from vwl.engine import local, map, sums, train
from vwl.engine.base import Engine, OnProgress
from vwl.engine.nodes import nodes
from vwl.engine.pool import set_inference_nodes
from vwl.engine.search_types import EpochEnd, RunTask, StageProgress, TrialEnd, TrialEvent
from vwl.engine.session import cluster_gpus, session
from vwl.errors import Interrupted
from vwl.evaluation.sums import Count, OnImages, SumType, sum_in_threads
from vwl.inference.build import InferenceSpec
from vwl.inference.runner import Shard

EVENT, ENDED = "event", "ended"
"""Keys of a Tune result: the trial event, and whether the task has run to its end."""
EPOCH, EPOCH_SCORE, OBJECTIVE = "epoch", "epoch_score", "objective"
"""Keys of a Tune result that early stopping (the first two) and the searcher read."""
STOP_SECONDS = 60
"""Time that a task has to save and return."""
_PROGRESS_SECONDS = 1.0
"""Time between a task's progress events."""


class MapActors:
    """Runs a task's inference: in its own process on a machine with one CPU worker, else on as many actors as the training has workers."""

    def __init__(self, layout: Layout) -> None:
        self._workers = layout.workers
        self._on = layout.inference_on
        self._in_process = layout.workers == 1 and not cluster_gpus() and len(nodes()) == 1

    def run_shards(
        self, spec: InferenceSpec, shards: list[Shard], images_done: int, on_progress: OnProgress, max_processes: int | None = None
    ) -> None:
        """Run shards as `vwl.engine.base.ShardRunner`, with processes chosen by the layout instead of `max_processes`."""
        if self._in_process:
            local.run_shards(spec, shards, images_done, on_progress, max_processes=1)
        else:
            set_inference_nodes(self._on)
            map.run_shards(spec, shards, images_done, on_progress, self._workers)

    def sum_images(self, count: Count[SumType], rows: Sequence[Row], on_images: OnImages) -> SumType:
        """Make a sum as `vwl.evaluation.sums.SumImages`, in this process where its inference is."""
        return (sum_in_threads if self._in_process else sums.sum_images)(count, rows, on_images)

    def split_processes(self) -> None:
        """Return none: a task has too few worker slots to refine in processes of their own."""


class _TaskTrainable(tune.Trainable):
    """Runs a task in a thread; Tune calls `step` for its events until the task ends, and `cleanup` to stop it."""

    def _start(self, task: Any, run_task: RunTask, actors: MapActors) -> None:
        self._changed, self._stop = threading.Condition(), threading.Event()
        self._progress: StageProgress | None = None
        self._events: list[EpochEnd | TrialEnd] = []
        self._last: dict[str, Any] = {}
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(task, run_task, actors), daemon=True)
        self._thread.start()

    def _run(self, task: Any, run_task: RunTask, actors: MapActors) -> None:
        try:
            with session(None):  # Ray is connected already; this applies the session's settings to this process
                run_task(task, Engine(train, actors, actors.sum_images), self._on_event)
        except (Interrupted, KeyboardInterrupt):
            pass
        except BaseException as error:
            self._error = error
        with self._changed:
            self._changed.notify_all()

    def _on_event(self, event: TrialEvent) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt  # as if the user had pressed Ctrl-C: the training saves and returns
        with self._changed:
            if isinstance(event, StageProgress):
                self._progress = event
            else:
                self._events.append(event)
                self._changed.notify_all()

    def step(self) -> dict[str, Any]:
        """Return a Tune result: the next end of an epoch or a trial, or, after a second without one, the newest progress."""
        deadline = time.monotonic() + _PROGRESS_SECONDS
        with self._changed:
            while not self._events and self._thread.is_alive() and time.monotonic() < deadline:
                self._changed.wait(0.1)
            if self._events:
                result = _tune_result(self._events.pop(0))
                self._last = {key: value for key, value in result.items() if key == OBJECTIVE}
                return result
            if self._thread.is_alive():
                return {} if self._progress is None else _tune_result(self._progress)
        if self._error is not None:
            raise self._error
        return {**self._last, "done": True, ENDED: True}

    def cleanup(self) -> None:
        """Wait for the task to save and return."""
        self._stop.set()
        self._thread.join(STOP_SECONDS)


def _tune_result(event: TrialEvent) -> dict[str, Any]:
    """Return a Tune result with an event, and beside it the numbers that Tune's scheduler and searcher read."""
    result: dict[str, Any] = {EVENT: event}
    if isinstance(event, EpochEnd):
        result |= {EPOCH: event.epoch, EPOCH_SCORE: event.score}
    elif isinstance(event, TrialEnd) and event.objective is not None:
        result[OBJECTIVE] = event.objective
    return result


class ListedTask(_TaskTrainable):
    """A task of a list."""

    def setup(self, config: dict[str, Any], tasks: Mapping[str, Any], run_task: RunTask, actors: MapActors) -> None:
        """Start the task that the configuration names."""
        self._start(tasks[config["task"]], run_task, actors)


class SampledTask(_TaskTrainable):
    """A task of a sample that a searcher suggested."""

    def setup(self, config: dict[str, Any], build: Callable[[dict[str, Any]], Any], run_task: RunTask, actors: MapActors) -> None:
        """Build the task from the searcher's configuration and start it."""
        self._start(build(config), run_task, actors)
