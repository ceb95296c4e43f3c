"""Runs the stages of a run in order: skips those that are done, resumes those that were interrupted, and scores the results."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from vwl.config.layout import Layout
from vwl.engine.base import Engine, OnProgress
from vwl.errors import VwlError
from vwl.inference.runner import failures, shards, unfinished
from vwl.training.build import TrainSpec
from vwl.training.linear_probe import below_probe
from vwl.workflow.inputs import inference_spec, input_background, stage_rows
from vwl.workflow.manifest import Manifest
from vwl.workflow.run_folder import Run, local_time
from vwl.workflow.scoring import choose_and_score, score_again
from vwl.workflow.stages import SCORED, STAGES, training_rows


def run_stages(
    run: Run,
    stages: Sequence[str],
    engine: Engine,
    layout: Layout,
    on_progress: OnProgress,
    on_message: Callable[[str], None],
    fit_workers: bool = False,
    strict: bool = False,
) -> None:
    """Run the stages that are not done; those that are done are scored anew where only threshold or scored classes have changed.

    Args:
        run: the run folder.
        stages: names, in order.
        engine: where to run them.
        layout: of the trainings.
        on_progress: called with the progress of each stage.
        on_message: called with lines for the user.
        fit_workers: give each training the largest number of workers that divides its batch, instead of refusing.
        strict: stop at the first image that fails, instead of recording it.

    Raises:
        VwlError: a stage's inputs are missing, a batch cannot be divided among the workers, or a stage raised it.
        Interrupted: stopped on request; finished work is kept.
    """
    layouts = {stage: _training_layout(run, stage, layout, fit_workers) for stage in stages if STAGES[stage].kind == "train"}
    for stage in SCORED:
        if run.is_done(stage) and score_again(run, stage):
            on_message(f"{stage}: scored anew, its threshold or the scored classes have changed")
    for stage in stages:
        if run.is_done(stage):
            on_message(f"{stage}: done before, skipped")
            continue
        if not run.needs(stage):
            on_message(f"{stage}: not needed, the maps of this run are imported")
            continue
        run.require(stage)
        manifest, start = run.start_stage(stage), time.monotonic()
        try:
            if STAGES[stage].kind == "train":
                if layouts[stage].workers != layout.workers:
                    on_message(f"{stage}: its batch is divided among {layouts[stage].workers} of the {layout.workers} workers")
                manifest = _train(run, manifest, engine, layouts[stage], on_progress)
                if line := below_probe(manifest.training_scores or {}):
                    on_message(f"{stage}: {line}")
            else:
                manifest = _infer(run, manifest, engine, on_progress, strict)
        finally:
            manifest = replace(manifest, seconds=round(manifest.seconds + time.monotonic() - start, 3))
            run.write_manifest(manifest)
        run.stage_folder(stage).sweep()  # no process writes there any more
        manifest = replace(manifest, state="done", finished=local_time())
        if stage in SCORED:
            manifest = choose_and_score(run, manifest)
        run.write_manifest(manifest)
        if manifest.failed:
            first, reason = next(iter(manifest.failed.items()))
            on_message(f"{stage}: {len(manifest.failed)} images failed, e.g. {first}: {reason} (all are in {stage}/manifest.json)")


def _training_layout(run: Run, stage: str, layout: Layout, fit_workers: bool) -> Layout:
    """Return the layout of a training; one that does not divide the batch is refused before the first stage runs."""
    batch_size = getattr(run.recipe, stage).batch_size
    fitting = layout.fit_to_batch(batch_size) if fit_workers else layout
    fitting.split_batch(batch_size)
    return fitting


def _train(run: Run, manifest: Manifest, engine: Engine, layout: Layout, on_progress: OnProgress) -> Manifest:
    stage = manifest.stage
    reads = STAGES[stage].reads
    masks = run.stage_folder(reads[0]) if reads else None
    spec = TrainSpec(stage, run.recipe, run.index_path, run.stage_folder(stage), masks, run.fingerprint(stage))
    result = engine.trainer.fit(spec, layout, on_progress)
    return replace(
        manifest,
        images=len(training_rows(run.index)),
        steps=result.step,
        training_scores=result.scores,
        pretrained=result.pretrained,
    )


def _infer(run: Run, manifest: Manifest, engine: Engine, on_progress: OnProgress, strict: bool) -> Manifest:
    stage = manifest.stage
    rows = stage_rows(run, stage)
    if not rows:
        raise VwlError(f"{stage}: no image is left to process; {STAGES[stage].reads[0]}/manifest.json says why each one failed")
    folder = run.stage_folder(stage)
    all_shards = shards(rows)
    remaining = unfinished(all_shards, folder)
    if remaining:
        images_done = len(rows) - sum(len(shard.rows) for shard in remaining)
        engine.shard_runner.run_shards(inference_spec(run, stage, strict), remaining, images_done, on_progress)
    failed = failures(folder)
    if len(failed) == len(rows):
        first, reason = next(iter(failed.items()))
        raise VwlError(f"{stage}: all {len(rows)} images failed, e.g. {first}: {reason}; solve this and delete {folder} to try again")
    manifest = replace(manifest, images=len(rows), failed=failed)
    background = input_background(run, stage)
    if background is None:
        return manifest
    return replace(
        manifest,
        threshold=background.threshold,
        threshold_chosen=background.chosen,
        class_thresholds=dict(background.class_thresholds),
    )
