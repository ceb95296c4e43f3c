"""A search as a table like the paper's: a row a setting, ours over seeds beside the paper's figure; as text for people and for machines."""

import csv
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from vwl.tuning.results import SPLITS, Row
from vwl.tuning.search import Search
from vwl.tuning.statistics import CONFIDENCE, Difference, differences, mean_and_sd
from vwl.tuning.trials import DONE, FAILED, STOPPED


@dataclass(frozen=True)
class Cell:
    """A setting on a split; mIoU in percent.

    Attributes:
        scores: by seed, at the threshold that each trial has chosen.
        mean, sd: over the seeds that are there.
        best_with_ground_truth: mean of the scores at the thresholds that ground truth would choose.
        paper: the paper's figure.
        difference: to the base setting.
        is_best: the largest mean of the column.
    """

    scores: dict[int, float]
    mean: float | None
    sd: float | None
    best_with_ground_truth: float | None
    paper: float | None
    difference: Difference | None
    is_best: bool = False


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        label: the setting.
        is_base: whether the differences are to this one.
        train, val: its scores.
        seeds: planned.
        missing: a reason for each seed without a score.
    """

    label: str
    is_base: bool
    train: Cell
    val: Cell
    seeds: tuple[int, ...]
    missing: dict[int, str]


@dataclass(frozen=True)
class Table:
    """A whole table, and what has to be said with it.

    Attributes:
        is_scale: its rows are values of one parameter.
        is_complete: every setting has a score for every seed, or was stopped early.
    """

    name: str
    title: str
    source: str
    parameter: str
    is_scale: bool
    recipe: str
    stage: str
    thresholds: str
    lines: tuple[Line, ...]
    notes: tuple[str, ...]
    is_complete: bool


def build_table(search: Search, rows: Sequence[Row]) -> Table:
    """Return the table of a search from the rows of its trials."""
    by_trial = {row["trial"]: row for row in rows}
    found: dict[str, dict[int, Row]] = {}
    paper: dict[str, dict[str, float | None]] = {}
    for entry in search.entries():
        label = entry.setting.label
        found.setdefault(label, {})[entry.seed] = by_trial[entry.trial.id]
        paper[label] = {"train": entry.setting.paper_train, "val": entry.setting.paper_val}
    base = search.space.base_label
    columns = {split: _column(found, split, base, paper) for split in SPLITS}
    lines = [
        Line(
            _described(search, label),
            label == base,
            columns["train"][label],
            columns["val"][label],
            tuple(sorted(trials)),
            {seed: _why(row) for seed, row in sorted(trials.items()) if row["state"] != DONE},
        )
        for label, trials in found.items()
    ]
    if base is None:  # a joint search is read from its best downwards
        lines.sort(key=lambda line: -(line.val.mean if line.val.mean is not None else line.train.mean or float("-inf")))
    done = [row for trials in found.values() for row in trials.values() if row["state"] == DONE]
    chosen = sorted({row[f"{split}_threshold_chosen"] for row in done for split in SPLITS if row.get(f"{split}_threshold_chosen")})
    return Table(
        search.space.name,
        search.space.title,
        search.space.source,
        search.space.parameter_name,
        bool(search.space.values),
        search.recipe.name,
        search.space.stage,
        "; ".join(chosen),
        tuple(lines),
        tuple(_notes(search, lines, chosen)),
        not _open(search, lines),
    )


def _described(search: Search, label: str) -> str:
    if search.space.strategy != "search":
        return label
    keys = search.samples[int(label.rpartition(" ")[2]) - 1]
    return f"{label}: " + ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in keys.items())


def _column(
    found: Mapping[str, Mapping[int, Row]], split: str, base: str | None, paper: Mapping[str, Mapping[str, float | None]]
) -> dict[str, Cell]:
    def values(label: str, name: str) -> dict[int, float]:
        there = {seed: row.get(f"{split}_{name}") for seed, row in sorted(found[label].items()) if row["state"] == DONE}
        return {seed: float(value) for seed, value in there.items() if value is not None}

    scores = {label: values(label, "miou") for label in found}
    compared = differences(scores, base) if base is not None else {}
    means = {label: mean_and_sd(list(some.values())) for label, some in scores.items()}
    best = max((mean for mean, _ in means.values() if mean is not None), default=None)
    return {
        label: Cell(
            scores[label],
            *means[label],
            mean_and_sd(list(values(label, "best_miou_with_ground_truth").values()))[0],
            paper[label][split],
            compared.get(label),
            best is not None and means[label][0] == best,
        )
        for label in found
    }


def _why(row: Row) -> str:
    if row["state"] in {FAILED, STOPPED}:
        return f"{row['state']}: {row['reason']}" if row["state"] == FAILED else str(row["reason"])
    return "not finished"


def _notes(search: Search, lines: Sequence[Line], chosen: Sequence[str]) -> list[str]:
    notes = [
        f"mIoU in percent of the stage {search.space.stage} over {search.recipe.evaluation.described}; mean and sample standard "
        f"deviation over seeds; background threshold: {'; '.join(chosen) or 'none yet'}; "
        "gt: mean with the threshold that ground truth would choose."
    ]
    used = sorted({d.method for line in lines for d in (line.train.difference, line.val.difference) if d is not None})
    if used:
        notes.append(
            f"Differences are to {search.space.base_label}, with {CONFIDENCE:.0%} confidence intervals ({'; '.join(used)}), for each row "
            f"by itself; beyond noise: the interval excludes 0."
        )
    if search.space.source:
        notes.append(f"Paper's figures: {search.space.source}.")
    if search.space.remark:
        notes.append(search.space.remark)
    left = _open(search, lines)
    if left:
        total = sum(len(line.seeds) for line in lines)
        notes.append(f"INCOMPLETE: {left} of {total} trials have no score.")
    notes += [f"{line.label}, seed {seed}: {why}" for line in lines for seed, why in line.missing.items()]
    return notes


def _open(search: Search, lines: Sequence[Line]) -> int:
    """Return how many trials have no score and were not stopped early by this search."""
    reasons = [why for line in lines for why in line.missing.values()]
    return sum(not (search.space.early_stopping and why.startswith("stopped")) for why in reasons)


COLUMNS = ("train", "paper", "difference", "beyond noise", "gt")
"""Of each split."""


def header(table: Table) -> list[str]:
    """Return the names of the columns."""
    return [table.parameter, *(f"{split} {name}" if name != "train" else split for split in SPLITS for name in COLUMNS), "seeds"]


def texts(table: Table, plus_minus: str = "±") -> list[list[str]]:
    """Return the table's cells as they are read, and a dash where there is none."""
    return [
        [line.label, *(text for cell in (line.train, line.val) for text in _cell(line, cell, plus_minus)), _seeds(line)]
        for line in table.lines
    ]


