"""The review queue of a run: its images, ranked by how likely their masks are wrong, without ground truth.

Where an image has ground truth, it tells how well the ranking finds bad masks, and takes no part in it.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal, get_args

import numpy as np

from vwl.data.index import Index, Row
from vwl.errors import VwlError
from vwl.evaluation.disagreement import STAGE_NAMES, differences, disagreement, entropy, image_miou, reason
from vwl.maps.cam import argmax_with_background, upsample
from vwl.storage.masks import decode_mask, read_result
from vwl.storage.score_maps import MapReader, ScoreMap
from vwl.workflow.inputs import Background, class_scales
from vwl.workflow.manifest import Manifest
from vwl.workflow.run_folder import Run, fault_line, has_result

Ranking = Literal["disagreement", "entropy"]
RANKINGS: tuple[Ranking, ...] = get_args(Ranking)
_NEEDED = 2
"""Stages that must have a mask of an image before it can be ranked."""


@dataclass(frozen=True)
class ReviewedImage:
    """One image of the queue.

    Attributes:
        rank: from 1, the image to look at first.
        row: of the index.
        score: that it is ranked by, 0..1.
        disagreement: of the stages, 0..1, see `vwl.evaluation.disagreement.disagreement`.
        entropy: mean entropy of the walk's scores, 0..1; none without the walk.
        reason: which stages differ, and in which class.
        mious: by stage, mean IoU of its mask with the ground truth; empty without ground truth.
        pairs: mean IoU of each two stages' masks.
    """

    rank: int
    row: Row
    score: float
    disagreement: float
    entropy: float | None
    reason: str
    mious: dict[str, float]
    pairs: dict[tuple[str, str], float]


@dataclass(frozen=True)
class Queue:
    """All ranked images of a run, the most doubtful first.

    Attributes:
        images: the images.
        not_ranked: number of the data set's images with masks of fewer than two stages.
        by: what they are ranked by.
        stages: that were compared.
    """

    images: tuple[ReviewedImage, ...]
    not_ranked: int
    by: Ranking
    stages: tuple[str, ...]


@dataclass(frozen=True)
class RankingQuality:
    """How well a queue finds bad masks of a stage, by ground truth.

    Attributes:
        stage: whose masks.
        images: number with ground truth.
        top: number of the first tenth of them.
        miou_top, miou_all: mean over images of the IoU with the ground truth, percent.
        share_of_worst: percent of the images whose mask is among the worst tenth that are in the first tenth of the queue; 10 by chance.
    """

    stage: str
    images: int
    top: int
    miou_top: float
    miou_all: float
    share_of_worst: float


class RunMasks:
    """Reads the masks of a run's stages by image.

    Attributes:
        compared: the finished stages of `STAGE_NAMES`.
    """

    def __init__(self, run: Run) -> None:
        """Open the finished stages.

        Raises:
            VwlError: fewer than two of them are done, so that nothing can be compared, or files of one are missing or damaged.
        """
        self.run, self.threshold = run, 0.0
        self._maps: MapReader | None = None
        self.compared = [stage for stage in STAGE_NAMES if has_result(run.folder, stage, run.fingerprint(stage))]
        if len(self.compared) < _NEEDED:
            raise VwlError(
                f"a review compares the stages {', '.join(STAGE_NAMES)}, of which {', '.join(self.compared) or 'none'} is done; "
                f"run: vwl run --run {run.folder}"
            )
        for stage in self.compared:
            if damage := fault_line(run.stage_folder(stage), run.faults(stage)):
                raise VwlError(
                    f"a review needs the {stage} stage, of which {damage}; make it again with: vwl infer {stage} --run {run.folder}"
                )
        self._images = {stage: {row.image_id for row in run.stage_rows(stage)} - {*run.failed_images(stage)} for stage in self.compared}
        if "walk" in self.compared:
            self._open_walk(run.manifest("walk"))

    def _open_walk(self, manifest: Manifest | None) -> None:
        assert manifest is not None
        assert manifest.threshold is not None
        background = Background(manifest.threshold, manifest.threshold_chosen or "", manifest.class_thresholds)
        self._maps = MapReader(self.run.folder / "walk", class_scales(self.run, background))
        self.threshold = manifest.threshold

    def stages(self, image_id: str) -> list[str]:
        """Return the stages that have a mask of an image."""
        return [stage for stage in self.compared if image_id in self._images[stage]]

    def walk_map(self, image_id: str) -> ScoreMap | None:
        """Return the walk's score map of an image, each class scaled to the common threshold; none if there is none."""
        return self._maps.read(image_id) if self._maps is not None and image_id in self._images["walk"] else None

    def mask(self, stage: str, image_id: str) -> np.ndarray:
        """Return the mask (H, W) uint8 of a stage; of the walk, as the masks stage cuts it."""
        if stage != "walk":
            return decode_mask(read_result(self.run.folder / stage, image_id), f"{stage}/{image_id}.png")
        found = self.walk_map(image_id)
        assert found is not None
        return argmax_with_background(upsample(found.values, found.height, found.width), found.classes, self.threshold)


