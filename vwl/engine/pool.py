"""The pool of processes of an inference stage: how many there are, on which nodes, and what happens when they die.

The pool starts with the processes that fit into the cluster, and grows while nodes join (Ray Data's autoscaling); it waits for nothing
when nodes leave. Ray restarts a process that dies and repeats its shard, without a limit; the limits are in `vwl.engine.crash_watch`.
"""

from dataclasses import dataclass

import ray.data

from vwl.config.node_labels import Selector
from vwl.inference.build import PROCESSES_PER_GPU


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
