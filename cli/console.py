"""Everything that the command line prints: tables and JSON on stdout, messages and progress on stderr.

Commands call `print_table` with plain values and pass `ProgressView.update` as `on_progress`. A terminal shows bars, a log file or a pipe
gets whole lines.
"""

import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from vwl.engine.base import Progress

tables = Console(highlight=False)
"""On stdout: results."""
messages = Console(stderr=True, highlight=False)
"""On stderr: messages and progress."""

_DURATIONS = {"seconds": 1, "scoring_seconds": 1, "hours": 3600}
"""Columns of durations, and their unit in seconds."""

Value = str | int | float | bool | None


def say(text: str) -> None:
    """Print a message as it is, unwrapped, on stderr."""
    messages.print(Text(text), soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout; numbers that JSON does not know (nan, inf) become null."""
    text = json.dumps(_finite(value), indent=2, ensure_ascii=False)
    try:
        text.encode(tables.encoding)
    except UnicodeEncodeError:  # an ASCII terminal, or a file name that is not UTF-8
        text = json.dumps(_finite(value), indent=2)
    tables.print(Text(text), soft_wrap=True)


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Value]], as_json: bool = False) -> None:
    """Print rows on stdout: a table, or with `as_json` a list of objects with the columns as keys.

    Args:
        title: stands above the table.
        columns: names, also the keys of the objects.
        rows: plain values; a column of numbers is set to the right, floats have four digits, none is a dash. A column `seconds` or
            `hours` is shown as `time`, `scoring_seconds` as `scoring time`, in words of `duration`.
        as_json: print JSON instead, with all digits.
    """
    if as_json:
        print_json([dict(zip(columns, row, strict=True)) for row in rows])
        return
    tables.print(Text(title, style="italic"), soft_wrap=True)  # a table's own title would be folded to the table's width
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 2, 0, 0))
    for number, column in enumerate(columns):
        numeric = any(_is_number(row[number]) for row in rows) and all(_is_number(row[number]) or row[number] is None for row in rows)
        name = column.replace("_", " ")
        if column in _DURATIONS:
            name = "scoring time" if column == "scoring_seconds" else "time"
        table.add_column(Text(name), justify="right" if numeric else "left", overflow="fold", no_wrap=number == 0)
    for row in rows:
        table.add_row(*(Text(_shown(value, column)) for value, column in zip(row, columns, strict=True)))
    if tables.is_terminal:
        tables.print(table)
    else:  # a file has no width: nothing is folded
        width = Measurement.get(tables, tables.options.update(max_width=100_000), table).maximum
        Console(highlight=False, width=width).print(table)


class ProgressView(Protocol):
    """Shows the progress of the stages of a run."""

    def update(self, progress: "Progress") -> None:
        """Show the progress of a stage."""


@contextmanager
def progress_view() -> Iterator[ProgressView]:
    """Show progress on stderr while the block runs: bars and a training's metrics on a terminal, elsewhere a line every ten seconds."""
    if messages.is_terminal and not messages.is_dumb_terminal:
        bar = ProgressBars(
            SpinnerColumn(finished_text="✓"),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[text]}", markup=False),
            console=messages,
        )
        bars = _Bars(bar)
        with Live(get_renderable=bars.drawn, console=messages, refresh_per_second=5):
            yield bars
    else:
        lines = ProgressLines(say)
        try:
            yield lines
        finally:
            lines.close()


class _Bars:
    """One bar per stage, and below them the newest metrics of the training that runs."""

    def __init__(self, bar: ProgressBars) -> None:
        self._bar = bar
        self._tasks: dict[str, TaskID] = {}
        self._metrics: Mapping[str, float] = {}

    def update(self, progress: "Progress") -> None:
        if progress.done >= progress.total or not progress.metrics:
            self._metrics = {}
        elif len(progress.metrics) > 1:
            self._metrics = progress.metrics
        text, stage = progress_text(progress), progress.name
        if stage not in self._tasks:  # steps of an earlier run do not count as speed
            self._tasks[stage] = self._bar.add_task(stage, total=progress.total, completed=progress.done, text=text)
        else:
            self._bar.update(self._tasks[stage], completed=progress.done, total=progress.total, text=text)

    def drawn(self) -> Group:
        """Return the bars and the table as they are now."""
        return Group(self._bar.get_renderable(), *([metrics_table(self._metrics)] if self._metrics else []))


