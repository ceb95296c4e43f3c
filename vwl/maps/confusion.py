"""Confusion matrices and the scores of a segmentation, the last step of every stage (paper section 4.1: mIoU).

Matrices are counts of pixels, so those of images and workers simply add up; `scores` turns the total into figures. Ground
truth of 255 counts nowhere, and the mean is taken over the classes that the ground truth holds.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from vwl.constants import IGNORE
from vwl.errors import VwlError


@dataclass(frozen=True)
class Scores:
    """Scores of a confusion matrix, fractions of 1; a class's score is nan where it is undefined.

    Attributes:
        miou: mean of `iou` over the scored classes that occur in the ground truth; nan if there are none.
        iou: (n,) intersection over union; nan for a class without ground truth.
        precision: (n,) share of a class's predicted pixels that are right; nan for a class never predicted.
        recall: (n,) share of a class's true pixels that are found; nan for a class without ground truth.
        pixel_accuracy: share of all pixels that are right.
        mean_accuracy: mean of `recall` over the classes of `miou`.
        object_precision, object_recall: means of `precision` and `recall` over the object classes of `miou`; a class that is never
            predicted is not in the mean of the precision. Low precision is over-activation, low recall under-activation.
    """

    miou: float
    iou: np.ndarray
    precision: np.ndarray
    recall: np.ndarray
    pixel_accuracy: float
    mean_accuracy: float
    object_precision: float
    object_recall: float

    @property
    def over_activation(self) -> np.ndarray:
        """(n,) share of a class's predicted pixels that are wrong, 1 - precision."""
        return 1 - self.precision

    @property
    def under_activation(self) -> np.ndarray:
        """(n,) share of a class's true pixels that are missed, 1 - recall."""
        return 1 - self.recall


def confusion_matrix(truth: np.ndarray, prediction: np.ndarray, num_classes: int) -> np.ndarray:
    """Count pixels by true and predicted class.

    Args:
        truth: (H, W) uint8 class ids; 255 is ignored.
        prediction: (H, W) uint8 class ids; an id that is no class (such as 255) counts as background, as in IRNet's evaluation.
        num_classes: n, background included.

    Returns:
        (n, n) int64, rows are the truth, columns the prediction.

    Raises:
        VwlError: the truth holds an id that is neither a class nor 255, or the two masks differ in size.
    """
    same_size(truth, prediction)
    ids = np.arange(256)
    columns = np.where(ids < num_classes, ids, 0)
    counts = np.bincount(
        row_table(num_classes)[truth.ravel()] * num_classes + columns[prediction.ravel()], minlength=(num_classes + 2) * num_classes
    )
    return without_ignored(counts.reshape(num_classes + 2, num_classes), truth, num_classes)


def row_table(num_classes: int) -> np.ndarray:
    """Return a table (256,) of the row in which a true id is counted: its own, n if ignored, n + 1 if it is not a class."""
    ids = np.arange(256)
    return np.where(ids < num_classes, ids, np.where(ids == IGNORE, num_classes, num_classes + 1))


def without_ignored(counts: np.ndarray, truth: np.ndarray, num_classes: int) -> np.ndarray:
    """Return `counts` without its last two rows (see `row_table`): ignored pixels and ids that are not classes.

    Raises:
        VwlError: there are pixels of no class.
    """
    if counts[num_classes + 1].any():
        wrong = min(int(i) for i in np.unique(truth) if num_classes <= i < IGNORE)
        raise VwlError(f"the ground truth holds class id {wrong}, but the classes are 0 to {num_classes - 1}: check masks and class names")
    return counts[:num_classes]


def same_size(truth: np.ndarray, prediction: np.ndarray) -> None:
    """Check that two masks cover the same pixels.

    Raises:
        VwlError: they differ in size.
    """
    if truth.shape != prediction.shape:
        raise VwlError(f"ground truth has {truth.shape} pixels, the prediction {prediction.shape}: were both made from one image?")


def scores(confusion: np.ndarray, class_ids: Iterable[int] | None = None) -> Scores:
    """Compute the scores of a confusion matrix (n, n).

    Args:
        confusion: rows are the truth, columns the prediction.
        class_ids: object classes whose mean is wanted (the background is always in); None: all. Only classes that the
            ground truth holds enter the mean.
    """
    table = confusion.astype(np.float64)
    right, true, predicted = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    present = true > 0
    iou = _ratio(right, np.where(present, true + predicted - right, 0))
    recall = _ratio(right, true)
    wanted = present.copy()
    if class_ids is not None:
        chosen = np.zeros(len(table), bool)
        chosen[[0, *class_ids]] = True
        wanted &= chosen
    precision = _ratio(right, predicted)
    objects = wanted.copy()
    objects[0] = False
    return Scores(
        miou=_mean(iou[wanted]),
        iou=iou,
        precision=precision,
        recall=recall,
        pixel_accuracy=float(right.sum() / true.sum()) if present.any() else float("nan"),
        mean_accuracy=_mean(recall[wanted]),
        object_precision=_mean(precision[objects & (predicted > 0)]),
        object_recall=_mean(recall[objects]),
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")
