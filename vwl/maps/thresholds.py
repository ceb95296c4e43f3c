"""Background thresholds: the score of every threshold in one pass, and choices of one without ground truth.

Soft maps are stored and the background's constant score t is applied late: a pixel takes its strongest class c with score v
if v > t, else background (as the argmax over [t, maps] does). Both accumulators therefore need only (c, v) per pixel, see
`vwl.maps.cam.best_class`; they add up over images and workers.
"""

from collections.abc import Iterable
from typing import Protocol, Self

import numpy as np

from vwl.maps.confusion import kept_rows, same_size, scores, truth_rows


def grid(num_steps: int = 100) -> np.ndarray:
    """Return the thresholds 0, 1 / num_steps, ..., 1 as float32."""
    return np.linspace(0, 1, num_steps + 1, dtype=np.float32)


class ThresholdHistogram:
    """Pixels counted by true class, strongest class and score: the confusion matrix at every threshold of a grid.

    Attributes:
        thresholds: (T,) float32, ascending. Scores are compared with them in float32, as `vwl.maps.cam.decide` does.
        counts: (n, n, T + 1) int64: true class, strongest class, number of thresholds below the score.
    """

    def __init__(self, num_classes: int, thresholds: np.ndarray | None = None) -> None:
        """Start empty, for `num_classes` classes (background included); the default grid is 0.00, 0.01, ..., 1.00."""
        self.thresholds = _ascending(thresholds)
        self.num_classes = num_classes
        self.counts = np.zeros((num_classes, num_classes, len(self.thresholds) + 1), np.int64)

    def add(self, truth: np.ndarray, best_class: np.ndarray, value: np.ndarray) -> None:
        """Count one image.

        Args:
            truth: (H, W) uint8 class ids, 255 ignored.
            best_class: (H, W) uint8, each pixel's strongest class.
            value: (H, W), its score.

        Raises:
            VwlError: the masks differ in size, or the truth holds an id that is no class.
        """
        same_size(truth, best_class)
        assert best_class.max(initial=0) < self.num_classes
        n, bins = self.num_classes, len(self.thresholds) + 1
        index = truth_rows(n)[truth.ravel()] * n
        index += best_class.ravel()
        index *= bins
        index += _below(self.thresholds, value)
        counts = np.bincount(index, minlength=(n + 2) * n * bins)
        self.counts += kept_rows(counts.reshape(n + 2, n, bins), truth, n)

    def merge(self, other: Self) -> None:
        """Add the counts of another part of the images."""
        if not np.array_equal(self.thresholds, other.thresholds):
            raise ValueError("histograms over different thresholds do not add up")
        self.counts += other.counts

    def confusions(self) -> np.ndarray:
        """Return the confusion matrices (T, n, n) int64 at all thresholds."""
        below = self.counts.cumsum(axis=2)
        found = below[:, :, -1:] - below[:, :, :-1]
        found[:, 0] += below[:, :, :-1].sum(axis=1)
        return np.ascontiguousarray(np.moveaxis(found, 2, 0))

    def confusion(self, i: int) -> np.ndarray:
        """Return the confusion matrix (n, n) int64 at `thresholds[i]`."""
        found = self.counts[:, :, i + 1 :].sum(axis=2)
        found[:, 0] += self.counts[:, :, : i + 1].sum(axis=(1, 2))
        return found

    def curve(self, class_ids: Iterable[int] | None = None) -> np.ndarray:
        """Return the mIoU (T,) at every threshold, over the classes that `vwl.maps.confusion.scores` takes for `class_ids`."""
        chosen = None if class_ids is None else list(class_ids)
        return np.array([scores(confusion, chosen).miou for confusion in self.confusions()])


class Criterion(Protocol):
    """What chooses a background threshold without ground truth."""

    def add(self, image_small: np.ndarray, best_class: np.ndarray, value: np.ndarray) -> None:
        """Take in one image: the photograph (h, w, 3) uint8 at the map's size, strongest class (h, w) and its score (h, w)."""

    def choose(self) -> float:
        """Return the threshold."""


