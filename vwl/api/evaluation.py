"""The scores of a run: of all stages, or of one with every class, its threshold curve and its confusion matrix."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

from vwl.api.results import RunResult
from vwl.api.run import open_run
from vwl.errors import VwlError
from vwl.workflow.scoring import ScoreLine, stored_score, why_unscored

ScoredStage = Literal["cam", "crf", "walk", "segment"]
Split = Literal["train", "val"]


@dataclass(frozen=True, kw_only=True)
class StageEvaluation:
    """The scores of a stage on a split; all but thresholds and counts in percent.

    Attributes:
        stage, split, images: what was scored, and on how many images.
        miou, pixel_accuracy, mean_accuracy: over the scored classes.
        object_precision, object_recall: means over the object classes; low precision is over-activation, low recall under-activation.
        threshold, threshold_chosen: background score that the masks were made with, and how it was chosen.
        best_miou_with_ground_truth, best_threshold_with_ground_truth: of the threshold that ground truth would choose.
        iou, precision, recall, over_activation, under_activation: by class name.
        confusion: pixels by true class (row) and predicted class (column), (C + 1) x (C + 1).
        curve: (threshold, mIoU) pairs of score maps; none of masks.
    """

    stage: str
    split: str
    images: int
    miou: float
    object_precision: float | None
    object_recall: float | None
    threshold: float | None
    threshold_chosen: str
    best_miou_with_ground_truth: float | None
    best_threshold_with_ground_truth: float | None
    pixel_accuracy: float
    mean_accuracy: float
    iou: Mapping[str, float]
    precision: Mapping[str, float]
    recall: Mapping[str, float]
    over_activation: Mapping[str, float]
    under_activation: Mapping[str, float]
    confusion: list[list[int]]
    curve: list[tuple[float, float]] | None

    def as_json(self) -> dict[str, Any]:
        """Return all values, as in the stage's `scores-<split>.json`."""
        return dict(vars(self))


@overload
def evaluate(run: str | Path | RunResult) -> list[ScoreLine]: ...


@overload
def evaluate(run: str | Path | RunResult, stage: ScoredStage, split: Split = "val") -> StageEvaluation: ...


def evaluate(run: str | Path | RunResult, stage: ScoredStage | None = None, split: Split = "val") -> list[ScoreLine] | StageEvaluation:
    """Return the scores of each finished stage of a run, or all scores of one stage on a split.

    Args:
        run: a run folder (path or URI), or the result of `vwl.run`.
        stage: `cam`, `crf`, `walk` or `segment`; default: all that are done.
        split: `train` or `val`, with `stage`.

    Raises:
        VwlError: there is no run, or nothing was scored; says why.
    """
    result = run if isinstance(run, RunResult) else open_run(run)
    if stage is None:
        lines = result.scores
        if not lines:
            raise VwlError(f"nothing was scored: {why_unscored(result.run)}")
        return lines
    stored = stored_score(result.run, stage, split)
    try:
        return StageEvaluation(**stored)
    except TypeError:
        raise VwlError(
            f"scores-{split}.json of the stage {stage} in {result.folder} is of another version of vwl; "
            f"make it again with: vwl infer {stage} --run {result.folder}"
        ) from None
