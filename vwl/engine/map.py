"""Hands the shards of an inference stage to Ray Data: a pool of actors, each with the stage's network, writes them."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import ray
import ray.data
import torch
from ray.util.annotations import RayDeprecationWarning

from vwl.engine.session import cluster_cpus, cluster_gpus
from vwl.engine.shared_folder import check_shared
from vwl.errors import VwlError
from vwl.inference.build import NETWORK_STAGES, PROCESSES_A_GPU, MapSpec, build_stage
from vwl.inference.runner import Shard, process

Report = Callable[[str, int, int, str | dict[str, float]], None]
_NO_PROGRESS_TIMEOUT = 300
_MAX_RETRIES = 7
"""Times that a shard whose process died is tried again: an image that is fatal is given up at the fourth (`vwl.inference.runner`)."""
_MAX_RESTARTS = 20
"""Of an actor."""


def run_shards(spec: MapSpec, shards: list[Shard], images_done: int, report: Report, most: int | None = None) -> None:
    """Run shards through a stage on the connected cluster; `images_done` are counted in the progress from the start.

    As many actors work as `actors` says, but at most `most`.

    Raises:
        VwlError: the cluster's nodes do not share the run folder, or the stage cannot be built or its results cannot be written.
    """
    check_shared(spec.run)
    gpus = cluster_gpus() if spec.stage in NETWORK_STAGES else 0
    pool, share = actors(cluster_cpus(), gpus)
    pool = min(pool, len(shards), most or pool)
    context = ray.data.DataContext.get_current()
    context.print_on_execution_start = False
    context.raise_original_map_exception = True
    context.execution_options.verbose_progress = False
    os.environ.setdefault("RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S", str(_NO_PROGRESS_TIMEOUT))
    total = images_done + sum(len(shard.rows) for shard in shards)
    todo = ray.data.from_items(
        [{"number": s.number, "images": [row.image_id for row in s.rows]} for s in shards], override_num_blocks=len(shards)
    )
    with warnings.catch_warnings():
        # Ray 2.60 has no other way to bound restarts than the arguments that it warns will go in 2.64.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        results = todo.map_batches(
            _Actor,
            fn_constructor_args=(spec,),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=pool),
            # Less than a whole CPU each, so that Ray Data's own small tasks always find a place.
            num_cpus=0.9,
            num_gpus=share,
            max_restarts=_MAX_RESTARTS,
            max_task_retries=_MAX_RETRIES,
        )
    report(spec.stage, images_done, total, "")
    failed = 0
    for batch in results.iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=0):
        for mistake in batch["mistake"]:
            if mistake:
                raise VwlError(str(mistake))
        images_done += int(batch["images"].sum())
        failed += int(batch["failed"].sum())
        report(spec.stage, images_done, total, f"{failed} failed" if failed else "")


def actors(cpus: int, gpus: int) -> tuple[int, float]:
    """Return how many actors a stage has on so many CPUs and GPUs (0: it wants none), and each one's share of a GPU."""
    if not gpus:
        return cpus, 0.0
    sharing = max(1, min(PROCESSES_A_GPU, cpus // gpus))
    return min(gpus * sharing, cpus), 1 / sharing


def split() -> tuple[int, int] | None:
    """Return how many actors of a stage with a network and how many others the connected cluster has room for at the same time.

    Without GPUs networks get three quarters of the CPUs. On fewer than two CPUs: none.
    """
    return split_of(cluster_cpus(), cluster_gpus())


def split_of(cpus: int, gpus: int) -> tuple[int, int] | None:
    """As `split`, of so many CPUs and GPUs."""
    if cpus < 2:
        return None
    networks = min(actors(cpus, gpus)[0], cpus - 1) if gpus else cpus - max(1, cpus // 4)
    return networks, cpus - networks


class _Actor:
    """Builds the stage once and runs shards through it."""

    def __init__(self, spec: MapSpec) -> None:
        torch.set_num_threads(1)  # one actor a CPU; also, the last bit of a convolution depends on the number of threads
        self._out, self._strict, self._mistake = spec.run / spec.stage, spec.strict, ""
        try:
            self._stage = build_stage(spec)
            self._rows = {row.image_id: row for row in self._stage.index.rows}
        except VwlError as error:
            self._mistake = str(error)

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        images, failed, mistake = 0, 0, self._mistake
        for number, image_ids in zip(batch["number"], batch["images"], strict=True):
            if mistake:
                break
            shard = Shard(int(number), tuple(self._rows[image_id] for image_id in image_ids))
            try:
                failed += len(process(self._stage, shard, self._out, self._strict))
            except VwlError as error:
                mistake = str(error)
            images += len(shard.rows)
        return {"images": [images], "failed": [failed], "mistake": [mistake]}
