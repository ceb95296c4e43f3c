"""Chooses the background threshold of a finished stage and scores it: all that may change without running the stage again."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vwl.data.data_fingerprint import DataFingerprint
from vwl.data.index import Row
from vwl.engine.base import OnProgress, Progress
from vwl.errors import VwlError
from vwl.evaluation.score_file import is_score_file
from vwl.evaluation.scoring import Score, Thresholds, choose_thresholds, percent, percent_or_none, score_maps, score_masks
from vwl.evaluation.sums import OnImages, SumImages, sum_in_threads
from vwl.storage.record import read_record
from vwl.storage.score_maps import MapReader
from vwl.workflow.inputs import OWN_BACKGROUND, Background, class_scales
from vwl.workflow.manifest import Manifest, StageScore
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import SCORED, SPLITS, STAGES, scored_rows, training_rows


@dataclass(frozen=True, kw_only=True)
class ScoreLine(StageScore):
    """A line of the table of scored stages.

    Attributes:
        seconds: working time of the stage.
        scoring_seconds: time that choosing its thresholds and scoring all its splits took.
    """

    seconds: float
    scoring_seconds: float | None


def choose_and_score(
    run: Run, manifest: Manifest, sum_images: SumImages = sum_in_threads, on_progress: OnProgress = lambda progress: None
) -> Manifest:
    """Return a finished stage's manifest with its threshold and scores; details go to `scores-<split>.json` in its folder.

    Raises:
        KeyboardInterrupt: stopped; nothing was written.
    """
    stage, start = manifest.stage, time.monotonic()
    manifest = replace(manifest, scoring_settings=_scoring_settings(run, stage))
    processed = {row.image_id for row in run.stage_rows(stage)} - set(manifest.failed)
    with_maps = [row for row in training_rows(run.index) if row.image_id in processed and not row.negative]
    setting = getattr(run.recipe, stage).background_threshold if STAGES[stage].kind == "maps" else None
    choosing = with_maps if isinstance(setting, str) else []
    splits = {split: [row for row in scored_rows(run.index, split) if row.image_id in processed] for split in SPLITS}
    splits = {split: rows for split, rows in splits.items() if rows}
    counted = _Counted(stage, len(choosing) + sum(map(len, splits.values())), on_progress)
    if setting is not None:
        maps = MapReader(run.stage_folder(stage))
        if _have_background(maps):
            found = Thresholds(0.0, OWN_BACKGROUND)
            counted.skip(len(choosing))
        else:
            found = choose_thresholds(setting, maps, choosing, sum_images, counted.next(len(choosing)))
        manifest = replace(
            manifest,
            threshold=found.threshold,
            threshold_chosen=found.chosen,
            class_thresholds={run.index.classes[class_id]: own for class_id, own in found.by_class.items()},
        )
    scores = _score_splits(run, manifest, splits, sum_images, counted)
    for score in scores:
        run.stage_folder(stage).write_json(f"scores-{score.split}.json", score.as_dict(run.index.classes))
    return replace(manifest, scores=[_short(score) for score in scores], scoring_seconds=round(time.monotonic() - start, 3))


def score_again(run: Run, stage: str, sum_images: SumImages = sum_in_threads, on_progress: OnProgress = lambda progress: None) -> bool:
    """Score a finished stage anew if its threshold setting, the scored classes or corrected masks have changed; return whether they had."""
    manifest = run.manifest(stage)
    assert manifest is not None
    if manifest.scoring_settings == _scoring_settings(run, stage):
        return False
    record = read_record(run.stage_folder(stage))
    manifest = choose_and_score(run, manifest, sum_images, on_progress)
    if record is None or not record.files:
        run.write_manifest(manifest)
    else:
        run.finish_stage(manifest, {name: file for name, file in record.files.items() if not name.startswith("scores-")})
    return True


def score_table(run: Run) -> list[ScoreLine]:
    """Return a line for each scored stage and split of a run."""
    manifests = [manifest for manifest in map(run.manifest, SCORED) if manifest is not None and manifest.state == "done"]
    return [
        ScoreLine(**vars(score), seconds=manifest.seconds, scoring_seconds=manifest.scoring_seconds)
        for manifest in manifests
        for score in manifest.scores
    ]


def why_unscored(run: Run) -> str:
    """Return why no stage of a run has a score, and what to do."""
    truth = [row.image_id for split in SPLITS for row in scored_rows(run.index, split)]
    if not truth:
        return (
            f"{run.index_path} has no ground truth for labelled images of {' or '.join(SPLITS)}, and training needs none; "
            "to have scores, make the index again with --masks FOLDER and use another --run folder"
        )
    done = [stage for stage in SCORED if run.is_done(stage)]
    if not done:
        return f"none of the stages {', '.join(SCORED)} is done; run: vwl run --run {run.folder}"
    return f"all {len(truth)} images with ground truth failed; {run.folder}/{done[0]}/manifest.json says why"


def stored_score(run: Run, stage: str, split: str) -> dict[str, Any]:
    """Return the content of a stage's `scores-<split>.json`: every class, threshold curve, confusion matrix.

    Raises:
        VwlError: the stage was not scored on this split, or the file is missing or damaged; says why and what to do.
    """
    manifest = run.manifest(stage) if stage in SCORED else None
    if manifest is not None and manifest.state == "done" and split in {score.split for score in manifest.scores}:
        folder, name = run.stage_folder(stage), f"scores-{split}.json"
        try:
            score: Any = json.loads(folder.read(name)) if folder.exists(name) else None
        except ValueError:
            score = None
        if not is_score_file(score, len(run.index.classes)):
            raise VwlError(f"{folder.uri_of(name)} is missing or damaged; make it again with: vwl infer {stage} --run {run.folder}")
        return dict(score)
    available = [f"{line.stage} on {line.split}" for line in score_table(run)]
    raise VwlError(
        f"{run.folder} has no score of {stage} on {split}: {_why_unscored(run, stage, split, manifest)}; "
        f"it has {', '.join(available) or 'none'}"
    )


def _why_unscored(run: Run, stage: str, split: str, manifest: Manifest | None) -> str:
    if stage not in SCORED:
        return f"only {', '.join(SCORED)} are scored"
    if split not in SPLITS:
        return f"only {' and '.join(SPLITS)} are scored"
    if not scored_rows(run.index, split):
        return f"{run.index_path} has no ground truth for labelled images of {split}"
    if manifest is None or manifest.state != "done":
        return f"the stage is not done (vwl infer {stage} --run {run.folder})"
    return f"all images of {split} with ground truth failed"


def _have_background(maps: MapReader) -> bool:
    """Return whether the maps of a folder have class 0: an object then counts where it is above that map, whatever the threshold."""
    first = maps.first_id()
    return first is not None and 0 in maps.read(first).classes


def _scoring_settings(run: Run, stage: str) -> dict[str, Any]:
    classes = run.recipe.evaluation.classes
    settings: dict[str, Any] = {"classes": None if classes is None else list(classes)}
    if STAGES[stage].kind == "maps":
        settings["background_threshold"] = getattr(run.recipe, stage).background_threshold
    corrections = DataFingerprint.parse(run.index.fingerprint()).corrections
    return {**settings, "corrections": corrections} if corrections else settings


def _score_splits(
    run: Run, manifest: Manifest, splits: Mapping[str, Sequence[Row]], sum_images: SumImages, counted: "_Counted"
) -> list[Score]:
    stage, folder = manifest.stage, run.stage_folder(manifest.stage)
    names = run.recipe.evaluation.classes
    class_ids = None if names is None else run.index.class_ids(names)
    threshold, chosen = manifest.threshold, manifest.threshold_chosen or ""
    found = []
    for split, rows in splits.items():
        on_images = counted.next(len(rows))
        if STAGES[stage].kind == "maps":
            assert threshold is not None
            maps = MapReader(folder, class_scales(run, Background(threshold, chosen, manifest.class_thresholds)))
            score = score_maps(run.index, rows, maps, stage, split, threshold, chosen, class_ids, sum_images, on_images)
        else:
            score = score_masks(run.index, rows, folder, stage, split, class_ids, threshold, chosen, sum_images, on_images)
        found.append(score)
    return found


class _Counted:
    """The images that a scoring has counted, over all its sums."""

    def __init__(self, stage: str, total: int, on_progress: OnProgress) -> None:
        self._stage, self._total, self._on_progress, self._done = stage, total, on_progress, 0
        if total:
            self._report(0)

    def next(self, num_images: int) -> OnImages:
        """Return what the next sum, over so many images, reports to."""
        before = self._done
        self._done += num_images
        return lambda done: self._report(before + done)

    def skip(self, num_images: int) -> None:
        """Leave out a sum."""
        self._total -= num_images

    def _report(self, done: int) -> None:
        self._on_progress(Progress(self._stage, done, self._total, part="scoring"))


def _short(score: Score) -> StageScore:
    return StageScore(
        stage=score.stage,
        split=score.split,
        images=score.images,
        miou=percent(score.scores.miou),
        object_precision=percent_or_none(score.scores.object_precision),
        object_recall=percent_or_none(score.scores.object_recall),
        threshold=score.threshold,
        threshold_chosen=score.chosen,
        best_miou_with_ground_truth=None if score.best_miou is None else percent(score.best_miou),
        best_threshold_with_ground_truth=score.best_threshold,
    )
