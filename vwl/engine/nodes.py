"""The nodes of the connected cluster that are there to stay, by their labels, and what they have."""

from collections.abc import Mapping
from dataclasses import dataclass

import ray

from vwl.config.node_labels import Selector, describe, matches
from vwl.engine.ray_private import draining_nodes
from vwl.errors import VwlError

ANYWHERE: Selector = {}


@dataclass(frozen=True)
class Node:
    """A node of the cluster.

    Attributes:
        node_id: Ray's, hexadecimal.
        address: IP address.
        resources: what it has when idle, e.g. `CPU`, `GPU`, `memory` (bytes).
        labels: given at its start.
    """

    node_id: str
    address: str
    resources: Mapping[str, float]
    labels: Mapping[str, str]


def nodes(on: Selector = ANYWHERE) -> list[Node]:
    """Return the living nodes with these labels, without those that are about to leave (`ray.train.get_preemption_info`)."""
    leaving = draining_nodes()
    known = [
        Node(node["NodeID"], node["NodeManagerAddress"], node["Resources"], node.get("Labels", {}))
        for node in ray.nodes()
        if node["Alive"] and node["NodeID"] not in leaving
    ]
    return [node for node in known if matches(on, node.labels)]


def total(kind: str, on: Selector = ANYWHERE) -> float:
    """Return how much of a resource these nodes have when idle."""
    return sum(node.resources.get(kind, 0) for node in nodes(on))


def check_selected(on: Selector, option: str) -> None:
    """Check that a node has the labels that an option asks for.

    Raises:
        VwlError: none has.
    """
    if not on or nodes(on):
        return
    others = {text for node in nodes() if (text := describe({k: v for k, v in sorted(node.labels.items()) if not k.startswith("ray.io/")}))}
    have = f"their labels: {'; '.join(sorted(others)[:5])}" if others else "they have none"
    raise VwlError(
        f"no node of the cluster has the labels {describe(on)} of {option} ({have}); "
        f"start nodes with: ray start --address HEAD:6379 --labels {','.join(f'{key}={value}' for key, value in on.items())}"
    )
