"""Runs the shards of an inference stage with Ray Data: a pool of actors, each with the stage's network, writes the results."""

import os
import warnings
from typing import Any

import ray
import ray.data
import torch
from ray.util.annotations import RayDeprecationWarning

from vwl.engine.base import OnProgress, Progress
from vwl.engine.metrics import FAILED, IMAGES, STARTS, StageMetrics, with_progress
from vwl.engine.session import cluster_cpus, cluster_gpus
from vwl.engine.shared_folder import check_shared
from vwl.errors import VwlError
from vwl.inference.build import NETWORK_STAGES, PROCESSES_PER_GPU, InferenceSpec, build_stage, hide_gpus
from vwl.inference.runner import Shard, process

_NO_PROGRESS_TIMEOUT = 300
"""Seconds without a finished task after which Ray Data ends a stage; Ray's own default is half an hour."""
_NO_PROGRESS_VARIABLE = "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S"
_MAX_RETRIES = 7
"""Retries of a shard whose process died; an image that crashes it is given up at the fourth (`vwl.inference.runner`)."""
_MAX_RESTARTS = 20
"""Restarts of an actor."""


def run_shards(
    spec: InferenceSpec, shards: list[Shard], images_done: int, on_progress: OnProgress, max_processes: int | None = None
) -> None:
    """Run shards through a stage on the connected cluster; `images_done` images count as done from the start.

    Raises:
        VwlError: the cluster's nodes do not share the run folder, the stage cannot be built, or its results cannot be written.
    """
    check_shared(spec.run)
    on_progress, stage_metrics = with_progress(on_progress, spec.run.path), StageMetrics(spec.run.path, spec.stage)
    gpus = cluster_gpus() if spec.stage in NETWORK_STAGES else 0
    num_actors, gpu_share = actors(cluster_cpus(), gpus)
    num_actors = min(num_actors, len(shards), max_processes or num_actors)
    context = ray.data.DataContext.get_current()
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.execution_options.verbose_progress = False
    limit_waiting(context)
    total = images_done + sum(len(shard.rows) for shard in shards)
    todo = ray.data.from_items(
        [{"number": s.number, "images": [row.image_id for row in s.rows]} for s in shards], override_num_blocks=len(shards)
    )
    with warnings.catch_warnings():
        # Ray 2.60 bounds restarts only by arguments that it says will be removed in 2.64.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        results = todo.map_batches(
            _Actor,
            fn_constructor_args=(spec,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=num_actors),
            # Less than a whole CPU, so that Ray Data's own small tasks can always be scheduled.
            num_cpus=0.9,
            num_gpus=gpu_share,
            max_restarts=_MAX_RESTARTS,
            max_task_retries=_MAX_RETRIES,
        )
    on_progress(Progress(spec.stage, images_done, total))
    failed = 0
    for batch in results.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        for error in batch["error"]:
            if error:
                raise VwlError(str(error))
        images_done += int(batch["images"].sum())
        failed += int(batch["failed"].sum())
        stage_metrics.count(FAILED, int(batch["failed"].sum()))
        on_progress(Progress(spec.stage, images_done, total, f"{failed} failed" if failed else ""))


def limit_waiting(context: ray.data.DataContext) -> None:
    """Let Ray Data end an execution without progress after `_NO_PROGRESS_TIMEOUT`, unless the user has set another time."""
    if _NO_PROGRESS_VARIABLE not in os.environ:  # Ray reads it when it is imported
        context.execution_no_progress_timeout_s = _NO_PROGRESS_TIMEOUT


def actors(cpus: int, gpus: int) -> tuple[int, float]:
    """Return the number of actors of a stage on `cpus` and `gpus` (0: it uses none), and the share of a GPU that each one takes."""
    if not gpus:
        return cpus, 0.0
    actors_per_gpu = max(1, min(PROCESSES_PER_GPU, cpus // gpus))
    return min(gpus * actors_per_gpu, cpus), 1 / actors_per_gpu


def split_processes() -> tuple[int, int] | None:
    """Return how many actors with a network and how many without one the connected cluster can run at the same time.

    Without GPUs networks get three quarters of the CPUs. None on fewer than two CPUs.
    """
    return split_cpus(cluster_cpus(), cluster_gpus())


def split_cpus(cpus: int, gpus: int) -> tuple[int, int] | None:
    """Return `split_processes` for so many CPUs and GPUs."""
    if cpus < 2:
        return None
    networks = min(actors(cpus, gpus)[0], cpus - 1) if gpus else cpus - max(1, cpus // 4)
    return networks, cpus - networks


class _Actor:
    """Builds the stage once and runs shards through it."""

    def __init__(self, spec: InferenceSpec) -> None:
        self._metrics = StageMetrics(spec.run.path, spec.stage)
        self._metrics.count(STARTS)
        hide_gpus(spec.stage)
        torch.set_num_threads(1)  # one actor a CPU; results depend on the number of threads in the last bit
        self._out, self._strict, self._error = spec.run / spec.stage, spec.strict, ""
        try:
            self._stage = build_stage(spec)
            self._rows = {row.image_id: row for row in self._stage.index.rows}
        except VwlError as error:
            self._error = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        images, failed, message = 0, 0, self._error
        for number, image_ids in zip(batch["number"], batch["images"], strict=True):
            if message:
                break
            shard = Shard(int(number), tuple(self._rows[image_id] for image_id in image_ids))
            try:
                failed += len(process(self._stage, shard, self._out, self._strict))
            except VwlError as error:
                message = str(error)
            images += len(shard.rows)
        self._metrics.count(IMAGES, images)
        return {"images": [images], "failed": [failed], "error": [message]}
