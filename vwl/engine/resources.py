"""Worker slots of the connected cluster: how many workers of a layout its nodes can hold, and whether that is enough.

A cluster that is too small for a training or a trial is reported at once, because Ray would wait for ever. A busy cluster is waited
for, with a message. Used by `vwl.engine.train` and `vwl.engine.tune`.
"""

import time
from collections.abc import Iterable, Mapping

from vwl.config.layout import Layout
from vwl.config.node_labels import describe
from vwl.engine.nodes import check_selected, nodes
from vwl.engine.ray_private import available_resources
from vwl.errors import VwlError

_SETTLING_SECONDS = 3.0
"""Time for a stage that has just ended to release its workers' resources."""


def worker_resources(layout: Layout) -> dict[str, float]:
    """Return the Ray resources that one worker of a layout takes on a node."""
    resources: dict[str, float] = {"CPU": layout.cpus_per_worker}
    if layout.gpus_per_worker:
        resources["GPU"] = layout.gpus_per_worker
    return resources


def count_worker_slots(layout: Layout, nodes: Iterable[Mapping[str, float]]) -> int:
    """Return how many workers of a layout fit into the resources of some nodes; a worker does not span nodes."""
    needed = worker_resources(layout)
    return sum(int(min(node.get(kind, 0) // amount for kind, amount in needed.items())) for node in nodes)


def check_worker_slots(layout: Layout, num_workers: int, purpose: str = "the training", option: str = "--workers") -> int:
    """Check that the cluster, when idle, has slots for a number of workers.

    Args:
        layout: resources of each worker.
        num_workers: how many are needed at the same time.
        purpose: what needs them, for the error message.
        option: the command line's option that sets their number, for the error message.

    Returns:
        The worker slots of the idle cluster, on nodes with the layout's labels.

    Raises:
        VwlError: the cluster has fewer slots than are needed on nodes with the layout's labels.
    """
    check_selected(layout.trainers_on, "--trainers-on")
    resources = [node.resources for node in nodes(layout.trainers_on)]
    slots = count_worker_slots(layout, resources)
    if slots >= num_workers:
        return slots
    needed = worker_resources(layout)
    each = " and ".join(f"{amount:g} {kind}{'s' if amount != 1 else ''}" for kind, amount in needed.items())
    available = ", ".join(" + ".join(f"{node.get(kind, 0):g} {kind}s" for kind in needed) for node in resources)
    which = f" with the labels {describe(layout.trainers_on)}" if layout.trainers_on else ""
    raise VwlError(
        f"{purpose} needs {num_workers} worker{'s' if num_workers > 1 else ''} with {each} each and the cluster has slots for {slots} "
        f"(its nodes{which}: {available}); lower {option}, --cpus-per-worker or --gpus-per-worker"
    )


def busy_slots_message(layout: Layout) -> str:
    """Return a message if other jobs hold the worker slots that a training needs to start; an empty string if enough are free."""
    num_workers, deadline = layout.min_workers or layout.workers, time.monotonic() + _SETTLING_SECONDS
    while (free := count_worker_slots(layout, _available(layout))) < num_workers:
        if time.monotonic() > deadline:
            return f"waiting: the cluster is busy, {free} of the {num_workers} worker slots needed are free"
        time.sleep(0.2)
    return ""


def _available(layout: Layout) -> list[dict[str, float]]:
    """Return the free resources of each node where the layout's workers may run."""
    free = available_resources()
    return [free.get(node.node_id, {}) for node in nodes(layout.trainers_on)]
