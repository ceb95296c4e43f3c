"""Running the method: `run` starts a run or goes on with it, `open_run` opens one that is there."""

import logging
import os
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from vwl.api.events import OnMetrics, OnRunProgress, Stop
from vwl.api.follow import Follower
from vwl.api.inputs import AnyRecipe, Data, Overrides, Workers, data_of, layout_of, override_lines, recipe_of
from vwl.api.remaining_time import RemainingTime
from vwl.api.results import RunResult
from vwl.api.trackers import open_tracker, require_tracker
from vwl.config.layout import Layout
from vwl.engine.base import open_engine
from vwl.errors import Interrupted, VwlError, did_you_mean
from vwl.storage.lock import exclusive_lock
from vwl.workflow.pipeline import run_stages
from vwl.workflow.preflight import check_cluster, check_start
from vwl.workflow.reuse import reuse_note, reuse_stages
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES, stages_of
from vwl.workflow.start import Start
from vwl.workflow.streaming import Streaming
from vwl.workflow.streaming import streamed as streamed_stages

logger = logging.getLogger("vwl")


def run(
    data: Data | None = None,
    recipe: AnyRecipe | None = None,
    out: str | Path | None = None,
    *,
    overrides: Overrides = (),
    stages: Sequence[str] | None = None,
    workers: Workers = 1,
    gpus_per_worker: int = 0,
    backend: str = "ray",
    address: str | None = None,
    overwrite: bool = False,
    reuse: str | Path | None = None,
    strict: bool = False,
    fit_workers: bool = True,
    streamed: bool = False,
    splits: Sequence[str] = (),
    on_progress: OnRunProgress | None = None,
    on_metrics: OnMetrics | None = None,
    stop: Stop | None = None,
    tracker: str | None = None,
) -> RunResult:
    """Run the stages of a run that are not done, from images and labels to a segmentation model and its scores.

    The same call, with or without `data` and `recipe`, goes on where an earlier one was stopped or killed. Messages are logged by
    ``logging.getLogger("vwl")``. The result is the same for any number of workers, with Ray or without.

    Args:
        data: index table (path or URI), or an index, which is then stored in the run folder. Not needed for an existing run.
        recipe: name of a built-in recipe, YAML file, or recipe. Default: that of an existing run, else `reference-voc` or
            `reference-coco`.
        out: the run folder, path or URI.
        overrides: changes of the recipe, e.g. ``{"classifier.epochs": 4}`` or ``["classifier.epochs=4"]``.
        stages: names of stages to run, in order; default: all of the recipe. The stages that they read must be done.
        workers: data-parallel training workers: their number, or a `vwl.Layout` with CPUs, GPUs, micro-batch and precision.
        gpus_per_worker: 0 or 1, where `workers` is a number.
        backend: `ray`, or `local`: this machine's processes, without Ray.
        address: Ray cluster; default: RAY_ADDRESS, else a local Ray is started and stopped.
        overwrite: replace the recipe of an existing run; stages that depend on a changed key run again.
        reuse: another run, whose finished stages with the same settings and data are copied. A new run has its recipe and data by
            default.
        strict: stop at the first image that fails, instead of listing it in `RunResult.failed`.
        fit_workers: give each training the largest number of workers that divides its batch, instead of refusing.
        streamed: let CPUs refine the maps of CAM that are finished while networks make the others.
        splits: whose images the stage `segment` processes beside those that it always does: `train`, `val`, `all`, ...
        on_progress: called after each training step and each shard of images.
        on_metrics: called with each new line of the trainings' metrics.jsonl and with the scores of each stage.
        stop: an object such as `threading.Event` that asks to stop.
        tracker: also send the metrics to `mlflow`, `wandb` or `tensorboard` (`vwl.api.trackers`).

    Returns:
        The run's results.

    Raises:
        VwlError: a mistake in the arguments, the data or the recipe; nothing was started.
        Interrupted: stopped by `stop`, by a callback that raised KeyboardInterrupt, or by Ctrl-C (an interrupted notebook cell). A
            training has saved a checkpoint, finished images are kept: the same call goes on.
        KeyboardInterrupt: Ctrl-C before anything was finished.
        Exception: another exception of a callback ends the run at once; it goes on from the last checkpoint.
    """
    if out is None:
        raise VwlError("name the run folder: vwl.run(data, recipe, out)")
    if stages is not None:
        stages = _stages(stages)
    if backend not in ("ray", "local"):
        raise VwlError(f"the backend '{backend}' is neither ray nor local")
    layout = layout_of(workers, gpus_per_worker)
    if backend == "local" and layout.min_workers is not None:
        raise VwlError("elastic workers (min_workers) need the backend ray; give one number of workers")
    if backend == "local" and (layout.trainers_on or layout.inference_on):
        raise VwlError("--trainers-on and --inference-on choose nodes of a Ray cluster; leave them out, or use the backend ray")
    if tracker is not None:
        require_tracker(tracker)
    other = None if reuse is None else str(reuse)
    start = Start.plan(str(out), data_of(data), recipe_of(recipe), override_lines(overrides), overwrite, other)
    of_recipe = streamed_stages if streamed else stages_of
    names = list(stages if stages is not None else of_recipe(start.run.recipe))
    if start.is_new and recipe is None and other is None:
        logger.info("recipe: %s, the default (vwl recipe list shows others, --recipe takes one)", start.run.recipe.name)
    layouts = check_start(start.run, names, layout, backend, fit_workers)
    opened = start.run if start.is_new else start.bind()
    has_folder = opened.folder.exists()
    with ExitStack() as held:

        def lock() -> None:  # makes the folder
            for name in names:
                held.enter_context(exclusive_lock(opened.folder, name))

        if has_folder:
            lock()
        engine = held.enter_context(open_engine(backend, address, layout.inference_on))
        if backend == "ray":
            check_cluster(layouts)
        if not has_folder:
            lock()
        if start.is_new:
            opened = start.bind()
        if other is not None:
            logger.info(reuse_note(other, reuse_stages(opened, Run.open(other).folder)))
        if streamed:
            engine = replace(engine, shard_runner=Streaming(opened, engine.shard_runner, strict))
        callbacks = [on_metrics] if on_metrics is not None else []
        if tracker is not None:
            callbacks.append(held.enter_context(open_tracker(tracker, opened)))
        remaining = RemainingTime({}) if on_progress is None else _remaining(opened, names, layout, backend)
        follower = Follower(opened, names, remaining, on_progress, callbacks, stop)
        try:
            run_stages(opened, names, engine, layout, follower.progress, logger.info, fit_workers, strict, splits, follower.end)
        except KeyboardInterrupt as interrupt:
            if follower.stopped:
                raise Interrupted(str(interrupt) or f"{opened.folder} stopped") from None
            raise
    if names == stages_of(opened.recipe):
        _write_report(opened)
    return RunResult(opened)


