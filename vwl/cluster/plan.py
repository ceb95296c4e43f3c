"""What a run will take, before it is begun: images, hours and disk of each stage, and whether machine or cluster can give it.

Hours are measured where a run is given to calibrate on: its throughput is scaled by the work, stage by stage. Otherwise they are
estimates of `vwl/cluster/cost.py`, and are called so.
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
from vwl.config.recipe import Recipe
from vwl.data.index import Index
from vwl.errors import VwlError
from vwl.inference.build import PROCESSES_PER_GPU
from vwl.storage.folder import Folder
from vwl.workflow.manifest import Manifest
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES, training_rows

GIB = 2**30
BASE_MEMORY = 1.5 * GIB
"""Of a worker's process with torch, beside its network and images."""


@dataclass(frozen=True)
class Resources:
    """What there is to work with.

    Attributes:
        where: in words.
        cpus: in all.
        gpus: in all.
        memory: bytes in all; none if unknown.
        disk: bytes free where the run is to lie; none if unknown.
    """

    where: str
    cpus: int
    gpus: int
    memory: float | None = None
    disk: int | None = None


@dataclass(frozen=True)
class StagePlan:
    """One stage.

    Attributes:
        stage: its name.
        images: images through it; of a training, steps x batch.
        workers: processes that share it.
        hours: expected.
        source: `estimate`, or `measured` on the calibrating run and scaled by the work.
        disk_gib: that it leaves.
    """

    stage: str
    images: int
    workers: int
    hours: float
    source: Literal["estimate", "measured"]
    disk_gib: float


def plan(recipe: Recipe, index: Index, layout: Layout, there: Resources, calibration: dict[str, float] | None = None) -> list[StagePlan]:
    """Return what each stage takes.

    Args:
        recipe: the settings.
        index: the data set.
        layout: of the trainings.
        there: what inference stages spread over; trainings take what the layout says.
        calibration: for stages, measured time over estimated time (`calibrate`).
    """
    found = []
    for stage, cost in costs(recipe, index).items():
        if STAGES[stage].kind == "train":
            used = layout.fit_to_batch(getattr(recipe, stage).batch_size)
            workers = used.workers
            seconds = cost.seconds(workers * used.cpus_per_worker, workers * used.gpus_per_worker, used.precision)
        else:
            on_gpus = there.gpus if cost.operations else 0
            workers = min(on_gpus * PROCESSES_PER_GPU, there.cpus) or there.cpus
            seconds = cost.seconds(there.cpus, on_gpus)
        factor = (calibration or {}).get(stage)
        hours = seconds * (factor or 1.0) / 3600
        found.append(StagePlan(stage, cost.images, workers, hours, "estimate" if factor is None else "measured", cost.bytes / GIB))
    return found


def costs(recipe: Recipe, index: Index) -> dict[str, Cost]:
    """Return each stage's cost, in their order."""
    stats, classes, training = image_stats(index), len(index.classes), len(training_rows(index))
    found = {}
    for stage, spec in STAGES.items():
        if spec.kind == "train":
            found[stage] = training_cost(recipe, stage, training, classes)
        else:
            found[stage] = inference_cost(recipe, stage, len(spec.rows(index)), classes, stats)
    return found


