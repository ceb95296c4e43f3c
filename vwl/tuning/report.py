"""Reports of a search folder: the Parquet table of trials, each search's table in every format and as a plot, and the best recipe."""

from dataclasses import dataclass

from vwl.config.recipe import Recipe
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.tuning.formats import FORMATS
from vwl.tuning.results import SPLITS, trial_rows, write_parquet
from vwl.tuning.search import Search, open_searches
from vwl.tuning.statistics import mean_and_sd
from vwl.tuning.table import Table, build_table
from vwl.tuning.trials import DONE

PLOTS = ("png", "svg")


def tables(root: Folder, space: str | None = None) -> list[Table]:
    """Return the tables of a folder's searches, or that of one space.

    Raises:
        VwlError: the folder holds no search, or none of this space.
    """
    searches = open_searches(root, space)
    rows = trial_rows(root, searches)
    return [build_table(search, rows) for search in searches]


def write_tables(written: list[Table], out: Folder) -> list[str]:
    """Write tables in every format and their plots; return the files' names."""
    from vwl.tuning.plot import render_plot  # matplotlib takes a second to import

    names = []
    for table in written:
        files = {form.suffix: form.write(table).encode() for form in FORMATS.values()} | {kind: render_plot(table, kind) for kind in PLOTS}
        for suffix, data in files.items():
            out.write(f"{table.name}.{suffix}", data)
            names.append(f"{table.name}.{suffix}")
    return names


def write_all(root: Folder) -> None:
    """Write the Parquet table and every table of a folder."""
    write_parquet(root)
    write_tables(tables(root), root / "tables")


@dataclass(frozen=True)
class Best:
    """The best trial of a folder: the best seed of the setting with the best mean over seeds.

    Attributes:
        space, setting, trial: where it is.
        mean: of the setting over seeds, mIoU in percent.
        score: of the trial, mIoU in percent.
        seeds: how many of the setting are done.
        recipe: of the trial.
    """

    space: str
    setting: str
    trial: str
    mean: float
    score: float
    seeds: int
    recipe: Recipe


def best(root: Folder, space: str | None = None, split: str = "val") -> Best:
    """Return the best trial of a folder's searches, or of one space, by mIoU on a split.

    Settings are compared by their mean over seeds, so that one lucky seed does not decide; complete settings come before others.

    Raises:
        VwlError: no trial has a score on the split, or the split is unknown.
    """
    if split not in SPLITS:
        raise VwlError(f"the split {split} is neither train nor val")
    candidates: list[tuple[bool, float, Best]] = []
    for search in open_searches(root, space):
        candidates += _candidates(search, root, split)
    if not candidates:
        raise VwlError(f"{root} has no finished trial with a score on {split}")
    return max(candidates, key=lambda one: one[:2])[2]


def _candidates(search: Search, root: Folder, split: str) -> list[tuple[bool, float, Best]]:
    """Return each setting's best trial, after whether all its seeds are done and their mean."""
    rows = {row["trial"]: row for row in trial_rows(root, [search])}
    cells: dict[tuple[str, str], list[tuple[float | None, str, Recipe]]] = {}
    for entry in search.entries():
        row = rows[entry.trial.id]
        score = row.get(f"{split}_miou") if row["state"] == DONE else None
        cells.setdefault(entry.setting.cell, []).append((score, entry.trial.id, entry.trial.recipe))
    candidates = []
    for (label, column), trials in cells.items():
        scores = [(score, trial, recipe) for score, trial, recipe in trials if score is not None]
        if scores:
            mean, _ = mean_and_sd([score for score, _, _ in scores])
            assert mean is not None
            score, trial, recipe = max(scores, key=lambda one: one[0])
            candidates.append(
                (
                    len(scores) == len(trials),
                    mean,
                    Best(search.space.name, f"{label} {column}".rstrip(), trial, mean, score, len(scores), recipe),
                )
            )
    return candidates
