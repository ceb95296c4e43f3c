"""Grids of images with aligned columns, titles and a legend of classes, drawn by matplotlib as PNG or SVG."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from PIL import Image

from vwl.report.sheets import Colour

KINDS = ("png", "svg")
_WIDTH, _GAP, _TITLE, _LEGEND, _LEGEND_MARGIN = 1.75, 0.05, 0.28, 0.17, 0.16
"""Width of a column, gap between cells, height of titles, of a line of the legend and of the space around it, inches."""
_CHARACTER = 0.058
"""Width of a character of a row's label, inches."""
_PIXELS = 360
"""Long side that images are scaled down to."""


@dataclass(frozen=True)
class GridRow:
    """A row: text at its left, and an image (H, W, 3) uint8 for each column, none where there is none; all of the row have one shape."""

    label: str
    images: Sequence[np.ndarray | None]


@dataclass(frozen=True)
class Grid:
    """A grid: titles of the columns, rows, and the classes whose colours it shows."""

    columns: Sequence[str]
    rows: Sequence[GridRow]
    legend: Sequence[Colour] = field(default=())


def draw_grid(grid: Grid) -> Figure:
    """Return the figure of a grid: every column has one width, every row the height of its images at that width."""
    heights = [_WIDTH * _ratio(row) for row in grid.rows]
    num_columns = len(grid.columns)
    per_line = max(1, int(num_columns * _WIDTH / 1.15))
    legend_height = _LEGEND * -(-len(grid.legend) // per_line) + _LEGEND_MARGIN if grid.legend else 0.0
    margin = 0.2 if any(row.label for row in grid.rows) else _GAP
    width = margin + num_columns * (_WIDTH + _GAP)
    height = _TITLE + sum(heights) + _GAP * len(heights) + legend_height
    figure = Figure(figsize=(width, height))
    top = height - _TITLE
    for row, own in zip(grid.rows, heights, strict=True):
        for number, image in enumerate(row.images):
            left = margin + number * (_WIDTH + _GAP)
            axes = figure.add_axes((left / width, (top - own) / height, _WIDTH / width, own / height))
            axes.set_axis_off()
            if image is not None:
                axes.imshow(_small(image), aspect="auto", interpolation="antialiased")
        if row.label:
            label = _end(row.label, int(own / _CHARACTER))
            figure.text(0.1 / width, (top - own / 2) / height, label, rotation=90, ha="center", va="center", fontsize=6.5, parse_math=False)
        top -= own + _GAP
    for number, title in enumerate(grid.columns):
        middle = margin + number * (_WIDTH + _GAP) + _WIDTH / 2
        figure.text(middle / width, 1 - _TITLE / 2 / height, title, ha="center", va="center", fontsize=9, parse_math=False)
    if grid.legend:
        patches = [Patch(facecolor=np.array(colour.rgb) / 255, edgecolor="grey", label=colour.name) for colour in grid.legend]
        found = figure.legend(handles=patches, loc="lower center", ncols=min(per_line, len(patches)), frameon=False, fontsize=8)
        for text in found.get_texts():
            text.set_parse_math(False)
    return figure


def render(figure: Figure, kind: str) -> bytes:
    """Return a figure as the bytes of a `png` or `svg` file; equal figures give equal bytes."""
    matplotlib.rcParams["svg.hashsalt"] = "vwl"
    sink = io.BytesIO()
    figure.savefig(sink, format=kind, dpi=200, facecolor="white", metadata={"Date": None} if kind == "svg" else {"Software": None})
    return sink.getvalue()


def _ratio(row: GridRow) -> float:
    """Return height divided by width of a row's images; 1 if it has none."""
    return next((image.shape[0] / image.shape[1] for image in row.images if image is not None), 1.0)


def _end(label: str, length: int) -> str:
    """Return a label, or as much of its end as fits: ids of a data set differ there."""
    return label if len(label) <= length else "…" + label[len(label) - max(length - 1, 0) :]


def _small(image: np.ndarray) -> np.ndarray:
    scale = min(1.0, _PIXELS / max(image.shape[:2]))
    size = max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
