"""Check whether the connected cluster has slots for a training's workers: the CPUs and GPUs that one worker needs, on one node.

`engine/train.py` calls this before it starts Ray Train, which waits for ever where a cluster is too small. Here a cluster that is too
small is an error; for one that is busy, the training waits and a message says so.
"""

import time
from collections.abc import Iterable, Mapping

import ray
from ray._private.state import available_resources_per_node

from vwl.config.layout import Layout
from vwl.errors import VwlError

_RELEASE_SECONDS = 3.0
"""Time in which Ray releases the resources of a stage that has just ended."""


def worker_resources(layout: Layout) -> dict[str, float]:
    """Return the resources that Ray reserves for one worker: CPUs, and GPUs if the layout has them."""
    resources: dict[str, float] = {"CPU": layout.cpus_per_worker}
    if layout.gpus_per_worker:
        resources["GPU"] = layout.gpus_per_worker
    return resources


def check_worker_slots(layout: Layout) -> None:
    """Check that the nodes of the cluster, when idle, can hold the smallest number of workers that a layout allows.

    Raises:
        VwlError: the cluster is too small.
    """
    wanted, fewest = worker_resources(layout), layout.min_workers or layout.workers
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    slots = _count_slots(wanted, nodes)
    if slots >= fewest:
        return
    each = " and ".join(f"{amount:g} {kind}{'s' if amount != 1 else ''}" for kind, amount in wanted.items())
    has = ", ".join(" + ".join(f"{node.get(kind, 0):g} {kind}s" for kind in wanted) for node in nodes)
    raise VwlError(
        f"{fewest} worker{'s' if fewest > 1 else ''} of {each} each are asked for and the cluster has room for {slots} "
        f"(its nodes: {has}); lower --workers, --cpus-per-worker or --gpus-per-worker"
    )


def busy_worker_slots(layout: Layout) -> str:
    """Return a message if other work occupies the slots that the workers of a layout need, or an empty string."""
    fewest, deadline = layout.min_workers or layout.workers, time.monotonic() + _RELEASE_SECONDS
    while (free := _count_slots(worker_resources(layout), available_resources_per_node().values())) < fewest:
        if time.monotonic() > deadline:
            return f"waiting: the cluster is busy, {free} of the {fewest} worker slots that are needed are free"
        time.sleep(0.2)
    return ""


def _count_slots(wanted: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    return sum(int(min(node.get(kind, 0) // amount for kind, amount in wanted.items())) for node in nodes)
