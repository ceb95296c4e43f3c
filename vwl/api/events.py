"""What a run tells its caller while it works: progress and metrics, passed to the callbacks of `vwl.run`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from vwl.engine.base import Progress


@dataclass(frozen=True)
class RunProgress(Progress):
    """How far a run is; besides what `Progress` says of the stage.

    Attributes:
        stages: the stages of this call, in order.
        seconds: time since the call, s.
        seconds_left: estimate for all stages that are left, s; none before the first work is measured.
    """

    stages: tuple[str, ...] = ()
    seconds: float = 0.0
    seconds_left: float | None = None

    def __str__(self) -> str:
        """Return one line for a log or a notebook."""
        loss = f", loss {self.metrics['loss']:.4f}" if "loss" in self.metrics else ""
        left = "" if self.seconds_left is None else f", about {self.seconds_left:.0f} s left in all"
        note = f" ({self.message})" if self.message else ""
        return f"{self.name} {self.done}/{self.total}{loss}{left}{note}"


@dataclass(frozen=True)
class Metrics:
    """A line of a training's metrics.jsonl, or the scores of a stage that has ended.

    Attributes:
        stage: its name.
        step: of the training; none for scores.
        values: losses, rates, speed, codebook metrics and scores on held-out images by name; of scores `<split>_miou` and the others of
            `StageScore` in percent, thresholds, and the stage's `seconds`.
        line: number of the line in metrics.jsonl, from 0; none for scores.
    """

    stage: str
    step: int | None
    values: Mapping[str, float]
    line: int | None = None


OnRunProgress = Callable[[RunProgress], None]
OnMetrics = Callable[[Metrics], None]


class Stop(Protocol):
    """A request to stop, such as a `threading.Event`: checked after each training step and each shard of 16 images."""

    def is_set(self) -> bool:
        """Return whether to stop."""
        ...
