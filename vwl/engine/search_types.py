"""Values that a search and Ray Tune exchange: the events of a trial, the callbacks of a search, and past samples. Imports no Ray.

A task is what one Tune trial runs: a group of a search's trials (`vwl.tuning.trials.TrialGroup`), named after its first trial.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from vwl.engine.base import Engine


@dataclass(frozen=True)
class StageProgress:
    """Progress of a trial's running stage.

    Attributes:
        trial: the trial's id.
        stage: name of the stage.
        done, total: training steps, or images of an inference stage.
        message: one line for the user; may be empty.
    """

    trial: str
    stage: str
    done: int
    total: int
    message: str


@dataclass(frozen=True)
class EpochEnd:
    """A finished epoch of a trial's classifier.

    Attributes:
        trial: the trial's id.
        epoch: counted from 1.
        score: what early stopping compares, larger is better.
        metrics: metrics of the epoch, e.g. `loss` and `val_map`.
    """

    trial: str
    epoch: int
    score: float
    metrics: Mapping[str, float]


@dataclass(frozen=True)
class TrialEnd:
    """The end of a trial.

    Attributes:
        trial: the trial's id.
        state: `done`, `failed` or `stopped`.
        reason: why it failed or was stopped; else empty.
        objective: mean score of the task's trials in percent, with the last of them if all are done; else none.
    """

    trial: str
    state: str
    reason: str = ""
    objective: float | None = None


TrialEvent = StageProgress | EpochEnd | TrialEnd
OnTrialEvent = Callable[[TrialEvent], None]
RunTask = Callable[[Any, Engine, OnTrialEvent], None]
"""Runs a task in its Tune trial's process; a function of a module, so that it can be pickled."""


class SearchCallbacks(Protocol):
    """Follows the tasks of a search, in the driver's process. Every method gets the task's name first."""

    def on_start(self, task: str) -> None:
        """Called when a process was started for the task."""

    def on_event(self, task: str, event: TrialEvent) -> None:
        """Called with each event of the task's trials; of several `StageProgress` within a second only the last is passed on."""

    def on_early_stop(self, task: str) -> None:
        """Called when the task was stopped early."""

    def on_crash(self, task: str, reason: str) -> None:
        """Called when the task's process has died too often or has raised an error."""


@dataclass(frozen=True)
class PastSample:
    """A sample of the search space whose trials have ended.

    Attributes:
        overrides: recipe keys and values.
        objective: mean score over its seeds; none: stopped early.
    """

    overrides: dict[str, Any]
    objective: float | None
