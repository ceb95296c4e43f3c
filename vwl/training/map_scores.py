"""Scores of class activation maps on held-out images during a training, added up over workers."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.nn import functional

from vwl.constants import map_size
from vwl.maps.cam import best_class, normalise, upsample
from vwl.maps.confusion import same_size, scores
from vwl.maps.thresholds import Otsu, ThresholdHistogram
from vwl.training.distributed import all_reduce, device


class MapScores:
    """The confusion matrix of one-scale maps at every threshold, and Otsu's threshold of their scores."""

    def __init__(self, num_classes: int) -> None:
        """Start empty, for `num_classes` classes with the background."""
        self._histogram, self._otsu = ThresholdHistogram(num_classes), Otsu()

    def add(self, maps: torch.Tensor, class_ids: Sequence[int], truth: np.ndarray) -> None:
        """Count an image: its maps (K, h, w) at any size, their class ids, and its mask (H, W).

        Raises:
            VwlError: the mask has an id that is not a class.
        """
        height, width = truth.shape
        grid = map_size(height, width)
        values = functional.interpolate(maps[None], grid, mode="bilinear", align_corners=False)[0] if len(maps) else torch.zeros(0, *grid)
        best, value = best_class(upsample(normalise(values.numpy()), height, width), class_ids)
        same_size(truth, best)
        self._histogram.add(truth, best, value)
        if len(class_ids):  # the zeros of an image without objects say nothing about where objects begin
            self._otsu.add(value)

    def over_workers(self, class_ids: Sequence[int] | None) -> dict[str, float]:
        """Return `miou`, `precision` and `recall` at Otsu's threshold and `best_miou`, in percent; nothing if no worker counted an image.

        Args:
            class_ids: object classes of the means; all, if none.
        """
        counts = all_reduce(torch.from_numpy(self._histogram.counts).to(device())).cpu().numpy()
        otsu = torch.from_numpy(np.stack([self._otsu.counts.astype(np.float64), self._otsu.sums])).to(device())
        otsu_counts, otsu_sums = all_reduce(otsu).cpu().numpy()
        if not counts.any():
            return {}
        histogram, chooser = ThresholdHistogram(len(counts)), Otsu()
        histogram.counts, chooser.counts, chooser.sums = counts, otsu_counts.astype(np.int64), otsu_sums
        at = int(np.searchsorted(histogram.thresholds, np.float32(chooser.choose())))
        found = scores(histogram.confusion(at), class_ids)
        shares = {
            "miou": found.miou,
            "precision": found.object_precision,
            "recall": found.object_recall,
            "best_miou": float(np.nanmax(histogram.curve(class_ids))),
        }
        return {name: round(100 * share, 4) for name, share in shares.items()}