def review(run: Run, by: Ranking = "disagreement", on_progress: Callable[[int, int], None] = lambda done, total: None) -> Queue:
    """Return all images of a run that have masks of two stages or more, ranked.

    Args:
        run: with finished stages.
        by: what to rank by; images that are equal in it keep the order of the index.
        on_progress: called with the number of images done and in all.

    Raises:
        VwlError: fewer than two stages are done, no image can be ranked, or a file of a stage is damaged.
    """
    masks, found = RunMasks(run), []
    rows = [row for row in run.index.rows if len(masks.stages(row.image_id)) >= _NEEDED]
    if not rows:
        raise VwlError(f"no image of {run.folder} has masks of two of the stages {', '.join(STAGE_NAMES)}; run: vwl run --run {run.folder}")
    for number, row in enumerate(rows):
        on_progress(number, len(rows))
        found.append(_reviewed(run, masks, row, by))
    on_progress(len(rows), len(rows))
    ranked = sorted(found, key=lambda image: -image.score)
    return Queue(
        tuple(replace(image, rank=rank) for rank, image in enumerate(ranked, 1)), len(run.index.rows) - len(rows), by, tuple(masks.compared)
    )


def of_split(queue: Queue, index: Index, split: str) -> Queue:
    """Return the images of a queue that are in a split (`train_aug` and `all` as for `Index.split`), ranked anew.

    Raises:
        VwlError: the index has no images in the split, or none of them is ranked.
    """
    rows = {row.image_id for row in index.split(split)}
    images = [image for image in queue.images if image.row.image_id in rows]
    if not images:
        raise VwlError(f"no image of split '{split}' has masks of two stages; make them with: vwl infer segment --run RUN --split {split}")
    ranked = tuple(replace(image, rank=rank) for rank, image in enumerate(images, 1))
    return replace(queue, images=ranked, not_ranked=len(rows) - len(images))


def _reviewed(run: Run, masks: RunMasks, row: Row, by: Ranking) -> ReviewedImage:
    num_classes = len(run.index.classes)
    made = {stage: masks.mask(stage, row.image_id) for stage in masks.stages(row.image_id)}
    pairs = differences(made, row.labels, num_classes)
    walk = masks.walk_map(row.image_id)
    undecided = None if walk is None else entropy(walk.values, walk.classes, masks.threshold)
    score = disagreement(pairs) if by == "disagreement" else undecided or 0.0
    mious = {}
    if row.has_truth:
        truth = run.index.read_mask(row)
        mious = {stage: image_miou(truth, mask, num_classes) for stage, mask in made.items()}
    why = reason(pairs, row.labels, run.index.classes)
    return ReviewedImage(0, row, score, disagreement(pairs), undecided, why, mious, {pair.stages: pair.mean_iou for pair in pairs})


def ranking_quality(images: tuple[ReviewedImage, ...] | list[ReviewedImage], share: float = 0.1) -> list[RankingQuality]:
    """Return for each stage how bad its masks at the top of a queue are, by the ground truth of those images that have it."""
    lines = []
    for stage in STAGE_NAMES:
        mious = np.array([image.mious[stage] for image in images if stage in image.mious and not np.isnan(image.mious[stage])])
        if len(mious) == 0:
            continue
        top = max(1, round(share * len(mious)))
        worst = set(np.argsort(mious, kind="stable")[:top].tolist())
        in_both = len(worst & set(range(top)))
        lines.append(
            RankingQuality(stage, len(mious), top, 100 * float(mious[:top].mean()), 100 * float(mious.mean()), 100 * in_both / top)
        )
    return lines
