"""Scores by class: IoU, precision and recall of each class at each scored stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vwl.report.html.page import Section
from vwl.report.html.sections.stored import StoredScore
from vwl.report.html.sections.summary import STAGE_NAMES

METRICS = {"iou": "IoU", "precision": "Precision", "recall": "Recall"}


@dataclass(frozen=True)
class ClassLine:
    """A class: its number of images in the split, and its value at each stage, percent or none."""

    name: str
    images: int
    values: Sequence[float | None]


@dataclass(frozen=True)
class ClassTable:
    """The table of a metric on a split; `lines` in the order of the classes, the mean last."""

    metric: str
    split: str
    stages: Sequence[str]
    lines: Sequence[ClassLine]
    mean: Sequence[float | None]


@dataclass(frozen=True)
class Classes:
    """Content of the section."""

    tables: Sequence[ClassTable]
    metrics: Mapping[str, str]
    splits: Sequence[str]


def classes_section(classes: Sequence[str], scores: Sequence[StoredScore], images: Mapping[str, Sequence[int]]) -> Section:
    """Return the section.

    Args:
        classes: names by id.
        scores: of the run.
        images: number of images by class id, for each split.
    """
    splits = [split for split in ("val", "train") if any(score.split == split for score in scores)]
    tables = []
    for metric in METRICS:
        for split in splits:
            own = [score for score in scores if score.split == split]
            known = [name for name in classes if any(name in getattr(score, metric) for score in own)]
            lines = [
                ClassLine(name, images[split][classes.index(name)], [getattr(score, metric).get(name) for score in own]) for name in known
            ]
            mean = [_mean([line.values[column] for line in lines]) for column in range(len(own))]
            tables.append(ClassTable(metric, split, [STAGE_NAMES[score.stage] for score in own], lines, mean))
    return Section("classes", "Classes", Classes(tables, METRICS, splits))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