def open_run(folder: str | Path) -> RunResult:
    """Return the results of a run folder, path or URI; the run may still work or have been stopped.

    Raises:
        VwlError: there is no run, or its files are damaged.
    """
    return RunResult(Run.open(str(folder)))


def _write_report(run: Run) -> None:
    """Write `pictures/` and `report.html` into a run's folder. A page that cannot be written is a message: the run has not failed."""
    from vwl.report.html.report import run_report, write_html
    from vwl.report.summary import write_report  # matplotlib takes a second to import

    write_report(run)
    try:
        write_html(run_report(run), run.folder, None)
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        logger.warning("no report was written (%s); try again with: vwl report --run %s", reason, run.folder)


def _stages(stages: Sequence[str]) -> list[str]:
    """Return the names of stages; one name alone is no list of its letters."""
    names = [stages] if isinstance(stages, str) else list(stages)
    unknown = next((name for name in names if name not in STAGES), None)
    if unknown is not None:
        raise VwlError(f"there is no stage '{unknown}'{did_you_mean(str(unknown), STAGES)} (stages are {', '.join(STAGES)})")
    if not names:
        raise VwlError(f"stages is empty; name some of {', '.join(STAGES)}")
    return names


def _remaining(run: Run, names: Sequence[str], layout: Layout, backend: str) -> RemainingTime:
    """Return the clock of a call: estimates of `vwl plan` for the stages that are not done, scaled by the times of those that are."""
    from vwl.cluster.plan import Resources, plan

    if backend == "local":
        here = Resources("", os.cpu_count() or 1, 0)
    else:
        from vwl.engine.session import cluster_cpus, cluster_gpus

        here = Resources("", cluster_cpus(layout.inference_on), cluster_gpus(layout.inference_on))
    seconds = {stage.stage: 3600 * stage.hours for stage in plan(run.recipe, run.index, layout, here)}
    done = {stage: manifest.seconds for stage in seconds if run.is_done(stage) and (manifest := run.manifest(stage)) is not None}
    left = {stage: seconds[stage] for stage in names if stage not in done and run.needs(stage)}
    return RemainingTime(left, (sum(done.values()), sum(seconds[stage] for stage in done)))
