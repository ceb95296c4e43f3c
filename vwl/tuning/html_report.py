"""The report of a search folder as one HTML file: each search's table with intervals and plots, and the trials with links to them."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from vwl.report.html.charts import Chart, Mode, Series, chart_data
from vwl.report.html.page import SEARCH_SCRIPTS, Page, Section, duration, render
from vwl.report.html.report import NAME
from vwl.report.html.sections.summary import Figure
from vwl.storage.folder import Folder
from vwl.tuning.formats import COLUMNS, header, texts
from vwl.tuning.results import SPLITS, Row, trial_rows
from vwl.tuning.search import open_searches
from vwl.tuning.statistics import CONFIDENCE
from vwl.tuning.table import Table, build_table
from vwl.tuning.trials import DONE, FAILED


@dataclass(frozen=True)
class SearchTable:
    """Content of a search's section; `rows` are label, the texts of the splits' columns, and the seeds.

    A table with two axes has no splits, and `columns` are all its columns.
    """

    table: Table
    splits: Sequence[str]
    columns: Sequence[str]
    rows: Sequence[tuple[str, Sequence[str], str]]
    charts: Sequence[Chart]


@dataclass(frozen=True)
class TrialLine:
    """A trial; `link` is the address of its report or folder, none where a browser cannot open it."""

    id: str
    link: str | None
    settings: str
    seed: int
    state: str
    train: float | None
    val: float | None
    seconds: float
    reason: str


@dataclass(frozen=True)
class Overview:
    """Content of the first section: headline figures."""

    figures: Sequence[Figure]


@dataclass(frozen=True)
class Trials:
    """Content of the section of all trials; `has_reasons`: whether one has failed or was stopped, and says why."""

    trials: Sequence[TrialLine]
    has_reasons: bool


def search_report(root: Folder, out: str | None = None) -> bytes:
    """Return the report of a search folder, which need not be finished.

    Args:
        root: the folder.
        out: where the report will be written; the folder itself if not given. Links to trials are relative in the folder.

    Raises:
        VwlError: the folder holds no search.
    """
    searches = open_searches(root)
    rows = trial_rows(root, searches)
    tables = [build_table(search, rows) for search in searches]
    overview = Section("overview", "Overview", Overview(_figures(rows, tables)))
    sections = [overview, *map(_table_section, tables), _trials_section(root, rows, is_inside=out is None)]
    name = root.uri.partition("?")[0].rstrip("/").rpartition("/")[2] or root.uri
    subtitle = f"{', '.join(table.name for table in tables)} · data {searches[0].index_path}"
    return render(Page(name, "Search", subtitle, sections, SEARCH_SCRIPTS))


def _table_section(table: Table) -> Section:
    charts = [
        chart
        for split in SPLITS
        if _has_scores(table, split)
        for chart in (
            [_crossed_chart(table, split)] if table.refinements else [_scores_chart(table, split), _differences_chart(table, split)]
        )
        if chart
    ]
    lines = [(row[0], row[1:-1], row[-1]) for row in texts(table)]
    name = f"search-{table.name}"
    crossed = bool(table.refinements)
    content = SearchTable(table, () if crossed else SPLITS, header(table)[1:-1] if crossed else COLUMNS, lines, charts)
    return Section(name, f"{table.name}: {table.title}", content, {f"charts_{table.name}": chart_data(charts)}, "search")


def _has_scores(table: Table, split: str) -> bool:
    return any(getattr(line, split).mean is not None for line in table.lines)


def _scores_chart(table: Table, split: str) -> Chart:
    """Return mean and standard deviation of each setting, the score of each seed, and the paper's mIoU."""
    lines = [line for line in table.lines if getattr(line, split).mean is not None]
    cells = [getattr(line, split) for line in lines]
    labels = [_short(line.label) for line in lines]
    seeds = [(label, seed, score) for label, cell in zip(labels, cells, strict=True) for seed, score in cell.scores.items()]
    mode: Mode = "lines+markers" if table.is_scale else "markers"
    hints = [
        f"{line.label}: {cell.mean:.2f}" + ("" if cell.sd is None else f" ± {cell.sd:.2f}") for line, cell in zip(lines, cells, strict=True)
    ]
    series = [
        Series("mean ± sd", labels, [cell.mean for cell in cells], mode, 0, error=[cell.sd or 0.0 for cell in cells], labels=hints),
        Series(
            "seeds",
            [label for label, _, _ in seeds],
            [score for _, _, score in seeds],
            "markers",
            0,
            "x-thin-open",
            labels=[f"{label}, seed {seed}: {score:.2f}" for label, seed, score in seeds],
        ),
    ]
    paper = [(_short(line.label), getattr(line, split).paper) for line in table.lines if getattr(line, split).paper is not None]
    if paper:
        hints = [f"{label}, paper: {value:.1f}" for label, value in paper]
        series.append(
            Series("paper", [label for label, _ in paper], [value for _, value in paper], mode, 1, "square", dash=True, labels=hints)
        )
    return Chart(
        f"{table.name}-{split}-scores",
        f"mIoU, {split}",
        table.parameter,
        "mIoU, percent",
        series,
        "Bars: standard deviation over seeds.",
        categories=True,
    )


