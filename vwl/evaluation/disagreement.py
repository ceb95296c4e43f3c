"""How much the masks of one image differ between stages, in numbers and in words. Pure functions of masks and score maps; no ground truth.

Where CAM + CRF, the walk and the segmentation model agree, a mask is usually right; `vwl review` shows people the images where they do not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from vwl.maps.confusion import confusion_matrix

STAGE_NAMES = {"crf": "CAM + CRF", "walk": "the walk", "segment": "the segmentation model"}
"""How reasons name the stages whose masks are compared, in the order of the method."""
_MIN_SHARE = 0.01
"""Share of the image from which on a class that is no label of it counts."""


@dataclass(frozen=True)
class Difference:
    """How two masks of one image differ.

    Attributes:
        stages: the two, in the order of the method.
        mean_iou: mean IoU of the masks, one taken as the truth of the other, over the background, the labels and other classes of 1 % or
            more; 0..1.
        class_id: the object class with the most pixels that only one of the masks gives it.
        shares: of the image's pixels that each mask gives that class, 0..1.
        iou: of that class, 0..1.
    """

    stages: tuple[str, str]
    mean_iou: float
    class_id: int
    shares: tuple[float, float]
    iou: float


def differences(masks: Mapping[str, np.ndarray], labels: Sequence[int], num_classes: int) -> list[Difference]:
    """Return the difference of each pair of stages.

    Args:
        masks: by stage, a key of `STAGE_NAMES`: (H, W) uint8 class ids.
        labels: class ids of the image.
        num_classes: with the background.

    Raises:
        VwlError: two masks differ in size.
    """
    stages = [stage for stage in STAGE_NAMES if stage in masks]
    return [_difference((a, b), masks[a], masks[b], labels, num_classes) for a, b in combinations(stages, 2)]


def _difference(stages: tuple[str, str], one: np.ndarray, other: np.ndarray, labels: Sequence[int], num_classes: int) -> Difference:
    counts = confusion_matrix(one, other, num_classes)
    both, first, second = np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)
    union = first + second - both
    iou = np.divide(both, union, out=np.ones(num_classes), where=union > 0)
    counted = np.maximum(first, second) >= max(1.0, _MIN_SHARE * one.size)
    counted[[0, *labels]] = union[[0, *labels]] > 0  # a label that neither mask shows says nothing about their difference
    objects = union - both
    objects[0] = -1
    class_id = int(objects.argmax())
    shares = float(first[class_id] / one.size), float(second[class_id] / one.size)
    return Difference(stages, float(iou[counted].mean()) if counted.any() else 1.0, class_id, shares, float(iou[class_id]))


def disagreement(found: Sequence[Difference]) -> float:
    """Return 1 minus the mean of the pairs' mean IoU: 0 for equal masks, 1 for masks with no pixel in common."""
    return 1 - float(np.mean([difference.mean_iou for difference in found]))


def entropy(values: np.ndarray, classes: Sequence[int], background: float) -> float:
    """Return the mean entropy of score maps, 0 (every pixel is decided) to 1 (all classes score the same everywhere).

    Args:
        values: (K, h, w) scores, 0 or more.
        classes: the class of each map; without 0 among them the background scores `background` everywhere.
        background: the threshold.
    """
    scores = np.maximum(values.astype(np.float32), 0)
    if 0 not in classes:
        scores = np.concatenate([np.full((1, *scores.shape[1:]), background, np.float32), scores])
    if len(scores) < 2:
        return 0.0
    shares = scores / np.maximum(scores.sum(axis=0), 1e-12)
    return float(-(shares * np.log(np.maximum(shares, 1e-12))).sum(axis=0).mean() / np.log(len(scores)))


def image_miou(truth: np.ndarray, mask: np.ndarray, num_classes: int) -> float:
    """Return the mean IoU of one image's mask over the classes that its ground truth holds (255 ignored), 0..1; nan if it holds none.

    Raises:
        VwlError: the masks differ in size, or the ground truth holds an id that is no class.
    """
    counts = confusion_matrix(truth, mask, num_classes)
    true = counts.sum(axis=1)
    union = true + counts.sum(axis=0) - np.diag(counts)
    present = true > 0
    return float((np.diag(counts)[present] / union[present]).mean()) if present.any() else float("nan")


def reason(found: Sequence[Difference], labels: Sequence[int], classes: Sequence[str]) -> str:
    """Return in words where the two stages that differ most differ: which class, and how much of the image each gives it.

    Args:
        found: of `differences`, at least one.
        labels: class ids of the image.
        classes: names by id.
    """
    worst = min(found, key=lambda difference: difference.mean_iou)
    one, other = (STAGE_NAMES[stage] for stage in worst.stages)
    name, (first, second) = classes[worst.class_id], worst.shares
    if first == second == 0 or worst.iou == 1:
        return "all stages agree"
    if max(first, second) >= 2 * min(first, second) or worst.iou >= 0.8:
        text = f"{one} calls {_percent(first)} of the image {name}, {other} {_percent(second)}"
    else:
        sizes = f"{_percent(first)} and {_percent(second)} of the image"
        text = f"{one} and {other} see {name} in different places ({sizes}, IoU {_percent(worst.iou)})"
    return text if worst.class_id in labels else f"{text}; {name} is not a label of the image"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if 0.0005 <= share < 0.01 else f"{100 * share:.0f} %"
