"""The picture of a table: our means with their spread over seeds, each seed's score, and the paper's curve beside them."""

import io

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vwl.tuning.results import SPLITS
from vwl.tuning.table import Cell, Table

_OURS, _PAPER = "#1f5fa8", "#c0504d"


def draw(table: Table) -> Figure:
    """Return a figure with a panel a split.

    The paper's axis has ours' scale and is shifted so that the base settings lie at one height: the paper's level (other network,
    other size) is not ours, but how the settings differ can be compared.
    """
    matplotlib.rcParams["svg.hashsalt"] = "vwl"  # the same table, the same file
    figure = Figure(figsize=(max(7.0, 1.1 * len(table.lines) + 4), 3.6), layout="constrained")
    figure.suptitle(f"{table.name}: {table.title} (recipe {table.recipe}{'' if table.is_complete else ', incomplete'})", fontsize=10)
    panels = figure.subplots(1, 2)
    for axes, split in zip(panels, SPLITS, strict=True):
        _panel(axes, table, split)
    return figure


def _panel(axes: Axes, table: Table, split: str) -> None:
    cells: list[Cell] = [getattr(line, split) for line in table.lines]
    places = range(len(cells))
    ours = [place for place in places if cells[place].mean is not None]
    means = [float(cells[place].mean or 0) for place in ours]
    joined = "-" if table.is_scale else ""
    axes.errorbar(ours, means, yerr=[cells[p].sd or 0 for p in ours], fmt=f"o{joined}", color=_OURS, capsize=4, label="ours, mean ± sd")
    for place in ours:
        scores = list(cells[place].scores.values())
        axes.plot([place] * len(scores), scores, "x", color=_OURS, alpha=0.5, markersize=5)
    axes.set_xticks(list(places), [_short(line.label) for line in table.lines], rotation=0 if len(cells) < 6 else 45, fontsize=8)
    axes.set_xlabel(table.parameter)
    axes.set_ylabel("mIoU, percent")
    axes.set_title(split, fontsize=9)
    axes.margins(x=0.1, y=0.15)
    theirs = [place for place in places if cells[place].paper is not None]
    if theirs:
        base = next((p for p in places if table.lines[p].is_base and p in ours and p in theirs), None)
        shift = 0.0 if base is None else float(cells[base].paper or 0) - float(cells[base].mean or 0)
        axes.plot(theirs, [float(cells[p].paper or 0) - shift for p in theirs], f"s{joined and '--'}", color=_PAPER, label="paper")
        axes.secondary_yaxis("right", functions=(lambda y: np.add(y, shift), lambda y: np.subtract(y, shift))).tick_params(colors=_PAPER)
    axes.legend(fontsize=7)


def _short(label: str) -> str:
    return label.partition(":")[0]


def picture(table: Table, kind: str) -> bytes:
    """Return the figure as a file of the kind `png` or `svg`."""
    sink = io.BytesIO()
    draw(table).savefig(sink, format=kind, dpi=150, metadata={"Date": None} if kind == "svg" else {"Software": None})
    return sink.getvalue()