def _cell(line: Line, cell: Cell, plus_minus: str) -> list[str]:
    ours = "-" if cell.mean is None else f"{cell.mean:.1f}" if cell.sd is None else f"{cell.mean:.1f} {plus_minus} {cell.sd:.1f}"
    if line.is_base:
        difference, beyond = "base", "-"
    elif cell.difference is None:
        difference, beyond = "-", "-"
    else:
        half = cell.difference.half_width
        difference = f"{round(cell.difference.value, 1) + 0.0:+.1f}" + ("" if half is None else f" {plus_minus} {half:.1f}")
        beyond = {None: "-", True: "yes", False: "no"}[cell.difference.beyond_noise]
    paper = "-" if cell.paper is None else f"{cell.paper:.1f}"
    best = "-" if cell.best_with_ground_truth is None else f"{cell.best_with_ground_truth:.1f}"
    return [ours, paper, difference, beyond, best]


def _seeds(line: Line) -> str:
    done = len(line.seeds) - len(line.missing)
    return str(done) if not line.missing else f"{done} of {len(line.seeds)}"


def _best_columns(line: Line) -> set[int]:
    """Places of the cells in bold."""
    return {1 + number * len(COLUMNS) for number, cell in enumerate((line.train, line.val)) if cell.is_best}


def markdown(table: Table) -> str:
    """Return the table as Markdown, the best means in bold."""
    out = [f"### {table.name}: {table.title}", "", f"Recipe `{table.recipe}`.", ""]
    names = header(table)
    out += [f"| {' | '.join(names)} |", f"|---|{'--:|' * (len(names) - 1)}"]
    for line, cells in zip(table.lines, texts(table), strict=True):
        bold = _best_columns(line)
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
    for line, cells in zip(table.lines, texts(table), strict=True):
        bold = _best_columns(line)
        out.append(" & ".join(rf"\textbf{{{safe(t)}}}" if n in bold else safe(t) for n, t in enumerate(cells)) + r" \\")
    out += [r"\bottomrule", r"\end{tabular}", *(rf"\par\footnotesize {safe(note)}" for note in table.notes), r"\end{table}", ""]
    return "\n".join(out)


def as_csv(table: Table) -> str:
    """Return one line a setting and split, with all digits."""
    sink = io.StringIO()
    rows = _records(table)
    writer = csv.DictWriter(sink, list(rows[0]) if rows else ["setting"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return sink.getvalue()


def _records(table: Table) -> list[dict[str, Any]]:
    found = []
    for line in table.lines:
        for split, cell in zip(SPLITS, (line.train, line.val), strict=True):
            difference = cell.difference
            found.append(
                {
                    "setting": line.label,
                    "split": split,
                    "mean": cell.mean,
                    "sd": cell.sd,
                    "seeds_done": len(cell.scores),
                    "seeds_planned": len(line.seeds),
                    "best_with_ground_truth": cell.best_with_ground_truth,
                    "paper": cell.paper,
                    "difference": difference and difference.value,
                    "difference_half_width": difference and difference.half_width,
                    "difference_method": difference and difference.method,
                    "beyond_noise": difference and difference.beyond_noise,
                    "is_base": line.is_base,
                    "is_best": cell.is_best,
                    "scores": " ".join(f"{seed}:{score}" for seed, score in cell.scores.items()),
                    "missing": "; ".join(f"{seed}: {why}" for seed, why in line.missing.items()),
                }
            )
    return found


def as_json(table: Table) -> str:
    """Return everything, with all digits."""

    def cell(found: Cell) -> dict[str, Any]:
        difference = found.difference and {**asdict(found.difference), "beyond_noise": found.difference.beyond_noise}
        return {**asdict(found), "difference": difference}

    lines = []
    for line in table.lines:
        scores = {"train": cell(line.train), "val": cell(line.val)}
        lines.append({"setting": line.label, "is_base": line.is_base, "seeds": line.seeds, "missing": line.missing, **scores})
    head = {key: getattr(table, key) for key in ("name", "title", "source", "parameter", "recipe", "stage", "thresholds", "notes")}
    return json.dumps({**head, "is_complete": table.is_complete, "lines": lines}, indent=2, ensure_ascii=False) + "\n"


FORMATS: dict[str, tuple[str, Callable[[Table], str]]] = {
    "markdown": ("md", markdown),
    "latex": ("tex", latex),
    "csv": ("csv", as_csv),
    "json": ("json", as_json),
}
"""By name: the file's suffix and the writer; the terminal's table is drawn by the command line from `header` and `texts`."""
