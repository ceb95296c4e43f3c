"""Shows a run while it works: every stage with its bar and newest scores, and the time left of all of them."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from rich.console import Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from vwl.cli.console import ProgressLines, duration, messages, metrics_table, progress_text, say

if TYPE_CHECKING:
    from vwl.api.events import Metrics, RunProgress

_EVERY = 60.0
"""Seconds between lines on the time left of the whole run, in a log."""


class RunView(Protocol):
    """Shows the progress and the scores of a run."""

    def update(self, progress: "RunProgress") -> None:
        """Show progress."""

    def scores(self, metrics: "Metrics") -> None:
        """Show the scores of a stage that has ended; other metrics are in the progress."""


@contextmanager
def run_view() -> Iterator[RunView]:
    """Show a run on stderr while the block runs: a live table on a terminal, elsewhere lines of text."""
    if messages.is_terminal and not messages.is_dumb_terminal:
        table = LiveRun()
        with Live(get_renderable=table.drawn, console=messages, refresh_per_second=5):
            yield table
    else:
        lines = RunLines()
        try:
            yield lines
        finally:
            lines.close()


def score_text(values: Mapping[str, float]) -> str:
    """Return the mIoU of a stage's splits."""
    shown = [f"{split} {values[f'{split}_miou']:.1f}" for split in ("train", "val") if f"{split}_miou" in values]
    return f"mIoU {', '.join(shown)}" if shown else ""


@dataclass
class _Stage:
    done: int = 0
    total: int = 0
    text: str = ""
    score: str = ""
    began: float | None = None
    ended: float | None = None


@dataclass
class LiveRun:
    """A table with a line a stage, the time left of the whole run, and the newest metrics of the training that runs."""

    _stages: dict[str, _Stage] = field(default_factory=dict)
    _metrics: Mapping[str, float] = field(default_factory=dict)
    _whole: tuple[float, float, float | None] | None = None

    def update(self, progress: "RunProgress") -> None:
        """Store progress for the next refresh."""
        now = time.monotonic()
        for name in progress.stages:
            self._stages.setdefault(name, _Stage())
        stage = self._stages.setdefault(progress.stage, _Stage())
        if progress.part:
            stage.text = f"{progress.part} {progress.done}/{progress.total}"
        else:
            stage.done, stage.total, stage.text = progress.done, progress.total, progress_text(progress)
        stage.began = stage.began or now
        stage.ended = now if progress.done >= progress.total else None
        if progress.done >= progress.total or not progress.metrics:
            self._metrics = {}
        elif len(progress.metrics) > 1:
            self._metrics = progress.metrics
        self._whole = (now, progress.seconds, progress.seconds_left)

    def scores(self, metrics: "Metrics") -> None:
        """Store a stage's scores for the next refresh."""
        if metrics.step is None:
            self._stages.setdefault(metrics.stage, _Stage()).score = score_text(metrics.values)

    def drawn(self) -> Group:
        """Return the table as it is now."""
        now = time.monotonic()
        table = Table.grid(padding=(0, 2, 0, 0))
        for name, stage in self._stages.items():
            table.add_row(*self._row(name, stage, now))
        whole = [] if self._whole is None else [Text(self._whole_text(now), style="bold")]
        return Group(table, *whole, *([metrics_table(self._metrics)] if self._metrics else []))

    def _row(self, name: str, stage: _Stage, now: float) -> list[Text | ProgressBar]:
        if stage.began is None:
            return [Text("✓" if stage.score else " "), Text(name, style="dim"), Text(), Text(), Text(), Text(stage.score)]
        mark = Text("✓", style="green") if stage.ended is not None else Text("•", style="cyan")
        bar = ProgressBar(total=max(1, stage.total), completed=stage.done if stage.total else 1, width=24)
        seconds = Text(duration((stage.ended or now) - stage.began))
        return [mark, Text(name), bar, Text(f"{stage.done}/{stage.total}"), seconds, Text(stage.score or stage.text)]

    def _whole_text(self, now: float) -> str:
        assert self._whole is not None
        then, seconds, left = self._whole
        since = now - then
        known = "" if left is None else f", about {duration(max(0.0, left - since))} left"
        return f"whole run: {duration(seconds + since)}{known}"


class RunLines:
    """Lines for a log file: those of `ProgressLines`, the scores of each stage, and now and then the time left of the whole run."""

    def __init__(self) -> None:
        self._lines = ProgressLines(say)
        self._stages: set[str] = set()
        self._printed = 0.0

    def update(self, progress: "RunProgress") -> None:
        """Print progress if it is time."""
        self._lines.update(progress)
        self._stages.add(progress.stage)
        if progress.seconds_left is not None and progress.seconds - self._printed >= _EVERY:
            self._printed = progress.seconds
            say(f"whole run: {duration(progress.seconds)}, about {duration(progress.seconds_left)} left")

    def scores(self, metrics: "Metrics") -> None:
        """Print the scores of a stage that was run now; those of others are in the table at the end."""
        if metrics.step is None and metrics.stage in self._stages and (text := score_text(metrics.values)):
            say(f"{metrics.stage}: {text}")

    def close(self) -> None:
        """Print the last progress of a stage that was interrupted."""
        self._lines.close()
