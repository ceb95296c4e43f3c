"""Scores of a stage against ground truth, and the choice of background thresholds without it.

Score maps are scored at all thresholds in one pass. The threshold in use is the recipe's constant or Otsu's choice from the histogram of
the maps. The best one, chosen with ground truth, is reported beside it and labelled so.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vwl.config.recipe import Threshold
from vwl.data.index import Index, Row
from vwl.evaluation.counts import MapsCount, MasksCount, OtsuCount
from vwl.evaluation.sums import OnImages, SumImages, no_progress, sum_in_threads
from vwl.maps.confusion import Scores, scores
from vwl.maps.thresholds import grid
from vwl.storage.folder import Folder
from vwl.storage.score_maps import MapReader

MIN_IMAGES_PER_CLASS = 10
"""A class with fewer images gets no threshold of its own."""
_MIN_THRESHOLD = 0.01
"""Smallest threshold of a class, since maps are divided by it."""


@dataclass(frozen=True)
class Score:
    """A stage's score on a split.

    Attributes:
        stage, split: what was scored.
        images: number scored.
        scores: at the threshold used.
        confusion: (n, n) counts, rows truth, columns prediction.
        threshold: background score, none where masks were given.
        chosen: how the threshold was chosen.
        best_miou, best_threshold: with the threshold chosen by ground truth; none for masks.
        curve: (T, 2) threshold and mIoU; none for masks.
    """

    stage: str
    split: str
    images: int
    scores: Scores
    confusion: np.ndarray
    threshold: float | None
    chosen: str
    best_miou: float | None = None
    best_threshold: float | None = None
    curve: np.ndarray | None = None

    def as_dict(self, classes: Sequence[str]) -> dict[str, Any]:
        """Return all fields as JSON values; mIoU and other fractions in percent."""

        def per_class(values: np.ndarray) -> dict[str, float]:
            return {name: percent(v) for name, v in zip(classes, values, strict=True) if not np.isnan(v)}

        s = self.scores
        return {
            "stage": self.stage,
            "split": self.split,
            "images": self.images,
            "miou": percent(s.miou),
            "object_precision": percent_or_none(s.object_precision),
            "object_recall": percent_or_none(s.object_recall),
            "threshold": self.threshold,
            "threshold_chosen": self.chosen,
            "best_miou_with_ground_truth": None if self.best_miou is None else percent(self.best_miou),
            "best_threshold_with_ground_truth": self.best_threshold,
            "pixel_accuracy": percent(s.pixel_accuracy),
            "mean_accuracy": percent(s.mean_accuracy),
            "iou": per_class(s.iou),
            "precision": per_class(s.precision),
            "recall": per_class(s.recall),
            "over_activation": per_class(s.over_activation),
            "under_activation": per_class(s.under_activation),
            "confusion": self.confusion.tolist(),
            "curve": None if self.curve is None else [[round(float(t), 4), percent(m)] for t, m in self.curve],
        }


def percent(fraction: float) -> float:
    """Return a fraction in percent with two decimals."""
    return round(100 * float(fraction), 2)


def percent_or_none(fraction: float) -> float | None:
    """Return a fraction in percent with two decimals; none for nan, which JSON has no word for."""
    return None if np.isnan(fraction) else percent(fraction)


@dataclass(frozen=True)
class Thresholds:
    """Background thresholds of score maps.

    Attributes:
        threshold: for all classes.
        chosen: how it was chosen.
        by_class: by class id, where each class has its own.
    """

    threshold: float
    chosen: str
    by_class: Mapping[int, float] = field(default_factory=dict)


def choose_thresholds(
    setting: Threshold, maps: MapReader, rows: Sequence[Row], sum_images: SumImages = sum_in_threads, on_images: OnImages = no_progress
) -> Thresholds:
    """Return the background thresholds: the recipe's constant, or Otsu's threshold of the maps of `rows`.

    For the setting `auto-by-class` each class also has Otsu's threshold of its own maps, if at least `MIN_IMAGES_PER_CLASS` rows show it:
    the maps of a frequent class are bright over large areas, those of a rare class only on its most discriminative part, so that one
    threshold does not suit both. On 437 VOC images this gave 1 mIoU more than one threshold before the walk, and 2 to 3 after it.
    """
    if not isinstance(setting, str):
        return Thresholds(float(setting), "recipe")
    found = sum_images(OtsuCount(maps, by_class=setting == "auto-by-class"), rows, on_images)
    enough = [class_id for class_id in sorted(found.by_class) if class_id and found.num_images[class_id] >= MIN_IMAGES_PER_CLASS]
    return Thresholds(
        round(found.strongest.choose(), 4),
        f"{setting} (Otsu, no ground truth)",
        {class_id: max(round(found.by_class[class_id].choose(), 4), _MIN_THRESHOLD) for class_id in enough},
    )


def score_maps(
    index: Index,
    rows: Sequence[Row],
    maps: MapReader,
    stage: str,
    split: str,
    threshold: float,
    chosen: str,
    class_ids: list[int] | None,
    sum_images: SumImages = sum_in_threads,
    on_images: OnImages = no_progress,
) -> Score:
    """Score the maps of `rows` at all thresholds in one pass over the pixels.

    Raises:
        VwlError: a map or mask is missing, or a mask has another size than its image.
    """
    steps = np.unique(np.append(grid(), np.float32(threshold)))
    whole = sum_images(MapsCount(index, maps, steps), rows, on_images)
    curve = whole.curve(class_ids)
    used, best = int(np.flatnonzero(steps == np.float32(threshold))[0]), int(np.argmax(curve))
    confusion = whole.confusion(used)
    return Score(
        stage,
        split,
        len(rows),
        scores(confusion, class_ids),
        confusion,
        threshold,
        chosen,
        float(curve[best]),
        round(float(steps[best]), 4),
        np.stack([steps, curve], axis=1),
    )


def score_masks(
    index: Index,
    rows: Sequence[Row],
    masks: Folder,
    stage: str,
    split: str,
    class_ids: list[int] | None,
    threshold: float | None = None,
    chosen: str = "",
    sum_images: SumImages = sum_in_threads,
    on_images: OnImages = no_progress,
) -> Score:
    """Score the mask PNGs of `rows`; `threshold` and `chosen`, the background score they were made with, are only reported.

    Raises:
        VwlError: a mask is missing, or has another size than the ground truth.
    """
    confusion = sum_images(MasksCount(index, masks), rows, on_images).counts
    return Score(stage, split, len(rows), scores(confusion, class_ids), confusion, threshold, chosen)
