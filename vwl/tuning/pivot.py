"""A table with two axes as text: rows are settings, such as seeds, columns are what is scored of each, such as refinements (Table 1)."""

from collections.abc import Sequence

from vwl.tuning.results import SPLITS
from vwl.tuning.statistics import Difference
from vwl.tuning.table import Cell, Line, Table

SECONDS, GAIN = "s / image", "gain"


def splits(table: Table) -> list[str]:
    """Return the splits with a score of ours or the paper's; both of a table without any."""
    found = [split for split in SPLITS if any(_cell(line, split).mean is not None or _has_paper(line, split) for line in table.lines)]
    return found or list(SPLITS)


def header(table: Table) -> list[str]:
    """Return the names of the columns: for each split and refinement our mIoU, and the paper's where it has one."""
    names = [name for split in splits(table) for column in table.refinements for name in _names(table, split, column.label)]
    return [table.parameter, *names, SECONDS, "seeds"]


def texts(table: Table, plus_minus: str = "±") -> list[list[str]]:
    """Return the text of each cell: a line for each row, then the cost of each refinement and its gain over the first one."""
    rows = []
    for label in table.labels:
        lines = [table.line(label, column.label) for column in table.refinements]
        done = [len(line.seeds) - len(line.missing) for line in lines]
        seeds = str(done[0]) if all(number == len(line.seeds) for number, line in zip(done, lines, strict=True)) else _counted(lines, done)
        cells = [text for split in splits(table) for line in lines for text in _texts(table, line, split, plus_minus)]
        rows.append([label, *cells, _seconds([line.map_seconds for line in lines]), seeds])
    costs = [
        text for split in splits(table) for column in table.refinements for text in _padded(table, split, column.label, column.seconds)
    ]
    rows.append([SECONDS, *costs, "-", "-"])
    gains = []
    for split in splits(table):
        for column in table.refinements:
            gain = _difference(getattr(column, split), plus_minus) or "-"
            gains += [gain] + ["-"] * (len(_names(table, split, column.label)) - 1)
    rows.append([GAIN, *gains, "-", "-"])
    return rows


def bold(table: Table) -> list[set[int]]:
    """Return the numbers of each row's cells that are the best of their column."""
    found = []
    for label in table.labels:
        best, number = set(), 1
        for split in splits(table):
            for column in table.refinements:
                if _cell(table.line(label, column.label), split).is_best:
                    best.add(number)
                number += len(_names(table, split, column.label))
        found.append(best)
    return [*found, set(), set()]


def _names(table: Table, split: str, column: str) -> list[str]:
    has_paper = any(_has_paper(line, split) for line in table.lines if line.column == column)
    return [f"{split} {column}", *([f"{split} {column} paper"] if has_paper else [])]


def _texts(table: Table, line: Line, split: str, plus_minus: str) -> list[str]:
    """Return our mIoU with its difference to the base row in brackets, and the paper's."""
    cell = _cell(line, split)
    ours = "-" if cell.mean is None else f"{cell.mean:.1f}" if cell.sd is None else f"{cell.mean:.1f} {plus_minus} {cell.sd:.1f}"
    difference = "" if line.is_base else _difference(cell.difference, plus_minus)
    paper = ["-" if cell.paper is None else f"{cell.paper:.1f}"] if len(_names(table, split, line.column)) > 1 else []
    return [f"{ours} ({difference})" if difference else ours, *paper]


def _difference(difference: Difference | None, plus_minus: str) -> str:
    """Return a difference with its interval, and an asterisk if that excludes 0; empty if there is none."""
    if difference is None:
        return ""
    half = "" if difference.half_width is None else f" {plus_minus} {difference.half_width:.1f}"
    return f"{round(difference.value, 1) + 0.0:+.1f}{half}{'*' if difference.is_significant else ''}"


def _padded(table: Table, split: str, column: str, seconds: float | None) -> list[str]:
    return [_seconds([seconds])] + ["-"] * (len(_names(table, split, column)) - 1)


def _seconds(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.2f}" if known else "-"


def _counted(lines: Sequence[Line], done: Sequence[int]) -> str:
    return f"{sum(done)} of {sum(len(line.seeds) for line in lines)}"


def _cell(line: Line, split: str) -> Cell:
    cell: Cell = getattr(line, split)
    return cell


def _has_paper(line: Line, split: str) -> bool:
    return _cell(line, split).paper is not None
