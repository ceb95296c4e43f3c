"""Scores by class: IoU, precision and recall of each class at each scored stage."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vwl.report.html.page import Section
from vwl.report.html.sections.stored import StoredScore
from vwl.report.html.sections.summary import STAGE_NAMES

METRICS = {"iou": "IoU", "precision": "Precision", "recall": "Recall"}


@dataclass(frozen=True)
class ClassLine:
    """A class: its number of images in the split, its value at each stage, percent or none, and whether it is in the mean."""

    name: str
    images: int
    values: Sequence[float | None]
    is_scored: bool


@dataclass(frozen=True)
class ClassTable:
    """The table of a metric on a split: a line for each class, and the stages' means."""

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
    all_scored: bool


def classes_section(
    classes: Sequence[str], scores: Sequence[StoredScore], images: Mapping[str, Sequence[int]], scored: Sequence[str] | None = None
) -> Section:
    """Return the section.

    Args:
        classes: names by id.
        scores: of the run.
        images: number of images by class id, for each split.
        scored: object classes that are in the means; none: all.
    """
    splits = [split for split in ("val", "train") if any(score.split == split for score in scores)]
    tables = []
    for metric in METRICS:
        for split in splits:
            own = [score for score in scores if score.split == split]
            known = [name for name in classes if any(name in getattr(score, metric) for score in own)]
            lines = [
                ClassLine(
                    name,
                    images[split][classes.index(name)],
                    [getattr(score, metric).get(name) for score in own],
                    scored is None or name in {*scored, classes[0]},
                )
                for name in known
            ]
            mean = [score.means[metric] for score in own]
            tables.append(ClassTable(metric, split, [STAGE_NAMES[score.stage] for score in own], lines, mean))
    return Section("classes", "Classes", Classes(tables, METRICS, splits, scored is None))