def calibrate(run: Run, cpus: int, gpus: int) -> dict[str, float]:
    """Return measured over estimated time of each finished stage of a run that had this many CPUs and GPUs.

    Trainings are measured by the median of their images a second, inference by its whole time.

    Raises:
        VwlError: no stage of the run is finished.
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
        raise VwlError(f"{run.folder} has no finished stage to calibrate on; let it do some first (vwl status {run.folder})")
    return found


def _seconds_an_image(run: Run, stage: str, manifest: Manifest) -> float | None:
    if STAGES[stage].kind != "train":
        return manifest.seconds / manifest.images if manifest.images and manifest.seconds else None
    folder = run.stage_folder(stage)
    lines = folder.read("metrics.jsonl").decode().splitlines() if folder.exists("metrics.jsonl") else []
    rates = [entry["images_per_second"] for entry in map(json.loads, lines) if entry.get("images_per_second")]
    return 1 / median(rates) if rates else None


def checks(recipe: Recipe, index: Index, layout: Layout, there: Resources, plans: list[StagePlan]) -> Iterator[Finding]:
    """Yield whether the machine or cluster can give what is asked."""
    for kind, wanted, has in (
        ("CPUs", layout.workers * layout.cpus_per_worker, there.cpus),
        ("GPUs", layout.workers * layout.gpus_per_worker, there.gpus),
    ):
        if wanted > has:
            found = f"{layout.workers} workers need {wanted}, and {there.where} has {has}"
            yield Finding(kind, "error", found, "lower --workers or the share of each, or take a larger cluster")
        else:
            yield Finding(kind, "ok", f"{wanted} of {has} for trainings; inference takes all")
    yield from _shares(recipe, layout)
    yield _memory(recipe, index, layout, there)
    needed = sum(stage.disk_gib for stage in plans)
    if there.disk is not None and needed * GIB > there.disk:
        yield Finding("disk", "error", f"{needed:.1f} GiB needed, {there.disk / GIB:.1f} free", "free space, or name another --run folder")
    elif there.disk is not None:
        yield Finding("disk", "ok", f"{needed:.1f} of {there.disk / GIB:.1f} GiB free")


def _shares(recipe: Recipe, layout: Layout) -> Iterator[Finding]:
    for stage, spec in STAGES.items():
        if spec.kind != "train":
            continue
        batch = getattr(recipe, stage).batch_size
        try:
            micro, pieces = layout.fit_to_batch(batch).split_batch(batch)
        except VwlError as error:
            yield Finding(f"{stage} batch", "error", str(error), "choose another --micro-batch or --workers")
            continue
        used = layout.fit_to_batch(batch).workers
        found = f"{batch} images a step: {used} workers x {pieces} x {micro}"
        if used < layout.workers:
            yield Finding(
                f"{stage} batch", "warning", f"{found}; {layout.workers} do not divide it", f"{layout.workers - used} workers idle"
            )
        else:
            yield Finding(f"{stage} batch", "ok", found)


def _memory(recipe: Recipe, index: Index, layout: Layout, there: Resources) -> Finding:
    """Compare the largest training's workers with the memory there is; GPUs keep networks in their own."""
    heaviest, stage = worker_memory(recipe, index, layout)
    found = f"about {heaviest / GIB:.1f} GiB a worker for {stage} (estimate)"
    if layout.gpus_per_worker:
        return Finding("GPU memory", "ok", f"{found}; more with a smaller --micro-batch" if heaviest > 80 * GIB else found)
    needed = layout.workers * (heaviest + BASE_MEMORY)
    if there.memory is not None and needed > there.memory:
        way_out = "lower --micro-batch or --workers"
        return Finding("memory", "warning", f"{found}, {needed / GIB:.1f} in all, and {there.memory / GIB:.1f} free", way_out)
    return Finding("memory", "ok", found)


def worker_memory(recipe: Recipe, index: Index, layout: Layout, stages: Collection[str] = tuple(STAGES)) -> tuple[float, str]:
    """Return an estimate of the bytes that a worker needs for the largest training among `stages` (`BASE_MEMORY` aside), and its name."""
    found = [(0.0, "")]
    for name, cost in costs(recipe, index).items():
        if STAGES[name].kind == "train" and name in stages:
            batch = getattr(recipe, name).batch_size
            at_once = layout.fit_to_batch(batch).micro_batch_size(batch, layout.fit_to_batch(batch).workers)
            found.append((cost.activations * at_once + cost.bytes, name))
    return max(found)


def this_machine(run: Folder) -> Resources:
    """Return what this machine has, and the disk that is free where a run folder is to lie (unknown for a bucket)."""
    disk = None
    if isinstance(run.filesystem, fs.LocalFileSystem):
        place = Path(run.path)
        while not place.exists():
            place = place.parent
        disk = shutil.disk_usage(place).free
    return Resources("this machine", os.cpu_count() or 1, torch.cuda.device_count(), free_memory()[0], disk)
