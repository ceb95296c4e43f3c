"""A search as a table like the paper's: one row per setting, with our mIoU over seeds beside the paper's. Written by `formats`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vwl.tuning.results import SPLITS, Row
from vwl.tuning.search import Search
from vwl.tuning.statistics import CONFIDENCE, Difference, differences, mean_and_sd
from vwl.tuning.trials import DONE, FAILED, STOPPED


@dataclass(frozen=True)
class Cell:
    """The mIoU of a setting on a split, in percent.

    Attributes:
        scores: by seed, at the background threshold that each trial has chosen.
        mean, sd: mean and sample standard deviation over the seeds that are done.
        precision, recall: means over the object classes, at the same thresholds as the scores.
        best_with_ground_truth: mean score at the threshold that is best according to ground truth.
        paper: the paper's mIoU.
        difference: to the base setting.
        is_best: whether the mean is the largest of its column.
    """

    scores: dict[int, float]
    mean: float | None
    sd: float | None
    precision: float | None
    recall: float | None
    best_with_ground_truth: float | None
    paper: float | None
    difference: Difference | None
    is_best: bool = False


@dataclass(frozen=True)
class Line:
    """A row of the table.

    Attributes:
        label: the setting.
        is_base: whether differences are taken to this setting.
        train, val: its scores on the two splits.
        seeds: the planned ones.
        missing: the reason, for each seed without a score.
    """

    label: str
    is_base: bool
    train: Cell
    val: Cell
    seeds: tuple[int, ...]
    missing: dict[int, str]


@dataclass(frozen=True)
class Table:
    """A table with its title and notes.

    Attributes:
        name, title, source: of the space; `source` is where the paper has the table.
        parameter: heading of the first column.
        is_scale: whether the rows are values of one parameter.
        recipe: name of the recipe that the settings are applied to.
        stage: the stage whose score is compared.
        thresholds: how the trials have chosen their background threshold.
        lines: the rows.
        notes: one sentence or more each.
        is_complete: whether every setting has a score for every seed or was stopped early.
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
    by_label: dict[str, dict[int, Row]] = {}
    paper: dict[str, dict[str, float | None]] = {}
    for entry in search.entries():
        label = entry.setting.label
        by_label.setdefault(label, {})[entry.seed] = by_trial[entry.trial.id]
        paper[label] = {"train": entry.setting.paper_train, "val": entry.setting.paper_val}
    base = search.space.base_label
    columns = {split: _column(by_label, split, base, paper) for split in SPLITS}
    lines = [
        Line(
            _described(search, label),
            label == base,
            columns["train"][label],
            columns["val"][label],
            tuple(sorted(trials)),
            {seed: _missing_reason(row) for seed, row in sorted(trials.items()) if row["state"] != DONE},
        )
        for label, trials in by_label.items()
    ]
    if base is None:  # a joint search has its best samples first
        lines.sort(key=lambda line: -(line.val.mean if line.val.mean is not None else line.train.mean or float("-inf")))
    done = [row for trials in by_label.values() for row in trials.values() if row["state"] == DONE]
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
        not _count_unfinished(search, lines),
    )


def _described(search: Search, label: str) -> str:
    """Return a row's label; that of a sample with its parameters."""
    if search.space.strategy != "search":
        return label
    keys = search.samples[int(label.rpartition(" ")[2]) - 1]
    return f"{label}: " + ", ".join(f"{key.rpartition('.')[2]} {value}" for key, value in keys.items())


def _column(
    by_label: Mapping[str, Mapping[int, Row]], split: str, base: str | None, paper: Mapping[str, Mapping[str, float | None]]
) -> dict[str, Cell]:
    """Return the cells of a split by label; `by_label`: the trials' rows by setting and seed."""

    def values(label: str, name: str) -> dict[int, float]:
        stored = {seed: row.get(f"{split}_{name}") for seed, row in sorted(by_label[label].items()) if row["state"] == DONE}
        return {seed: float(value) for seed, value in stored.items() if value is not None}

    def mean(label: str, name: str) -> float | None:
        return mean_and_sd(list(values(label, name).values()))[0]

    scores = {label: values(label, "miou") for label in by_label}
    compared = differences(scores, base) if base is not None else {}
    means = {label: mean_and_sd(list(some.values())) for label, some in scores.items()}
    best = max((value for value, _ in means.values() if value is not None), default=None)
    return {
        label: Cell(
            scores[label],
            *means[label],
            mean(label, "object_precision"),
            mean(label, "object_recall"),
            mean(label, "best_miou_with_ground_truth"),
            paper[label][split],
            compared.get(label),
            best is not None and means[label][0] == best,
        )
        for label in by_label
    }


def _missing_reason(row: Row) -> str:
    """Return why a trial has no score."""
    if row["state"] in {FAILED, STOPPED}:
        return f"{row['state']}: {row['reason']}" if row["state"] == FAILED else str(row["reason"])
    return "not finished"


def _notes(search: Search, lines: Sequence[Line], chosen: Sequence[str]) -> list[str]:
    notes = [
        f"mIoU in percent of the stage {search.space.stage} over {search.recipe.evaluation.described}: mean ± sample standard deviation "
        f"over seeds. Background threshold: {'; '.join(chosen) or 'none yet'}. "
        "P / R: mean precision and recall of the object classes; low precision is over-activation, low recall under-activation. "
        "Best threshold: the mean mIoU at the thresholds that ground truth would choose."
    ]
    used = sorted({d.method for line in lines for d in (line.train.difference, line.val.difference) if d is not None})
    if used:
        notes.append(
            f"Differences are to {search.space.base_label}, with {CONFIDENCE:.0%} confidence intervals for each row separately "
            f"({'; '.join(used)}). Significant: the interval excludes 0."
        )
    if search.space.source:
        notes.append(f"The paper's mIoU is from {search.space.source}.")
    if search.space.remark:
        notes.append(search.space.remark)
    left = _count_unfinished(search, lines)
    if left:
        total = sum(len(line.seeds) for line in lines)
        notes.append(f"INCOMPLETE: {left} of {total} trials have no score.")
    notes += [f"{line.label}, seed {seed}: {reason}" for line in lines for seed, reason in line.missing.items()]
    return notes


def _count_unfinished(search: Search, lines: Sequence[Line]) -> int:
    """Return how many trials have no score and were not stopped early by this search."""
    reasons = [reason for line in lines for reason in line.missing.values()]
    return sum(not (search.space.early_stopping and reason.startswith("stopped")) for reason in reasons)
