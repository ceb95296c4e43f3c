"""Shows the trials of a running search: a live table on a terminal, lines of text elsewhere."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

from vwl.cli.console import duration, messages, say

if TYPE_CHECKING:
    from vwl.tuning.follow import TrialsView

_STYLES = {"done": "green", "failed": "red", "stopped": "yellow", "waiting": "dim"}
_FINAL = ("done", "failed", "stopped")


@dataclass
class _Line:
    state: str
    text: str
    done: int
    total: int
    began: float = field(default_factory=time.monotonic)
    ended: float | None = None


@contextmanager
def trials_view() -> Iterator["TrialsView"]:
    """Show trials on stderr while the block runs."""
    if messages.is_terminal and not messages.is_dumb_terminal:
        table = LiveTrials()
        with Live(get_renderable=table.render, console=messages, refresh_per_second=4):
            yield table
    else:
        yield TrialLines(say)


class LiveTrials:
    """A table with one line per trial; if there are too many, the running ones and those that ended last."""

    def __init__(self, height: int = 24) -> None:
        self._lines: dict[str, _Line] = {}
        self._height = height

    def show_trial(self, name: str, state: str, text: str = "", done: int = 0, total: int = 0) -> None:
        """Store a trial's state for the next refresh."""
        before = self._lines.get(name)
        line = _Line(state, text, done, total)
        if before is not None and before.state not in {*_FINAL, "waiting"}:
            line.began = before.began
        line.ended = time.monotonic() if state in _FINAL else None
        self._lines[name] = line

    def render(self) -> Table:
        """Return the table of the current states."""
        counts = {state: sum(line.state == state for line in self._lines.values()) for state in (*_FINAL, "waiting")}
        running = len(self._lines) - sum(counts.values())
        title = ", ".join(f"{number} {state}" for state, number in {"running": running, **counts}.items() if number)
        table = Table(box=None, padding=(0, 2, 0, 0), title=f"{len(self._lines)} trials: {title}", title_justify="left")
        for column in ("trial", "state", "progress", "time", ""):
            table.add_column(column, justify="right" if column in {"progress", "time"} else "left", no_wrap=True)
        for name, line in self._shown():
            share = f"{line.done}/{line.total}" if line.total else ""
            seconds = (line.ended or time.monotonic()) - line.began
            when = "" if line.state == "waiting" or seconds < 1 else duration(seconds)
            table.add_row(Text(name), Text(line.state, style=_STYLES.get(line.state, "cyan")), share, when, Text(line.text))
        return table

    def _shown(self) -> list[tuple[str, _Line]]:
        order = {"waiting": 2, **dict.fromkeys(_FINAL, 1)}
        lines = sorted(self._lines.items(), key=lambda item: (order.get(item[1].state, 0), -(item[1].ended or 0)))
        return lines[: self._height]


class TrialLines:
    """Prints a line when a trial's stage or state changes, and between changes at most one every `every` seconds."""

    def __init__(self, write: Callable[[str], None], every: float = 30.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Print lines with `write`; `every` and `clock` are in seconds."""
        self._write, self._every, self._clock = write, every, clock
        self._last: dict[str, tuple[str, float]] = {}

    def show_trial(self, name: str, state: str, text: str = "", done: int = 0, total: int = 0) -> None:
        """Print a trial's state, unless it is waiting or was printed a short time ago."""
        now = self._clock()
        before = self._last.get(name)
        if state == "waiting" or (before is not None and before[0] == state and (state in _FINAL or now - before[1] < self._every)):
            return
        self._last[name] = (state, now)
        self._write("  ".join(filter(None, (f"{name}: {state}", f"{done}/{total}" if total else "", text))))
