"""Text formats of a table: Markdown and LaTeX for people, CSV and JSON for programs."""

import csv
import io
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

from vwl.tuning import pivot
from vwl.tuning.results import SPLITS
from vwl.tuning.statistics import Difference
from vwl.tuning.table import Cell, Line, Table

COLUMNS = ("mIoU", "paper", "difference", "significant", "P / R", "best threshold")
"""Columns of each split."""


def header(table: Table) -> list[str]:
    """Return the names of the columns."""
    if table.refinements:
        return pivot.header(table)
    return [table.parameter, *(f"{split} {name}" for split in SPLITS for name in COLUMNS), "seeds"]


def texts(table: Table, plus_minus: str = "±") -> list[list[str]]:
    """Return the text of each cell by row; a missing value is a dash."""
    if table.refinements:
        return pivot.texts(table, plus_minus)
    return [
        [line.label, *(text for cell in (line.train, line.val) for text in _cell(line, cell, plus_minus)), _seeds(line)]
        for line in table.lines
    ]


def _cell(line: Line, cell: Cell, plus_minus: str) -> list[str]:
    """Return the texts of a split's columns."""
    ours = "-" if cell.mean is None else f"{cell.mean:.1f}" if cell.sd is None else f"{cell.mean:.1f} {plus_minus} {cell.sd:.1f}"
    if line.is_base:
        difference, significant = "base", "-"
    elif cell.difference is None:
        difference, significant = "-", "-"
    else:
        half = cell.difference.half_width
        difference = f"{round(cell.difference.value, 1) + 0.0:+.1f}" + ("" if half is None else f" {plus_minus} {half:.1f}")
        significant = {None: "-", True: "yes", False: "no"}[cell.difference.is_significant]
    paper = "-" if cell.paper is None else f"{cell.paper:.1f}"
    best = "-" if cell.best_with_ground_truth is None else f"{cell.best_with_ground_truth:.1f}"
    shares = "-" if cell.precision is None or cell.recall is None else f"{cell.precision:.1f} / {cell.recall:.1f}"
    return [ours, paper, difference, significant, shares, best]


def _seeds(line: Line) -> str:
    done = len(line.seeds) - len(line.missing)
    return str(done) if not line.missing else f"{done} of {len(line.seeds)}"


def _best_columns(table: Table) -> list[set[int]]:
    """Return the numbers of the columns whose cell is in bold, by row."""
    if table.refinements:
        return pivot.bold(table)
    return [{1 + number * len(COLUMNS) for number, cell in enumerate((line.train, line.val)) if cell.is_best} for line in table.lines]


def markdown(table: Table) -> str:
    """Return the table as Markdown, the best means in bold."""
    out = [f"### {table.name}: {table.title}", "", f"Recipe `{table.recipe}`.", ""]
    names = header(table)
    out += [f"| {' | '.join(names)} |", f"|---|{'--:|' * (len(names) - 1)}"]
    for bold, cells in zip(_best_columns(table), texts(table), strict=True):
        out.append(f"| {' | '.join(f'**{text}**' if n in bold else text.replace('|', chr(92) + '|') for n, text in enumerate(cells))} |")
    return "\n".join([*out, "", *(f"- {note}" for note in table.notes), ""])


_SPECIAL = {"\\": r"\textbackslash{}", **{c: f"\\{c}" for c in "&%$#_{}"}, "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}


def latex(table: Table) -> str:
    """Return the table as a LaTeX `table` of the package booktabs, the best means in bold."""

    def safe(text: str) -> str:
        return "".join(_SPECIAL.get(c, c) for c in text).replace("±", r"$\pm$")

    names = header(table)
    out = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{safe(table.title)} (recipe {safe(table.recipe)})}}",
        rf"\label{{tab:{table.name}}}",
    ]
    out += [rf"\begin{{tabular}}{{l{'r' * (len(names) - 1)}}}", r"\toprule", " & ".join(map(safe, names)) + r" \\", r"\midrule"]
    for bold, cells in zip(_best_columns(table), texts(table), strict=True):
        out.append(" & ".join(rf"\textbf{{{safe(t)}}}" if n in bold else safe(t) for n, t in enumerate(cells)) + r" \\")
    out += [r"\bottomrule", r"\end{tabular}", *(rf"\par\footnotesize {safe(note)}" for note in table.notes), r"\end{table}", ""]
    return "\n".join(out)


def as_csv(table: Table) -> str:
    """Return the table as CSV: one line per setting and split, with all digits."""
    sink = io.StringIO()
    rows = _records(table)
    writer = csv.DictWriter(sink, list(rows[0]) if rows else ["setting"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def _cells(line: Line) -> tuple[tuple[str, Cell], ...]:
    return (SPLITS[0], line.train), (SPLITS[1], line.val)


def _records(table: Table) -> list[dict[str, Any]]:
    records = []
    for line in table.lines:
        for split, cell in _cells(line):
            difference = cell.difference
            records.append(
                {
                    "setting": line.label,
                    **({"column": line.column} if table.refinements else {}),
                    "split": split,
                    "mean": cell.mean,
                    "sd": cell.sd,
                    "seeds_done": len(cell.scores),
                    "seeds_planned": len(line.seeds),
                    "precision": cell.precision,
                    "recall": cell.recall,
                    "best_with_ground_truth": cell.best_with_ground_truth,
                    "paper": cell.paper,
                    "difference": difference and difference.value,
                    "difference_half_width": difference and difference.half_width,
                    "difference_method": difference and difference.method,
                    "is_significant": difference and difference.is_significant,
                    "is_base": line.is_base,
                    "is_best": cell.is_best,
                    "scores": " ".join(f"{seed}:{score}" for seed, score in cell.scores.items()),
                    "missing": "; ".join(f"{seed}: {reason}" for seed, reason in line.missing.items()),
                    **(_seconds(line) if table.refinements else {}),
                }
            )
    return records


def _seconds(line: Line) -> dict[str, float | None]:
    return {"map_seconds_per_image": line.map_seconds, "refiner_seconds_per_image": line.refiner_seconds}


def as_json(table: Table) -> str:
    """Return the table as JSON: all fields, with all digits."""

    def difference(found: Difference | None) -> dict[str, Any] | None:
        return None if found is None else {**asdict(found), "is_significant": found.is_significant}

    lines = []
    for line in table.lines:
        scores = {split: {**asdict(cell), "difference": difference(cell.difference)} for split, cell in _cells(line)}
        place = {"column": line.column, **_seconds(line)} if table.refinements else {}
        lines.append({"setting": line.label, **place, "is_base": line.is_base, "seeds": line.seeds, "missing": line.missing, **scores})
    columns = [
        {
            "label": one.label,
            "stage": one.stage,
            "seconds_per_image": one.seconds,
            "train": difference(one.train),
            "val": difference(one.val),
        }
        for one in table.refinements
    ]
    head = {key: getattr(table, key) for key in ("name", "title", "source", "parameter", "recipe", "stage", "thresholds", "notes")}
    more = {"columns": columns} if columns else {}
    return json.dumps({**head, "is_complete": table.is_complete, **more, "lines": lines}, indent=2, ensure_ascii=False) + "\n"


@dataclass(frozen=True)
class Format:
    """A text format of a table.

    Attributes:
        suffix: of its files.
        write: returns a table in this format.
    """

    suffix: str
    write: Callable[[Table], str]


FORMATS = {
    "markdown": Format("md", markdown),
    "latex": Format("tex", latex),
    "csv": Format("csv", as_csv),
    "json": Format("json", as_json),
}
"""By name. The command line draws the terminal's table from `header` and `texts`."""
