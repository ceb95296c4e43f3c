"""Charts as plain values: titles, axes and series. `charts.js` draws them with plotly in the colours of the page's theme."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

Mode = Literal["lines", "markers", "lines+markers"]

MAX_POINTS = 400
"""Points of a series that are drawn; of more, every n-th and the last."""


@dataclass(frozen=True)
class Series:
    """A line or some points.

    Attributes:
        name: in the legend.
        x, y: values; none in `y` is a gap.
        mode: `lines`, `markers` or `lines+markers`.
        colour: number of the theme's colour; -1 is the text's.
        symbol: plotly's name of the marker.
        error: half-widths of error bars, one a point.
        dash: whether the line is dashed.
        labels: text of each point when it is pointed at.
    """

    name: str
    x: Sequence[float | str]
    y: Sequence[float | None]
    mode: Mode = "lines"
    colour: int = 0
    symbol: str = "circle"
    error: Sequence[float | None] | None = None
    dash: bool = False
    labels: Sequence[str] | None = None


@dataclass(frozen=True)
class Chart:
    """A chart.

    Attributes:
        key: unique in the page; the id of its element.
        title: heading.
        x_title, y_title: of the axes.
        series: at least one.
        note: a sentence below it.
        log_y: whether the y axis is logarithmic.
        categories: whether x is text.
    """

    key: str
    title: str
    x_title: str
    y_title: str
    series: Sequence[Series]
    note: str = ""
    log_y: bool = False
    categories: bool = False

    @property
    def described(self) -> str:
        """What a screen reader says of it: the title, and first and last value of each series."""
        parts = []
        for one in self.series:
            known = [value for value in one.y if value is not None]
            if len(known) > 1:
                parts.append(f"{one.name} from {known[0]:.4g} to {known[-1]:.4g}")
            elif known:
                parts.append(f"{one.name} {known[0]:.4g}")
        return f"{self.title}: {'; '.join(parts) or 'no values'}"


def chart_data(charts: Sequence[Chart]) -> dict[str, Any]:
    """Return the charts as JSON values by key; numbers that JSON does not know become null."""
    return {chart.key: {**asdict(chart), "series": [_thinned(asdict(one)) for one in chart.series]} for chart in charts}


@dataclass(frozen=True)
class ChartGroup:
    """Charts with a heading of their own.

    Attributes:
        title: the heading.
        text: a line below it.
        charts: in order.
        facts: name and value of single figures.
    """

    title: str
    text: str
    charts: Sequence[Chart]
    facts: Sequence[tuple[str, str]] = field(default=())


def _thinned(series: dict[str, Any]) -> dict[str, Any]:
    length = len(series["x"])
    step = max(1, math.ceil(length / MAX_POINTS))
    chosen = sorted({*range(0, length, step), *([length - 1] if length else [])})
    for name in ("x", "y", "error", "labels"):
        if series[name] is not None:
            series[name] = [_finite(series[name][i]) for i in chosen]
    return series


def _finite(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else round(value, 6) if isinstance(value, float) else value
