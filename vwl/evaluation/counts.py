"""What is counted in score maps and masks: scores for Otsu's thresholds, and pixels by true and predicted class."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from vwl.data.index import Index, Row
from vwl.errors import VwlError
from vwl.evaluation.sums import Count
from vwl.maps.cam import best_class, upsample
from vwl.maps.confusion import confusion_matrix
from vwl.maps.thresholds import Otsu, ThresholdHistogram
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, read_result
from vwl.storage.score_maps import MapReader


class OtsuSums:
    """Scores of maps, for Otsu's thresholds.

    Attributes:
        strongest: the strongest score of each cell.
        by_class: all scores of each class's maps, by class id.
        num_images: number of images that have a map of a class, by class id.
    """

    def __init__(self) -> None:
        self.strongest, self.by_class, self.num_images = Otsu(), dict[int, Otsu](), dict[int, int]()

    def merge(self, other: Self) -> None:
        """Add the scores of other images."""
        self.strongest.merge(other.strongest)
        for class_id, own in other.by_class.items():
            self.by_class.setdefault(class_id, Otsu()).merge(own)
            self.num_images[class_id] = self.num_images.get(class_id, 0) + other.num_images[class_id]


class OtsuCount(Count[OtsuSums]):
    """Counts the scores of maps at their own size; float16 sums are exact up to 45,000 full-size maps of VOC in one bin."""

    def __init__(self, maps: MapReader, by_class: bool) -> None:
        """Count in `maps`; those of each class by itself only if `by_class`."""
        self._maps, self._by_class = maps, by_class

    @property
    def folder(self) -> Folder:
        """The folder of the maps."""
        return self._maps.folder

    def empty(self) -> OtsuSums:
        """Return the sum over no image."""
        return OtsuSums()

    def add(self, total: OtsuSums, row: Row) -> None:
        """Add an image's scores."""
        found = self._maps.read(row.image_id)
        values = found.values.astype(np.float32)
        total.strongest.add(best_class(values, found.classes)[1])
        if self._by_class:
            for class_id, of_class in zip(found.classes, values, strict=True):
                total.by_class.setdefault(class_id, Otsu()).add(of_class)
                total.num_images[class_id] = total.num_images.get(class_id, 0) + 1


class MapsCount(Count[ThresholdHistogram]):
    """Counts pixels by true class, strongest class and score of the enlarged maps."""

    def __init__(self, index: Index, maps: MapReader, thresholds: np.ndarray) -> None:
        """Compare `maps` with the ground truth of `index` at ascending `thresholds`, float32."""
        self._truth, self._maps, self._thresholds = _Truth(index), maps, thresholds

    @property
    def folder(self) -> Folder:
        """The folder of the maps."""
        return self._maps.folder

    def empty(self) -> ThresholdHistogram:
        """Return the sum over no image."""
        return ThresholdHistogram(self._truth.num_classes, self._thresholds)

    def add(self, total: ThresholdHistogram, row: Row) -> None:
        """Add an image's pixels."""
        found = self._maps.read(row.image_id)
        best, value = best_class(upsample(found.values, found.height, found.width), found.classes)
        total.add(self._truth.of(row, best), best, value)


@dataclass
class Confusion:
    """A confusion matrix (n, n) int64, rows truth, columns prediction."""

    counts: np.ndarray

    def merge(self, other: Self) -> None:
        """Add the pixels of other images."""
        self.counts += other.counts


class MasksCount(Count[Confusion]):
    """Counts pixels of masks by true and predicted class."""

    def __init__(self, index: Index, masks: Folder) -> None:
        """Compare the PNGs in a folder with the ground truth of `index`."""
        self._truth, self._masks = _Truth(index), masks

    @property
    def folder(self) -> Folder:
        """The folder of the masks."""
        return self._masks

    def empty(self) -> Confusion:
        """Return the sum over no image."""
        return Confusion(np.zeros((self._truth.num_classes,) * 2, np.int64))

    def add(self, total: Confusion, row: Row) -> None:
        """Add an image's pixels."""
        mask = decode_mask(read_result(self._masks, row.image_id), f"{self._masks}/{row.image_id}.png")
        total.counts += confusion_matrix(self._truth.of(row, mask), mask, self._truth.num_classes)


class _Truth:
    """The ground truth of a data set, without its rows, which travel with the parts."""

    def __init__(self, index: Index) -> None:
        self._index = index.without_rows()
        self.num_classes = len(index.classes)

    def of(self, row: Row, prediction: np.ndarray) -> np.ndarray:
        """Return the mask of a row.

        Raises:
            VwlError: it cannot be read, or has another size than the prediction.
        """
        truth = self._index.read_mask(row)
        if truth.shape != prediction.shape:
            sizes = f"{truth.shape[1]} x {truth.shape[0]}, its image {prediction.shape[1]} x {prediction.shape[0]}"
            raise VwlError(f"the mask of image {row.image_id} ({row.mask}) is {sizes}; vwl data check lists all such images")
        return truth
