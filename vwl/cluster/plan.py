"""Plan a run before it starts: images, hours and disk of each stage, and whether the machine or cluster has enough resources.

With an earlier run to calibrate on, hours are its measured throughput, scaled by the work of each stage. Otherwise they are estimates
of `vwl/cluster/cost.py`, and are marked as such.
"""

import json
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

import torch
from pyarrow import fs

from vwl.cluster.cost import Cost, image_stats, inference_cost, training_cost
from vwl.cluster.machine_checks import Finding, free_memory
from vwl.config.layout import Layout
from vwl.config.networks import batch_size
from vwl.config.recipe import Recipe
from vwl.data.index import Index
from vwl.errors import VwlError
from vwl.inference.build import PROCESSES_PER_GPU
from vwl.storage.folder import Folder
from vwl.workflow.manifest import Manifest
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES, stages_of, training_rows

GIB = 2**30
BASE_MEMORY = 1.5 * GIB
"""Memory of a worker process with torch loaded, without its network and images, bytes."""


@dataclass(frozen=True)
class Resources:
    """Resources of a machine or cluster.

    Attributes:
        where: name of the machine or cluster, for messages.
        cpus: total number of CPUs.
        gpus: total number of GPUs.
        memory: total bytes; None if unknown.
        disk: free bytes in the run's folder; None if unknown.
        for_training: CPUs and GPUs of the nodes where trainings may run; None: all.
    """

    where: str
    cpus: int
    gpus: int
    memory: float | None = None
    disk: int | None = None
    for_training: tuple[int, int] | None = None


@dataclass(frozen=True)
class StagePlan:
    """Expected work of one stage.

    Attributes:
        stage: its name.
        images: number of images processed; for a training, steps x batch size.
        workers: number of processes.
        hours: expected duration.
        source: of the hours: `estimate`, or `measured` on an earlier run and scaled by the work.
        disk_gib: size of the results.
    """

    stage: str
    images: int
    workers: int
    hours: float
    source: Literal["estimate", "measured"]
    disk_gib: float


def plan(
    recipe: Recipe, index: Index, layout: Layout, resources: Resources, calibration: dict[str, float] | None = None
) -> list[StagePlan]:
    """Return the plan of each stage.

    Args:
        recipe: the settings.
        index: the data set.
        layout: workers and devices of the trainings.
        resources: used by inference stages in full; trainings use what the layout says.
        calibration: measured over estimated time, by stage (`calibrate`).
    """
    found = []
    for stage, cost in costs(recipe, index).items():
        if STAGES[stage].kind == "train":
            used = layout.fit_to_batch(batch_size(recipe, stage))
            workers = used.workers
            seconds = cost.seconds(workers * used.cpus_per_worker, workers * used.gpus_per_worker, used.precision)
        else:
            on_gpus = resources.gpus if cost.operations else 0
            workers = min(on_gpus * PROCESSES_PER_GPU, resources.cpus) or resources.cpus
            seconds = cost.seconds(resources.cpus, on_gpus)
        factor = (calibration or {}).get(stage)
        hours = seconds * (factor or 1.0) / 3600
        found.append(StagePlan(stage, cost.images, workers, hours, "estimate" if factor is None else "measured", cost.bytes / GIB))
    return found


def costs(recipe: Recipe, index: Index) -> dict[str, Cost]:
    """Return the cost of each stage, in the order of the stages."""
    stats, classes, training = image_stats(index), len(index.classes), len(training_rows(index))
    found = {}
    for stage in stages_of(recipe):
        spec = STAGES[stage]
        if spec.kind == "train":
            found[stage] = training_cost(recipe, stage, training, classes)
        else:
            found[stage] = inference_cost(recipe, stage, len(spec.rows(index)), classes, stats)
    return found


def calibrate(run: Run, cpus: int, gpus: int) -> dict[str, float]:
    """Return measured over estimated time of each finished stage of a run that used this many CPUs and GPUs.

    Trainings are measured by the median of their images per second, inference by its total time.

    Raises:
        VwlError: the run has no finished stage.
    """
    found = {}
    for stage, cost in costs(run.recipe, run.index).items():
        manifest = run.manifest(stage)
        if manifest is None or manifest.state != "done":
            continue
        estimated = cost.seconds(cpus, gpus if cost.operations else 0) / cost.images
        measured = _seconds_an_image(run, stage, manifest)
        if measured is not None:
            found[stage] = measured / estimated
    if not found:
        raise VwlError(
            f"{run.folder} has no finished stage to calibrate on; finish a stage first (vwl run --run {run.folder}), or plan without --from"
        )
    return found