def metrics_table(metrics: Mapping[str, float]) -> Table:
    """Return names above values: losses, learning rate, speed, codebook metrics."""
    shown = {name: value for name, value in metrics.items() if name not in {"step", "num_steps", "epoch", "loss"}}
    table = Table(box=None, padding=(0, 2, 0, 0))
    for name in shown:
        table.add_column(Text(name.removeprefix("loss_").replace("_", " ")), justify="right", header_style="dim")
    table.add_row(*(_cell(float(value) if isinstance(value, float) else value) for value in shown.values()))
    return table


def progress_text(progress: "Progress") -> str:
    """Return the text behind a bar or a line: the message, loss and speed."""
    metrics = progress.metrics
    parts = [progress.message] if progress.message else []
    if "loss" in metrics:
        parts.append(f"loss {metrics['loss']:.4f}")
    if "images_per_second" in metrics:
        parts.append(f"{metrics['images_per_second']:.3g} images/s, {metrics['data_wait_share']:.0%} waiting for data")
    return "  ".join(parts)


@dataclass
class _Pace:
    start: float
    first_done: int
    printed: float
    line: str = ""
    pending: bool = False
    finished: bool = False


class ProgressLines:
    """Prints a line per stage when it starts, at most every `every` seconds, and when it ends."""

    def __init__(self, write: Callable[[str], None], every: float = 10.0, clock: Callable[[], float] = time.monotonic) -> None:
        """Write lines with `write`; `every` and `clock` are in seconds."""
        self._write = write
        self._every = every
        self._clock = clock
        self._paces: dict[str, _Pace] = {}

    def update(self, progress: "Progress") -> None:
        """Record a stage's progress and print it if it is time."""
        now = self._clock()
        is_new = progress.name not in self._paces
        pace = self._paces.setdefault(progress.name, _Pace(now, progress.done, now))
        if pace.finished:
            return
        pace.finished = progress.done >= progress.total
        pace.line = _line(progress, pace, now)
        pace.pending = True
        if is_new or pace.finished or now - pace.printed >= self._every:
            self._print(pace, now)

    def close(self) -> None:
        """Print the last progress of stages that were interrupted."""
        for pace in self._paces.values():
            if pace.pending:
                self._print(pace, self._clock())

    def _print(self, pace: _Pace, now: float) -> None:
        self._write(pace.line)
        pace.printed = now
        pace.pending = False


def _line(progress: "Progress", pace: _Pace, now: float) -> str:
    done, total, text = progress.done, progress.total, progress_text(progress)
    share = f"{100 * done // total}%" if total else "100%"
    seconds = now - pace.start
    if pace.finished:
        when = f"in {duration(seconds)}"
    elif done > pace.first_done:
        when = f"{duration(seconds / (done - pace.first_done) * (total - done))} left"
    else:
        when = ""
    state = " ".join(filter(None, (progress.name, f"{done}/{total}", share, when)))
    return f"{state}  {text}" if text else state


def duration(seconds: float) -> str:
    """Return seconds as `0s`, `59s`, `1m02s`, `3h05m` or `2d 3h`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24}d {hours % 24}h"
    if hours:
        return f"{hours}h{minutes:02d}m"
    return f"{minutes}m{rest:02d}s" if minutes else f"{rest}s"


def _is_number(value: Value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _shown(value: Value, column: str) -> str:
    """Return a table's cell as text."""
    if column in _DURATIONS and isinstance(value, int | float):
        return duration(value * _DURATIONS[column])
    return _cell(value)


def _cell(value: Value) -> str:
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1e4 else f"{value:.0f}"
    return str(value)


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def progress_bar(task_name: str) -> Iterator[Callable[[int, int], None]]:
    """Show a progress bar on stderr and yield the function that updates it with (done, total)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with ProgressBars(*columns, console=messages, transient=True, disable=not messages.is_terminal) as bar:
        task = bar.add_task(task_name, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
