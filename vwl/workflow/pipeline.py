"""Runs the stages of a run in order: skips those that are done, resumes those that were interrupted, and scores the results."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from vwl.config.layout import Layout
from vwl.config.networks import batch_size
from vwl.data.summary import without_contrast
from vwl.engine.base import Engine, OnProgress
from vwl.errors import Interrupted, VwlError, interrupts_in_c
from vwl.inference.runner import unfinished, waiting_images
from vwl.inference.shard_files import check_shards, forget
from vwl.storage.record import StoredFile, read_record, stored_file
from vwl.training.build import TrainSpec
from vwl.training.checkpoint import steps
from vwl.training.linear_probe import below_probe
from vwl.training.loop import WEIGHTS
from vwl.workflow.inputs import inference_spec, input_background
from vwl.workflow.manifest import Manifest, restore_manifest
from vwl.workflow.run_folder import Run, fault_line, local_time
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
    splits: Sequence[str] = (),
    on_end: Callable[[str], None] = lambda stage: None,
) -> None:
    """Run the stages that are not done; those that are done are scored anew where only threshold or scored classes have changed.

    A stage whose files are missing or damaged is not done; only these files are made again.

    Args:
        run: the run folder.
        stages: names, in order.
        engine: where to run them.
        layout: of the trainings.
        on_progress: called with the progress of each stage.
        on_message: called with lines for the user.
        fit_workers: give each training the largest number of workers that divides its batch, instead of refusing.
        strict: stop at the first image that fails, instead of recording it.
        splits: whose images the segment stage processes beside those that it always does.
        on_end: called with the name of each stage that has ended, also of one that was skipped.

    Raises:
        VwlError: a stage's inputs are missing, a batch cannot be divided among the workers, or a stage raised it.
        Interrupted: stopped on request; finished work is kept.
        KeyboardInterrupt: stopped before anything was finished.
    """
    layouts = {stage: _training_layout(run, stage, layout, fit_workers) for stage in stages if STAGES[stage].kind == "train"}
    for stage in stages:
        restore_manifest(run.stage_folder(stage))
    for stage in SCORED:
        try:
            anew = run.is_done(stage) and score_again(run, stage, engine.sum_images, on_progress)
        except KeyboardInterrupt as stop:
            raise Interrupted(str(stop) or f"{stage} stopped") from None
        if anew:
            on_message(f"{stage}: scored anew, its threshold, the scored classes or corrected masks have changed")
    for number, stage in enumerate(stages):
        try:
            with interrupts_in_c():
                _run_stage(run, stage, engine, layouts.get(stage, layout), layout.workers, on_progress, on_message, strict, splits)
                on_end(stage)
        except (Interrupted, KeyboardInterrupt) as stop:
            message = str(stop) or f"{stage} stopped"
            if number or _has_work(run, stage):
                raise Interrupted(message) from None
            raise KeyboardInterrupt(f"{message}; nothing was finished yet") from None


def _run_stage(
    run: Run,
    stage: str,
    engine: Engine,
    layout: Layout,
    workers: int,
    on_progress: OnProgress,
    on_message: Callable[[str], None],
    strict: bool,
    splits: Sequence[str],
) -> None:
    """Run a stage if it is not done; `layout` is the stage's own, `workers` the number that was asked for."""
    wanted = splits if stage == "segment" else ()
    if run.is_done(stage, wanted):
        _add_record(run, stage)
        on_message(f"{stage}: done before, skipped")
        return
    if not run.needs(stage):
        on_message(f"{stage}: not needed, {run.why_not_needed(stage)}")
        return
    run.require(stage)
    before = _forget_faults(run, stage, on_message)
    manifest, start = run.start_stage(stage, wanted), time.monotonic()
    try:
        if STAGES[stage].kind == "train":
            if layout.workers != workers:
                on_message(f"{stage}: its batch is divided among {layout.workers} of the {workers} workers")
            if stage == "classifier" and (line := without_contrast(run.index, training_rows(run.index))):
                on_message(f"{stage}: {line}")
            manifest = _train(run, manifest, engine, layout, on_progress)
            for line in filter(None, (below_probe(manifest.training_scores or {}), *(manifest.notes or ()))):
                on_message(f"{stage}: {line}")
        else:
            manifest = _infer(run, manifest, engine, on_progress, strict)
    finally:
        manifest = replace(manifest, seconds=round(manifest.seconds + time.monotonic() - start, 3))
        run.write_manifest(manifest)
    run.stage_folder(stage).sweep()  # no process writes there any more
    manifest = replace(manifest, state="done", finished=local_time())
    if stage in SCORED:
        manifest = choose_and_score(run, manifest, engine.sum_images, on_progress)
    files = result_files(run, stage)
    run.finish_stage(manifest, files)
    if before and STAGES[stage].kind == "train" and files[WEIGHTS].digest != before:
        on_message(f"{stage}: its new weights are not those from before; what later stages made with those is kept")
    if manifest.failed:
        first, reason = next(iter(manifest.failed.items()))
        on_message(f"{stage}: {len(manifest.failed)} images failed, e.g. {first}: {reason} (all are in {stage}/manifest.json)")


