"""The limits of deaths in a pool of inference: how often a shard is begun, and processes die while they load their stage.

Ray drops its own for Ray Data (`max_restarts`, `max_task_retries`) in 2.64. Without torch, so that its process is small and starts fast.
"""

from collections import Counter
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

MAX_BEGINNINGS = 8
"""Times that a shard is begun before it counts as one that no process survives; an image that crashes its process is given up at the
fourth (`vwl.inference.runner`)."""
MAX_DEATHS_AT_START = 6
"""Processes in a row that die before they have loaded their stage, after which no other is tried."""


class CrashWatch:
    """Counts the deaths of a pool's processes; an actor on the driver's node, and its counts end with the driver."""

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._building: dict[str, str] = {}
        self._deaths_at_start = 0
        self._beginnings: Counter[int] = Counter()
        self._last_node: dict[int, str] = {}

    def building(self, actor: str, node: str) -> str:
        """Note that an actor loads its stage, and return why it should not: an empty string, or a line for the user."""
        if actor in self._building:  # it was restarted
            self._deaths_at_start += 1
        last = self._building.get(actor, node)
        self._building[actor] = node
        if self._deaths_at_start < MAX_DEATHS_AT_START:
            return ""
        return (
            f"{self._stage}: {self._deaths_at_start} processes in a row died while they loaded the stage, the last on node {last}; "
            "is there enough memory on it, and do its packages fit together (vwl doctor)?"
        )

    def built(self, actor: str) -> None:
        """Note that an actor has loaded its stage."""
        self._building.pop(actor, None)
        self._deaths_at_start = 0

    def begin(self, shard: int, node: str) -> str:
        """Note that a shard is begun, and return why it should not: an empty string, or a line for the user."""
        times, last = self._beginnings[shard], self._last_node.get(shard, node)
        self._beginnings[shard] += 1
        self._last_node[shard] = node
        if times < MAX_BEGINNINGS:
            return ""
        return (
            f"{self._stage}: {times} processes died in shard {shard}, the last on node {last}; is there enough memory on it (vwl doctor)? "
            "Start the command again to go on with the other shards"
        )


def start_watch(stage: str) -> Any:
    """Start the `CrashWatch` of a stage as an actor on this node, which needs no CPU; return its handle."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(CrashWatch).options(scheduling_strategy=here).remote(stage)
