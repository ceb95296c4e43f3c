"""Training curves: what the trainings logged in `metrics.jsonl`, as charts of loss terms, learning rate, scores and codebook."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vwl.report.html.charts import Chart, ChartGroup, Mode, Series, chart_data
from vwl.report.html.page import Section, duration
from vwl.storage.folder import Folder
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES, stages_of

_PERCENT = ("val_map", "probe_val_map")
"""Metrics that are fractions; all other scores are percent already."""
_NAMES = {
    "loss": "total",
    "val_map": "mAP of the image labels",
    "val_cam_miou": "mIoU of the maps",
    "val_cam_best_miou": "mIoU at the best threshold",
    "val_cam_precision": "precision of the maps",
    "val_cam_recall": "recall of the maps",
    "codewords_used": "used",
    "codewords_unused": "unused",
    "codebook_perplexity": "perplexity of the usage",
    "codebook_cosine": "mean cosine of the codewords",
    "images_per_second": "images per second",
    "data_wait_share": "share of time waiting for data",
}
_TITLES = {"recam": "ReCAM", "lpcam": "LPCAM", "irnet": "IRNet", "psa": "PSA"}


@dataclass(frozen=True)
class Curves:
    """Content of the section: the trainings with their charts."""

    groups: Sequence[ChartGroup]


def curves_section(run: Run) -> Section:
    """Return the section of a run; a training without metrics has no charts."""
    groups = []
    for stage in (name for name in stages_of(run.recipe) if STAGES[name].kind == "train"):
        entries = read_metrics(run.stage_folder(stage))
        if entries:
            manifest = run.manifest(stage)
            took = "" if manifest is None else f"{duration(manifest.seconds)} of working time"
            title = _TITLES.get(stage, stage.capitalize())
            groups.append(ChartGroup(title, took, _charts(stage, entries), _probe(entries)))
    return Section(
        "curves", "Training", Curves(groups), {"charts_curves": chart_data([chart for group in groups for chart in group.charts])}
    )


def read_metrics(folder: Folder) -> list[dict[str, Any]]:
    """Return the entries of a training's `metrics.jsonl`; of steps done twice, after a crash, the last. Damaged lines are left out."""
    if not folder.exists("metrics.jsonl"):
        return []
    merged: dict[int, dict[str, Any]] = {}
    for line in folder.read("metrics.jsonl").decode(errors="replace").splitlines():
        try:
            entry = json.loads(line)
            step = int(entry["step"])
        except (ValueError, KeyError, TypeError):
            continue
        numbers = {key: float(value) for key, value in entry.items() if isinstance(value, int | float) and not isinstance(value, bool)}
        merged[step] = {**merged.get(step, {}), **numbers}
    return [merged[step] for step in sorted(merged)]


def _charts(stage: str, entries: Sequence[dict[str, Any]]) -> list[Chart]:
    keys = {key for entry in entries for key in entry}
    losses = ["loss", *sorted(key for key in keys if key.startswith("loss_"))]
    scores = [key for key in _NAMES if key.startswith("val_") and key in keys]
    scores += sorted(key for key in keys if key.startswith("val_") and key not in _NAMES)
    charts = []
    if "loss" in keys:
        terms = losses if len(losses) > 2 else ["loss"]  # one term is the total
        charts.append(_chart(stage, "loss", "Loss", "loss", terms, entries, "" if len(terms) == 1 else "The total and its terms."))
    if scores:
        charts.append(_chart(stage, "scores", "Scores on held-out images", "percent", scores, entries, "Measured during the training."))
    if "codebook_perplexity" in keys:
        usage = ["codewords_used", "codewords_unused", "codebook_perplexity"]
        note = "Perplexity is the number of codewords that an even usage would have."
        charts.append(_chart(stage, "usage", "Codebook: usage", "codewords", usage, entries, note))
        note = "Mean over all pairs of codewords; 0 is a codebook of unrelated words."
        charts.append(_chart(stage, "cosine", "Codebook: similarity", "cosine", ["codebook_cosine"], entries, note))
    if "learning_rate" in keys:
        charts.append(_chart(stage, "rate", "Learning rate", "learning rate", ["learning_rate"], entries, "Of the pre-trained parameters."))
    if "images_per_second" in keys:
        charts.append(_chart(stage, "speed", "Speed", "images per second", ["images_per_second"], entries))
    return charts


def _chart(
    stage: str, key: str, title: str, y_title: str, metrics: Sequence[str], entries: Sequence[dict[str, Any]], note: str = ""
) -> Chart:
    series: list[Series] = []
    for metric in metrics:
        points = [(entry["step"], entry[metric] * (100 if metric in _PERCENT else 1)) for entry in entries if metric in entry]
        if points:
            name = _NAMES.get(metric, metric.removeprefix("loss_").replace("_", " "))
            mode: Mode = "lines+markers" if len(points) < 25 else "lines"
            series.append(Series(name, [x for x, _ in points], [y for _, y in points], mode, colour=len(series)))
    return Chart(f"{stage}-{key}", title, "step", y_title, series, note)


def _probe(entries: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return the scores of the linear probe, which stand at one step only."""
    found = {key: value for entry in entries for key, value in entry.items() if key.startswith("probe_")}
    shown = [
        f"{_NAMES[name]} {value * (100 if key in _PERCENT else 1):.1f} %"
        for key, value in found.items()
        if (name := key.removeprefix("probe_")) in _NAMES
    ]
    return [("Linear probe of the features before the training:", ", ".join(shown))] if shown else []
