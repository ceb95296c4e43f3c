"""Turns the engine's progress into the events of a run, and a request to stop into an interrupt."""

import time
from collections.abc import Callable, Sequence
from functools import partial
from threading import RLock

from vwl.api.events import Metrics, OnMetrics, OnRunProgress, RunProgress, Stop
from vwl.api.history import num_kept, score_metrics, training_metrics
from vwl.api.remaining_time import RemainingTime
from vwl.engine.base import Progress
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES


class Follower:
    """Follows the stages of one call of `vwl.run`. Two stages can report at the same time (`vwl.workflow.streaming`).

    Attributes:
        stopped: whether the caller has asked to stop, by the `stop` object or by a KeyboardInterrupt of a callback.
    """

    def __init__(
        self,
        run: Run,
        stages: Sequence[str],
        remaining: RemainingTime,
        on_progress: OnRunProgress | None = None,
        on_metrics: Sequence[OnMetrics] = (),
        stop: Stop | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Follow a run that is about to start; lines of metrics.jsonl that are there and stay are not reported again."""
        self._run, self._stages, self._remaining, self._clock = run, tuple(stages), remaining, clock
        self._on_progress, self._on_metrics, self._stop = on_progress, on_metrics, stop
        self._began = clock()
        self._lock = RLock()
        trainings = [stage for stage in stages if STAGES[stage].kind == "train"] if on_metrics else []
        self._lines = {stage: num_kept(run, stage) for stage in trainings}
        self._logged: dict[str, float] = {}
        self.stopped = False

    def progress(self, progress: Progress) -> None:
        """Report progress of a stage.

        Raises:
            KeyboardInterrupt: the caller has asked to stop.
        """
        with self._lock:
            stage = progress.stage
            if not progress.part:
                self._remaining.observe(stage, progress.done, progress.total)
            logged = progress.metrics.get("step", 0)
            if logged != self._logged.get(stage, 0):
                self._logged[stage] = logged
                self._report_lines(stage)
            if self._on_progress is not None:
                seconds = self._clock() - self._began
                of_stage = {name: getattr(progress, name) for name in ("stage", "done", "total", "message", "metrics", "part")}
                event = RunProgress(**of_stage, stages=self._stages, seconds=seconds, seconds_left=self._remaining.seconds_left())
                self._call(partial(self._on_progress, event))
            self._stop_if_asked()

    def end(self, stage: str) -> None:
        """Report what is new when a stage has ended or was skipped: the rest of its metrics, and its scores.

        Raises:
            KeyboardInterrupt: as `progress`.
        """
        with self._lock:
            self._remaining.end(stage)
            self._report_lines(stage)
            scores = score_metrics(self._run, stage) if self._on_metrics else None
            if scores is not None:
                self._report(scores)
            if stage != self._stages[-1]:
                self._stop_if_asked()

    def _report_lines(self, stage: str) -> None:
        if stage in self._lines:
            for metrics in training_metrics(self._run, stage, self._lines[stage]):
                assert metrics.line is not None
                self._lines[stage] = metrics.line + 1
                self._report(metrics)

    def _report(self, metrics: Metrics) -> None:
        for callback in self._on_metrics:
            self._call(partial(callback, metrics))

    def _stop_if_asked(self) -> None:
        if self._stop is not None and self._stop.is_set():
            self.stopped = True
        if self.stopped:
            raise KeyboardInterrupt

    def _call(self, callback: Callable[[], object]) -> None:
        try:
            callback()
        except KeyboardInterrupt:
            self.stopped = True
            raise
