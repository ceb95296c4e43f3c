"""The detailed scores of a run, `scores-<split>.json` of each scored stage, as the sections read them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import score_table, stored_score


@dataclass(frozen=True)
class StoredScore:
    """A stage's score on a split, in percent; `vwl.evaluation.scoring.Score` explains the fields.

    Attributes:
        stage, split, images: what was scored.
        miou, threshold, chosen, best_miou, best_threshold: of the whole.
        curve: (threshold, mIoU) pairs; none for masks.
        iou, precision, recall: by class name.
        means: of `iou`, `precision` and `recall` as the score takes them: over the classes that the recipe scores; precision and recall
            over objects.
        confusion: (n, n) pixels, rows truth, columns prediction.
    """

    stage: str
    split: str
    images: int
    miou: float
    threshold: float | None
    chosen: str
    best_miou: float | None
    best_threshold: float | None
    curve: Sequence[tuple[float, float]] | None
    iou: Mapping[str, float]
    precision: Mapping[str, float]
    recall: Mapping[str, float]
    means: Mapping[str, float | None]
    confusion: Sequence[Sequence[int]]


def stored_scores(run: Run) -> list[StoredScore]:
    """Return the detailed scores of all scored stages and splits.

    Raises:
        VwlError: a file is missing or damaged.
    """
    found = []
    for line in score_table(run):
        stored = stored_score(run, line.stage, line.split)
        found.append(
            StoredScore(
                line.stage,
                line.split,
                line.images,
                line.miou,
                line.threshold,
                line.threshold_chosen,
                line.best_miou_with_ground_truth,
                line.best_threshold_with_ground_truth,
                None if stored.get("curve") is None else [(float(t), float(m)) for t, m in stored["curve"]],
                stored["iou"],
                stored["precision"],
                stored["recall"],
                {"iou": line.miou, "precision": line.object_precision, "recall": line.object_recall},
                stored["confusion"],
            )
        )
    return found
