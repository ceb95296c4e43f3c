"""The pool of processes of an inference stage: how many there are, on which nodes, and what happens when they die.

The pool starts with the processes that fit into the cluster, and grows while nodes join (Ray Data's autoscaling); it waits for nothing
when nodes leave. Ray restarts a process that dies and repeats its shard, without a limit. The limits are in `CrashWatch`, because Ray
drops its own for Ray Data (`max_restarts`, `max_task_retries`) in 2.64.
"""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import ray
import ray.data
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vwl.config.node_labels import Selector
from vwl.inference.build import PROCESSES_PER_GPU

MAX_BEGINNINGS = 8
"""Times that a shard is begun before it counts as one that no process survives; an image that crashes its process is given up at the
fourth (`vwl.inference.runner`)."""
MAX_DEATHS_AT_START = 6
"""Processes in a row that die before they have loaded their stage, after which no other is tried."""


@dataclass(frozen=True)
class Pool:
    """The size of a pool.

    Attributes:
        least, most: number of processes at the start, and when the cluster has grown.
        gpu_share: GPUs of each process.
    """

    least: int
    most: int
    gpu_share: float

    def strategy(self) -> ray.data.ActorPoolStrategy:
        """Return the pool as Ray Data takes it."""
        return ray.data.ActorPoolStrategy(min_size=self.least, max_size=self.most)


def plan_pool(cpus: int, gpus: int, num_shards: int, max_processes: int | None = None) -> Pool:
    """Return the pool for a number of shards on a cluster that has `cpus` and `gpus` now (0 GPUs: the stage uses none).

    It has one process or more, also where the cluster has no CPUs yet: a waiting process makes Ray's autoscaler add a node.
    """
    fitting, gpu_share = actors(cpus, gpus)
    most = max(1, min(num_shards, max_processes or num_shards))
    return Pool(max(1, min(fitting, most)), most, gpu_share)


def actors(cpus: int, gpus: int) -> tuple[int, float]:
    """Return the number of actors of a stage on `cpus` and `gpus` (0: it uses none), and the share of a GPU that each one takes."""
    if not gpus:
        return cpus, 0.0
    actors_per_gpu = max(1, min(PROCESSES_PER_GPU, cpus // gpus))
    return min(gpus * actors_per_gpu, cpus), 1 / actors_per_gpu


def split_cpus(cpus: int, gpus: int) -> tuple[int, int] | None:
    """Return how many actors with a network and how many without one so many CPUs and GPUs can run at the same time.

    Without GPUs networks get three quarters of the CPUs. None on fewer than two CPUs.
    """
    if cpus < 2:
        return None
    networks = min(actors(cpus, gpus)[0], cpus - 1) if gpus else cpus - max(1, cpus // 4)
    return networks, cpus - networks


def set_inference_nodes(on: Selector) -> None:
    """Let the inference of this process run on nodes with these labels only."""
    ray.data.DataContext.get_current().execution_options.label_selector = dict(on) or None


def inference_nodes() -> Selector:
    """Return the labels of the nodes where this process's inference may run."""
    return ray.data.DataContext.get_current().execution_options.label_selector or {}


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
