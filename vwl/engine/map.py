"""Runs the shards of an inference stage with Ray Data: a pool of actors, each with the stage's network, writes the results."""

import os
from typing import Any

import ray
import ray.data
import torch
from ray.data.exceptions import ExecutionTimeoutError

from vwl.config.node_labels import describe
from vwl.engine.base import OnProgress, Progress
from vwl.engine.crash_watch import start_watch
from vwl.engine.metrics import FAILED, IMAGES, STARTS, StageMetrics, with_progress
from vwl.engine.nodes import check_selected
from vwl.engine.pool import inference_nodes, plan_pool, split_cpus
from vwl.engine.session import cluster_cpus, cluster_gpus
from vwl.engine.shared_folder import check_shared
from vwl.engine.stored_rows import StoredRows, StoredShard
from vwl.errors import VwlError
from vwl.inference.build import NETWORK_STAGES, InferenceSpec, hide_gpus
from vwl.inference.runner import Shard

_NO_PROGRESS_TIMEOUT = 300
"""Seconds without a finished task after which Ray Data ends a stage; Ray's own default is half an hour."""
_NO_PROGRESS_VARIABLE = "RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S"


def run_shards(
    spec: InferenceSpec, shards: list[Shard], images_done: int, on_progress: OnProgress, max_processes: int | None = None
) -> None:
    """Run shards through a stage on the connected cluster; `images_done` images count as done from the start.

    Raises:
        VwlError: the cluster's nodes do not share the run folder, the stage cannot be built, or its results cannot be written.
    """
    check_shared(spec.run)
    on_progress, stage_metrics = with_progress(on_progress, spec.run.path), StageMetrics(spec.run.path, spec.stage)
    on = inference_nodes()
    check_selected(on, "--inference-on")
    cpus, gpus = cluster_cpus(on), cluster_gpus(on) if spec.stage in NETWORK_STAGES else 0
    pool = plan_pool(cpus, gpus, len(shards), max_processes)
    context = ray.data.DataContext.get_current()
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.execution_options.verbose_progress = False
    limit_waiting(context)
    total = images_done + sum(len(shard.rows) for shard in shards)
    stored = StoredRows(shards)
    todo = ray.data.from_items([vars(shard) for shard in stored.shards], override_num_blocks=len(shards))
    watch = start_watch(spec.stage)
    results = todo.map_batches(
        _Actor,
        fn_constructor_args=(spec, stored, watch),
        batch_size=1,
        compute=pool.strategy(),
        num_cpus=1,
        num_gpus=pool.gpu_share,
    )
    on_progress(Progress(spec.stage, images_done, total, "" if cpus else "waiting: no node with CPUs for inference has joined the cluster"))
    failed = 0
    try:
        for batch in results.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
            for error in batch["error"]:
                if error:
                    raise VwlError(str(error))
            images_done += int(batch["images"].sum())
            failed += int(batch["failed"].sum())
            stage_metrics.count(FAILED, int(batch["failed"].sum()))
            on_progress(Progress(spec.stage, images_done, total, f"{failed} failed" if failed else ""))
    except ExecutionTimeoutError:
        raise VwlError(_no_progress(spec.stage, context.execution_no_progress_timeout_s)) from None


def _no_progress(stage: str, seconds: float) -> str:
    """Return the error message for a stage that was ended because nothing was finished for so long."""
    on = inference_nodes()
    where = f" with the labels {describe(on)} of --inference-on" if on else ""
    return (
        f"{stage}: nothing was finished in {seconds:.0f} s; the cluster has {cluster_cpus(on)} CPUs{where}: are there none, are they busy, "
        f"or does an image take longer ({_NO_PROGRESS_VARIABLE} sets the limit)?"
    )


def limit_waiting(context: ray.data.DataContext) -> None:
    """Let Ray Data end an execution without progress after `_NO_PROGRESS_TIMEOUT`, unless the user has set another time."""
    if _NO_PROGRESS_VARIABLE not in os.environ:  # Ray reads it when it is imported
        context.execution_no_progress_timeout_s = _NO_PROGRESS_TIMEOUT


def split_processes() -> tuple[int, int] | None:
    """Return how many actors with a network and how many without one the connected cluster can run at the same time, as `split_cpus`."""
    on = inference_nodes()
    return split_cpus(cluster_cpus(on), cluster_gpus(on))


class _Actor:
    """Builds the stage once and runs shards through it."""

    def __init__(self, spec: InferenceSpec, stored: StoredRows, watch: Any) -> None:
        """Load the stage; `watch` is the pool's `CrashWatch`."""
        self._metrics = StageMetrics(spec.run.path, spec.stage)
        self._metrics.count(STARTS)
        here = ray.get_runtime_context()
        self._watch, self._node = watch, f"{ray.util.get_node_ip_address()} {here.get_node_id()[:6]}"
        hide_gpus(spec.stage)
        torch.set_num_threads(1)  # one actor a CPU; results depend on the number of threads in the last bit
        self._stored = stored
        self._error: str = ray.get(watch.building.remote(here.get_actor_id(), self._node))
        if self._error:
            return
        try:
            self._process = spec.processor()
        except VwlError as error:
            self._error = str(error)
        watch.built.remote(here.get_actor_id())

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        images, failed, message = 0, 0, self._error
        for values in zip(*(batch[name] for name in ("number", "block", "first", "size")), strict=True):
            message = message or ray.get(self._watch.begin.remote(int(values[0]), self._node))
            if message:
                break
            shard = self._stored.read(StoredShard(*map(int, values)))
            try:
                failed += len(self._process(shard))
            except VwlError as error:
                message = str(error)
            images += len(shard.rows)
        self._metrics.count(IMAGES, images)
        return {"images": [images], "failed": [failed], "error": [message]}