def _seconds_an_image(run: Run, stage: str, manifest: Manifest) -> float | None:
    if STAGES[stage].kind != "train":
        return manifest.seconds / manifest.images if manifest.images and manifest.seconds else None
    folder = run.stage_folder(stage)
    lines = folder.read("metrics.jsonl").decode().splitlines() if folder.exists("metrics.jsonl") else []
    rates = [entry["images_per_second"] for entry in map(json.loads, lines) if entry.get("images_per_second")]
    return 1 / median(rates) if rates else None


def checks(recipe: Recipe, index: Index, layout: Layout, resources: Resources, plans: list[StagePlan]) -> Iterator[Finding]:
    """Yield findings on CPUs, GPUs, batch sizes, memory and disk: whether the resources are enough."""
    cpus, gpus = resources.for_training or (resources.cpus, resources.gpus)
    for kind, wanted, has in (
        ("CPUs", layout.workers * layout.cpus_per_worker, cpus),
        ("GPUs", layout.workers * layout.gpus_per_worker, gpus),
    ):
        if wanted > has:
            found = f"{layout.workers} workers need {wanted}, and {resources.where} has {has}"
            yield Finding(kind, "error", found, "lower --workers, --cpus-per-worker or --gpus-per-worker, or use a larger cluster")
        else:
            yield Finding(kind, "ok", f"{wanted} of {has} for trainings; inference uses all")
    yield from _batches(recipe, layout)
    yield _memory(recipe, index, layout, resources)
    needed = sum(stage.disk_gib for stage in plans)
    if resources.disk is not None and needed * GIB > resources.disk:
        yield Finding(
            "disk", "error", f"{needed:.1f} GiB needed, {resources.disk / GIB:.1f} free", "free space, or name another --run folder"
        )
    elif resources.disk is not None:
        yield Finding("disk", "ok", f"{needed:.1f} of {resources.disk / GIB:.1f} GiB free")


def _batches(recipe: Recipe, layout: Layout) -> Iterator[Finding]:
    for stage in stages_of(recipe):
        if STAGES[stage].kind != "train":
            continue
        batch = batch_size(recipe, stage)
        try:
            micro, pieces = layout.fit_to_batch(batch).split_batch(batch)
        except VwlError as error:
            yield Finding(f"{stage} batch", "error", str(error), "choose another --micro-batch or --workers")
            continue
        used = layout.fit_to_batch(batch).workers
        found = f"{batch} images a step: {used} workers x {pieces} x {micro}"
        if used < layout.workers:
            yield Finding(
                f"{stage} batch",
                "warning",
                f"{found}; {layout.workers} workers do not divide the batch",
                f"{layout.workers - used} idle; choose another --workers",
            )
        else:
            yield Finding(f"{stage} batch", "ok", found)


def _memory(recipe: Recipe, index: Index, layout: Layout, resources: Resources) -> Finding:
    """Compare the memory that the workers of the largest training need with what is free; GPUs hold networks in their own memory."""
    heaviest, stage = worker_memory(recipe, index, layout)
    found = f"about {heaviest / GIB:.1f} GiB a worker for {stage} (estimate)"
    if layout.gpus_per_worker:
        return Finding("GPU memory", "ok", f"{found}; more with a smaller --micro-batch" if heaviest > 80 * GIB else found)
    needed = layout.workers * (heaviest + BASE_MEMORY)
    if resources.memory is not None and needed > resources.memory:
        way_out = "lower --micro-batch or --workers"
        return Finding("memory", "warning", f"{found}, {needed / GIB:.1f} GiB in all, and {resources.memory / GIB:.1f} GiB free", way_out)
    return Finding("memory", "ok", found)


def worker_memory(recipe: Recipe, index: Index, layout: Layout, stages: Collection[str] = tuple(STAGES)) -> tuple[float, str]:
    """Return an estimate of the bytes that a worker needs for the largest training among `stages` (`BASE_MEMORY` aside), and its name."""
    found = [(0.0, "")]
    for name, cost in costs(recipe, index).items():
        if STAGES[name].kind == "train" and name in stages:
            batch = batch_size(recipe, name)
            at_once = layout.fit_to_batch(batch).micro_batch_size(batch, layout.fit_to_batch(batch).workers)
            found.append((cost.activations * at_once + cost.bytes, name))
    return max(found)


def this_machine(run: Folder) -> Resources:
    """Return the resources of this machine, and the free disk for a run folder (None for a bucket)."""
    disk = None
    if isinstance(run.filesystem, fs.LocalFileSystem):
        folder = Path(run.path)
        while not folder.exists():
            folder = folder.parent
        disk = shutil.disk_usage(folder).free
    return Resources("this machine", os.cpu_count() or 1, torch.cuda.device_count(), free_memory()[0], disk)