def _crossed_chart(table: Table, split: str) -> Chart:
    """Return mean and standard deviation of each row by column."""
    series = []
    for number, column in enumerate(table.refinements):
        lines = [line for line in table.lines if line.column == column.label and getattr(line, split).mean is not None]
        cells = [getattr(line, split) for line in lines]
        hints = [f"{line.label}, {column.label}: {cell.mean:.2f}" for line, cell in zip(lines, cells, strict=True)]
        labels = [_short(line.label) for line in lines]
        error = [cell.sd or 0.0 for cell in cells]
        series.append(Series(column.label, labels, [cell.mean for cell in cells], "markers", number, error=error, labels=hints))
    note = "Bars: standard deviation over seeds."
    name = f"{table.name}-{split}-scores"
    return Chart(name, f"mIoU, {split}", table.parameter, "mIoU, percent", series, note, categories=True)


def _differences_chart(table: Table, split: str) -> Chart | None:
    """Return the differences to the base setting with their confidence intervals; none without any."""
    found = [(line, getattr(line, split).difference) for line in table.lines if getattr(line, split).difference is not None]
    if not found:
        return None
    hints = [f"{line.label}: {d.value:+.2f}" + ("" if d.half_width is None else f" ± {d.half_width:.2f}") for line, d in found]
    series = Series(
        "difference",
        [_short(line.label) for line, _ in found],
        [d.value for _, d in found],
        "markers",
        2,
        error=[d.half_width or 0.0 for _, d in found],
        labels=hints,
    )
    base = next((line.label for line in table.lines if line.is_base), "")
    note = f"To {base}. Bars: {CONFIDENCE:.0%} confidence intervals; without seeds enough there is none."
    return Chart(
        f"{table.name}-{split}-differences",
        f"Difference in mIoU, {split}",
        table.parameter,
        "points of mIoU",
        [series],
        note,
        categories=True,
    )


def _short(label: str) -> str:
    """Return a label without the parameters of a sample."""
    return label.partition(":")[0]


def _figures(rows: Sequence[Row], tables: Sequence[Table]) -> list[Figure]:
    done, failed = (sum(row["state"] == state for row in rows) for state in (DONE, FAILED))
    figures = [Figure("Trials done", f"{done:,}", f"of {len(rows):,}, {failed:,} failed")]
    for table in tables:
        best = next((line for line in table.lines if line.val.is_best or (line.val.mean is None and line.train.is_best)), None)
        if best is not None:
            split, cell = ("val", best.val) if best.val.mean is not None else ("train", best.train)
            figures.append(
                Figure(
                    f"Best of {table.name}",
                    f"{cell.mean:.1f} %",
                    f"{_short(best.label)}{best.column and f' {best.column}'}, mIoU on {split}, {len(cell.scores)} seeds",
                )
            )
    figures.append(Figure("Working time", duration(sum(row.get("seconds") or 0.0 for row in rows)), "of all trials"))
    return figures


def _trials_section(root: Folder, rows: Sequence[Row], is_inside: bool) -> Section:
    lines = [
        TrialLine(
            row["trial"],
            _link(root, row["trial"], is_inside),
            ", ".join(dict.fromkeys(f"{cell['space']}: {cell['setting']} {cell.get('column') or ''}".rstrip() for cell in row["in"])),
            row["seed"],
            row["state"],
            row.get("train_miou"),
            row.get("val_miou"),
            row.get("seconds") or 0.0,
            row.get("reason") or "",
        )
        for row in rows
    ]
    return Section("trials", "Trials", Trials(lines, any(line.reason for line in lines)))


def _link(root: Folder, trial: str, is_inside: bool) -> str | None:
    """Return the address of a trial's report, or of its folder; none where it was not started or a browser cannot open it."""
    folder = root / "trials" / trial
    if not folder.exists():
        return None
    has_report = folder.exists(NAME)
    if is_inside and (root.is_local or has_report):
        return f"trials/{quote(trial)}/{NAME if has_report else ''}"
    return Path(folder.path, NAME if has_report else "").as_uri() if root.is_local else None