def _has_work(run: Run, stage: str) -> bool:
    """Return whether a stage that has not ended has left something that it will not make again."""
    folder = run.stage_folder(stage)
    return bool(steps(folder / "checkpoints") if STAGES[stage].kind == "train" else (folder / "done").names(".json"))


def _forget_faults(run: Run, stage: str, on_message: Callable[[str], None]) -> str:
    """Delete the damaged files of a stage that was done, and return the digest that its weights had.

    Empty if there were none, or if they were made with other settings or inputs.
    """
    folder, found = run.stage_folder(stage), run.faults(stage)
    record = read_record(folder)
    if found:
        on_message(f"{stage}: {fault_line(folder, found)}; what is missing is made again")
        if STAGES[stage].kind == "train":
            folder.delete(WEIGHTS)
        else:
            forget(run.shards(stage), folder, STAGES[stage].kind == "maps", found)
    manifest = run.manifest(stage)
    if record is None or WEIGHTS not in record.files or manifest is None or manifest.fingerprint != run.fingerprint(stage):
        return ""
    return record.files[WEIGHTS].digest


def result_files(run: Run, stage: str) -> dict[str, StoredFile]:
    """Return the files of a finished stage's result.

    Raises:
        VwlError: one was changed since it was written.
    """
    folder, kind = run.stage_folder(stage), STAGES[stage].kind
    if kind == "train":
        return {WEIGHTS: stored_file(folder, WEIGHTS)}
    found = check_shards(run.shards(stage), folder, kind == "maps")
    if found.faults:
        raise VwlError(f"{stage}: {fault_line(folder, found.faults)}, although it was written just now; run the same command again")
    return found.files


def _add_record(run: Run, stage: str) -> None:
    """Write the record of a finished stage that has none: it was made by an earlier version, or the record was lost."""
    record, manifest = read_record(run.stage_folder(stage)), run.manifest(stage)
    if manifest is not None and (record is None or not record.files):
        run.finish_stage(manifest, result_files(run, stage))


def _training_layout(run: Run, stage: str, layout: Layout, fit_workers: bool) -> Layout:
    """Return the layout of a training; one that does not divide the batch is refused before the first stage runs."""
    batch = batch_size(run.recipe, stage)
    fitting = layout.fit_to_batch(batch) if fit_workers else layout
    fitting.split_batch(batch)
    return fitting


def _train(run: Run, manifest: Manifest, engine: Engine, layout: Layout, on_progress: OnProgress) -> Manifest:
    stage = manifest.stage
    reads = STAGES[stage].reads(run.recipe)
    read = run.stage_folder(reads[0]) if reads else None
    spec = TrainSpec(stage, run.recipe, run.index_path, run.stage_folder(stage), read, run.fingerprint(stage))
    result = engine.trainer.fit(spec, layout, on_progress)
    return replace(
        manifest,
        images=len(training_rows(run.index)),
        steps=result.step,
        training_scores=result.scores,
        pretrained=result.pretrained,
        notes=result.notes or None,
        numerics=result.numerics,
    )


def _infer(run: Run, manifest: Manifest, engine: Engine, on_progress: OnProgress, strict: bool) -> Manifest:
    stage = manifest.stage
    rows = run.stage_rows(stage)
    if not rows:
        raise VwlError(f"{stage}: no image is left to process; {STAGES[stage].reads(run.recipe)[0]}/manifest.json says why each one failed")
    folder, all_shards, maps = run.stage_folder(stage), run.shards(stage), STAGES[stage].kind == "maps"
    forget(all_shards, folder, maps, check_shards(all_shards, folder, maps).faults)
    remaining = unfinished(all_shards, folder)
    if remaining:
        images_done = len(rows) - sum(len(shard.rows) for shard in remaining)
        engine.shard_runner.run_shards(inference_spec(run, stage, strict), remaining, images_done, on_progress)
        waiting = waiting_images(unfinished(remaining, folder), folder)
        if waiting:
            first, reason = next(iter(waiting.items()))
            raise VwlError(f"{stage}: {len(waiting)} images could not be processed, e.g. {first}: {reason}")
    failed = check_shards(all_shards, folder, maps).failed
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
