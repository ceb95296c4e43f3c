"""Places for a training's workers on the connected cluster: whether there can ever be enough, and what a training waits for.

A cluster that is too small is refused at once, as Ray would wait for ever. One that is busy is waited for, and the user is told.
"""

import time
from collections.abc import Iterable, Mapping

import ray
from ray._private.state import available_resources_per_node

from vwl.config.layout import Layout
from vwl.errors import VwlError

_SETTLING_SECONDS = 3.0
"""Until a stage that has just ended has given back its places."""


def place(layout: Layout) -> dict[str, float]:
    """Return what one worker takes of a node."""
    resources: dict[str, float] = {"CPU": layout.cpus_per_worker}
    if layout.gpus_per_worker:
        resources["GPU"] = layout.gpus_per_worker
    return resources


def check_places(layout: Layout) -> None:
    """Check that the cluster's nodes, were they idle, have places for the fewest workers of a layout.

    Raises:
        VwlError: they have not.
    """
    wanted, fewest = place(layout), layout.min_workers or layout.workers
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    places = _count(wanted, nodes)
    if places >= fewest:
        return
    each = " and ".join(f"{amount:g} {kind}{'s' if amount != 1 else ''}" for kind, amount in wanted.items())
    there = ", ".join(" + ".join(f"{node.get(kind, 0):g} {kind}s" for kind in wanted) for node in nodes)
    raise VwlError(
        f"{fewest} worker{'s' if fewest > 1 else ''} of {each} each are asked for and the cluster has places for {places} "
        f"(its nodes: {there}); lower --workers, --cpus-per-worker or --gpus-per-worker"
    )


def lacking_places(layout: Layout) -> str:
    """Return in words that others hold the places that the fewest workers of a layout need, or an empty string."""
    fewest, deadline = layout.min_workers or layout.workers, time.monotonic() + _SETTLING_SECONDS
    while (free := _count(place(layout), available_resources_per_node().values())) < fewest:
        if time.monotonic() > deadline:
            return f"waits: the cluster is busy, {free} of the {fewest} places that are needed are free"
        time.sleep(0.2)
    return ""


def _count(wanted: Mapping[str, float], nodes: Iterable[Mapping[str, float]]) -> int:
    return sum(int(min(node.get(kind, 0) // amount for kind, amount in wanted.items())) for node in nodes)
