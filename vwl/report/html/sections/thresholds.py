"""Threshold curves: mIoU at every background threshold, with the threshold in use and the one that ground truth would choose."""

from collections.abc import Sequence
from dataclasses import dataclass

from vwl.report.html.charts import Chart, Series, chart_data
from vwl.report.html.page import Section
from vwl.report.html.sections.stored import StoredScore
from vwl.report.html.sections.summary import STAGE_NAMES


@dataclass(frozen=True)
class Thresholds:
    """Content of the section: a chart for each stage with score maps."""

    charts: Sequence[Chart]


def thresholds_section(scores: Sequence[StoredScore]) -> Section:
    """Return the section; without curves it says that there are none."""
    charts = []
    for stage in dict.fromkeys(score.stage for score in scores if score.curve):
        series, lines = [], []
        for colour, score in enumerate(score for score in scores if score.stage == stage and score.curve):
            assert score.curve is not None
            series.append(Series(score.split, [t for t, _ in score.curve], [m for _, m in score.curve], colour=colour))
            if score.threshold is not None:
                series.append(Series(f"{score.split}: in use", [score.threshold], [score.miou], "markers", colour))
            if score.best_threshold is not None:
                name = f"{score.split}: best, by ground truth"
                series.append(Series(name, [score.best_threshold], [score.best_miou], "markers", colour, "diamond-open"))
                lines.append(f"{score.split}: {score.miou:.1f}, best {score.best_miou or 0:.1f}")
        chosen = next((score.chosen for score in scores if score.stage == stage), "")
        note = f"Chosen: {chosen}. mIoU in use and at best: {'; '.join(lines)}."
        charts.append(Chart(f"threshold-{stage}", STAGE_NAMES[stage], "background threshold", "mIoU, percent", series, note))
    return Section("thresholds", "Thresholds", Thresholds(charts), {"charts_thresholds": chart_data(charts)})
