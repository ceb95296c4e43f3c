"""The plot of a table: our mean and standard deviation over seeds, the score of each seed, and the paper's mIoU."""

import io

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vwl.tuning.results import SPLITS
from vwl.tuning.table import Cell, Table

_OURS, _PAPER = "#1f5fa8", "#c0504d"


def draw(table: Table) -> Figure:
    """Return a figure with one panel per split.

    The paper's mIoU has an axis of its own (right), with the same scale, shifted so that the base settings are at the same height:
    with another network or image size the level differs, but differences between settings can be compared.
    """
    matplotlib.rcParams["svg.hashsalt"] = "vwl"  # makes the file reproducible
    figure = Figure(figsize=(max(7.0, 1.1 * _width(table) + 4), 3.6), layout="constrained")
    figure.suptitle(f"{table.name}: {table.title} (recipe {table.recipe}{'' if table.is_complete else ', incomplete'})", fontsize=10)
    panels = figure.subplots(1, 2)
    for axes, split in zip(panels, SPLITS, strict=True):
        (_crossed_panel if table.refinements else _panel)(axes, table, split)
    return figure


def _width(table: Table) -> int:
    """Return the number of labels below the figure."""
    return len(table.labels) if table.refinements else len(table.lines)


def _panel(axes: Axes, table: Table, split: str) -> None:
    """Draw a split's scores."""
    cells: list[Cell] = [getattr(line, split) for line in table.lines]
    ticks = range(len(cells))
    with_score = [tick for tick in ticks if cells[tick].mean is not None]
    means = [float(cells[tick].mean or 0) for tick in with_score]
    joined = "-" if table.is_scale else ""
    axes.errorbar(
        with_score,
        means,
        yerr=[cells[tick].sd or 0 for tick in with_score],
        fmt=f"o{joined}",
        color=_OURS,
        capsize=4,
        label="ours, mean ± sd",
    )
    for tick in with_score:
        scores = list(cells[tick].scores.values())
        axes.plot([tick] * len(scores), scores, "x", color=_OURS, alpha=0.5, markersize=5)
    axes.set_xticks(list(ticks), [_short(line.label) for line in table.lines], rotation=0 if len(cells) < 6 else 45, fontsize=8)
    axes.set_xlabel(table.parameter)
    axes.set_ylabel("mIoU, percent")
    axes.set_title(split, fontsize=9)
    axes.margins(x=0.1, y=0.15)
    with_paper = [tick for tick in ticks if cells[tick].paper is not None]
    if with_paper:
        base = next((tick for tick in ticks if table.lines[tick].is_base and tick in with_score and tick in with_paper), None)
        shift = 0.0 if base is None else float(cells[base].paper or 0) - float(cells[base].mean or 0)
        axes.plot(
            with_paper, [float(cells[tick].paper or 0) - shift for tick in with_paper], f"s{joined and '--'}", color=_PAPER, label="paper"
        )
        axes.secondary_yaxis("right", functions=(lambda y: np.add(y, shift), lambda y: np.subtract(y, shift))).tick_params(colors=_PAPER)
    axes.legend(fontsize=7)


def _crossed_panel(axes: Axes, table: Table, split: str) -> None:
    """Draw a split's scores of a table with two axes: a colour for each column, the paper's as squares at their own height."""
    for number, column in enumerate(table.refinements):
        colour, shift = f"C{number}", 0.08 * (number - (len(table.refinements) - 1) / 2)
        cells: list[Cell] = [getattr(table.line(label, column.label), split) for label in table.labels]
        ours = [(tick + shift, cell.mean, cell.sd or 0.0) for tick, cell in enumerate(cells) if cell.mean is not None]
        if ours:
            places, means, deviations = zip(*ours, strict=True)
            axes.errorbar(places, means, yerr=deviations, fmt="o", color=colour, capsize=3, label=column.label)
        paper = [(tick + shift, cell.paper) for tick, cell in enumerate(cells) if cell.paper is not None]
        if paper:
            axes.plot(*zip(*paper, strict=True), "s", color=colour, fillstyle="none", label=f"{column.label}, paper")
    axes.set_xticks(range(len(table.labels)), table.labels, rotation=0 if len(table.labels) < 4 else 45, fontsize=8)
    axes.set_ylabel("mIoU, percent")
    axes.set_title(split, fontsize=9)
    axes.margins(x=0.1, y=0.15)
    if axes.has_data():
        axes.legend(fontsize=7)


def _short(label: str) -> str:
    """Return a label without the parameters of a sample."""
    return label.partition(":")[0]


def render_plot(table: Table, kind: str) -> bytes:
    """Return the plot as the bytes of a `png` or `svg` file."""
    sink = io.BytesIO()
    draw(table).savefig(sink, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return sink.getvalue()