class BoundaryContrast:
    """Choose the threshold whose masks have their boundaries where the photographs' colours change most.

    A pair of pixels side by side is cut at threshold t if exactly one of them is above t, or both are and their classes
    differ. The criterion is the mean colour difference over all cut pairs.

    Attributes:
        thresholds: (T,) float32, ascending.
        contrast: (T,) sum over cut pairs of the mean absolute difference of R, G and B, grey levels of 255.
        pairs: (T,) number of cut pairs.
    """

    def __init__(self, thresholds: np.ndarray | None = None) -> None:
        """Start empty; the default grid is 0.00, 0.01, ..., 1.00."""
        self.thresholds = _ascending(thresholds)
        self.contrast = np.zeros(len(self.thresholds))
        self.pairs = np.zeros(len(self.thresholds), np.int64)

    def add(self, image_small: np.ndarray, best_class: np.ndarray, value: np.ndarray) -> None:
        """Take in one image: the photograph (h, w, 3) uint8 at the map's size, strongest class (h, w) and its score (h, w)."""
        colours = image_small.astype(np.int16)
        below = _below(self.thresholds, value).reshape(value.shape)
        for here, there in (((slice(None), slice(1, None)), (slice(None), slice(-1))), ((slice(1, None),), (slice(-1),))):
            difference = np.abs(colours[here] - colours[there]).sum(axis=2).ravel() / 3
            low, high = np.minimum(below[here], below[there]).ravel(), np.maximum(below[here], below[there]).ravel()
            low[(best_class[here] != best_class[there]).ravel()] = 0
            # A pair is cut at the thresholds low..high-1: one step up and one down, summed over all pairs at once.
            size = len(self.thresholds) + 1
            self.contrast += (np.bincount(low, difference, size) - np.bincount(high, difference, size)).cumsum()[:-1]
            self.pairs += (np.bincount(low, minlength=size) - np.bincount(high, minlength=size)).cumsum()[:-1]

    def merge(self, other: Self) -> None:
        """Add another part of the images."""
        self.contrast += other.contrast
        self.pairs += other.pairs

    def curve(self, smoothing: int = 2) -> np.ndarray:
        """Return the mean contrast (T,) of the pairs cut at thresholds up to `smoothing` grid steps away; 0 where none is."""
        window = np.ones(2 * smoothing + 1)
        contrast, pairs = (np.convolve(sums, window)[smoothing:][: len(sums)] for sums in (self.contrast, self.pairs.astype(float)))
        return np.divide(contrast, pairs, out=np.zeros(len(contrast)), where=pairs > 0)

    def choose(self) -> float:
        """Return the threshold of the largest smoothed mean contrast.

        Thresholds with less than a tenth of the most cut pairs are passed over: a few specks decide nothing.
        """
        return float(self.thresholds[np.argmax(np.where(self.pairs * 10 >= self.pairs.max(), self.curve(), -1))])


class Otsu:
    """Choose the threshold that separates all pixels' scores best: largest variance between those above and those below (Otsu 1979).

    Attributes:
        thresholds: (T,) float32, ascending.
        counts, sums: (T + 1,) number and sum of the scores, by the number of thresholds below them.
    """

    def __init__(self, thresholds: np.ndarray | None = None) -> None:
        """Start empty; the default grid is 0.00, 0.01, ..., 1.00."""
        self.thresholds = _ascending(thresholds)
        self.counts = np.zeros(len(self.thresholds) + 1, np.int64)
        self.sums = np.zeros(len(self.thresholds) + 1)

    def add(self, image_small: np.ndarray, best_class: np.ndarray, value: np.ndarray) -> None:
        """Take in one image's scores `value` (h, w); photograph and classes are not looked at."""
        below = _below(self.thresholds, value)
        self.counts += np.bincount(below, minlength=len(self.counts))
        self.sums += np.bincount(below, value.ravel(), len(self.counts))

    def merge(self, other: Self) -> None:
        """Add another part of the images."""
        self.counts += other.counts
        self.sums += other.sums

    def curve(self) -> np.ndarray:
        """Return the variance between the two sides (T,), in units of the score squared, times the squared number of pixels."""
        low, low_sum = self.counts.cumsum()[:-1].astype(float), self.sums.cumsum()[:-1]
        high, high_sum = self.counts.sum() - low, self.sums.sum() - low_sum
        apart = high_sum * low - low_sum * high
        return np.divide(apart**2, low * high, out=np.zeros(len(low)), where=low * high > 0)

    def choose(self) -> float:
        """Return the threshold; the middle one where a gap in the scores leaves several equally good."""
        curve = self.curve()
        equally_good = self.thresholds[curve >= curve.max() * (1 - 1e-9)]
        return float(equally_good[len(equally_good) // 2])


def _ascending(thresholds: np.ndarray | None) -> np.ndarray:
    if thresholds is None:
        return grid()
    values = np.asarray(thresholds, np.float32)
    if values.ndim != 1 or len(values) == 0 or (np.diff(values) <= 0).any():
        raise ValueError("thresholds must ascend")
    return values


def _below(thresholds: np.ndarray, value: np.ndarray) -> np.ndarray:
    """Number of thresholds below each score (flat): the score beats `thresholds[i]` exactly if this number exceeds i."""
    return np.searchsorted(thresholds, value.astype(np.float32).ravel(), side="left")
