"""A search as a table like the paper's: one row per setting, with our mIoU over seeds beside the paper's. Written by `formats`."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from vwl.tuning.results import SPLITS, Row
from vwl.tuning.rows import Cell as Place
from vwl.tuning.search import Search
from vwl.tuning.statistics import CONFIDENCE, Difference, differences, mean_and_sd
from vwl.tuning.trials import DONE, FAILED, STOPPED

CAM_STAGE = "cam"
COSTS = (
    "s / image: time of the stages that make the maps (row) and that refine them (column), trainings included, divided by the images of "
    "the CAM stage; what several cells share counts in each. Gain: difference to the first column over all rows and seeds. "
    "In brackets: difference to the base row; *: significant."
)
_MOST_SEEDS = 2**32
"""Above every seed, so that rows and seeds have numbers of their own."""


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
        column: where the line is, in a table with two axes.
        map_seconds: mean time of the stages that make the maps, trainings included, per image of the CAM stage; a table with two axes.
        refiner_seconds: that of the stages after them.
    """

    label: str
    is_base: bool
    train: Cell
    val: Cell
    seeds: tuple[int, ...]
    missing: dict[int, str]
    column: str = ""
    map_seconds: float | None = None
    refiner_seconds: float | None = None


@dataclass(frozen=True)
class Refinement:
    """A column of a table with two axes.

    Attributes:
        label: of the column.
        stage: whose score is compared in it.
        seconds: mean of the rows' `refiner_seconds`.
        train, val: differences to the first column, over rows and seeds.
    """

    label: str
    stage: str
    seconds: float | None
    train: Difference | None
    val: Difference | None


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
        refinements: the columns of a table with two axes; `lines` has a line for each row and column then.
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
    refinements: tuple[Refinement, ...] = ()

    @property
    def labels(self) -> list[str]:
        """The rows of a table with two axes."""
        return list(dict.fromkeys(line.label for line in self.lines))

    def line(self, label: str, column: str) -> Line:
        """Return the line of a row and column."""
        return next(line for line in self.lines if (line.label, line.column) == (label, column))


def build_table(search: Search, rows: Sequence[Row]) -> Table:
    """Return the table of a search from the rows of its trials."""
    by_trial = {row["trial"]: row for row in rows}
    cells: dict[Place, dict[int, Row]] = {}
    paper: dict[Place, dict[str, float | None]] = {}
    for entry in search.entries():
        cells.setdefault(entry.setting.cell, {})[entry.seed] = by_trial[entry.trial.id]
        paper[entry.setting.cell] = {"train": entry.setting.paper_train, "val": entry.setting.paper_val}
    base = search.space.base_label
    columns = [column.label for column in search.space.columns] or [""]
    scored: dict[str, dict[Place, Cell]] = {split: {} for split in SPLITS}
    for column in columns:
        here = {label: trials for (label, name), trials in cells.items() if name == column}
        theirs = {label: values for (label, name), values in paper.items() if name == column}
        for split in SPLITS:
            scored[split] |= {(label, column): cell for label, cell in _column(here, split, base, theirs).items()}
    lines = [
        Line(
            _described(search, label),
            label == base,
            scored["train"][label, column],
            scored["val"][label, column],
            tuple(sorted(trials)),
            {seed: _missing_reason(row) for seed, row in sorted(trials.items()) if row["state"] != DONE},
            column,
            *(seconds_per_image(trials.values()) if column else (None, None)),
        )
        for (label, column), trials in cells.items()
    ]
    if base is None:  # a joint search has its best samples first
        lines.sort(key=lambda line: -(line.val.mean if line.val.mean is not None else line.train.mean or float("-inf")))
    done = [row for trials in cells.values() for row in trials.values() if row["state"] == DONE]
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
        tuple(refinement(column.label, column.stage, search.space.columns[0].label, lines) for column in search.space.columns),
    )


def seconds_per_image(rows: Iterable[Row]) -> tuple[float | None, float | None]:
    """Return the mean time of the stages up to the CAM stage, and of those after it, per image of the CAM stage.

    Of the trials that are done; trainings are included. A stage that was copied from another trial has the time that it took there.
    """
    maps, after = [], []
    for row in rows:
        images = dict(row.get("stage_images") or ()).get(CAM_STAGE)
        if row["state"] != DONE or not images:
            continue
        seconds = dict(row["stage_seconds"])
        names = list(seconds)
        cut = names.index(CAM_STAGE) + 1
        maps.append(sum(seconds[name] for name in names[:cut]) / images)
        after.append(sum(seconds[name] for name in names[cut:]) / images)
    return mean_and_sd(maps)[0], mean_and_sd(after)[0]


def refinement(label: str, stage: str, first: str, lines: Sequence[Line]) -> Refinement:
    """Return a column's cost, and its gain over the first column on each split: rows and seeds are paired."""
    costs = [line.refiner_seconds for line in lines if line.column == label and line.refiner_seconds is not None]
    gains: dict[str, Difference | None] = {}
    for split in SPLITS:
        rows = list(dict.fromkeys(line.label for line in lines))
        scores: dict[str, dict[int, float]] = {}
        for line in lines:
            if line.column in {first, label}:
                at = rows.index(line.label) * _MOST_SEEDS
                own = scores.setdefault(line.column, {})
                own |= {at + number: score for number, score in getattr(line, split).scores.items()}
        gains[split] = differences(scores, first).get(label)
    return Refinement(label, stage, mean_and_sd(costs)[0], gains["train"], gains["val"])


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
    stages = list(dict.fromkeys(setting.stage or search.space.stage for setting in search.space.settings())) or [search.space.stage]
    which = f"stage {stages[0]}" if len(stages) == 1 else f"stages {', '.join(stages)}"
    notes = [
        f"mIoU in percent of the {which} over {search.recipe.evaluation.described}: mean ± sample standard deviation "
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
    if search.space.columns:
        notes.append(COSTS)
    notes += [f"{label}: {reason}" for label, reason in search.space.left_out.items()]
    left = _count_unfinished(search, lines)
    if left:
        total = sum(len(line.seeds) for line in lines)
        notes.append(f"INCOMPLETE: {left} of {total} trials have no score.")
    notes += [
        f"{line.label}{line.column and f', {line.column}'}, seed {seed}: {reason}"
        for line in lines
        for seed, reason in line.missing.items()
    ]
    return notes


def _count_unfinished(search: Search, lines: Sequence[Line]) -> int:
    """Return how many trials have no score and were not stopped early by this search."""
    reasons = [reason for line in lines for reason in line.missing.values()]
    return sum(not (search.space.early_stopping and reason.startswith("stopped")) for reason in reasons)
