"""The actor between a training's driver and its workers: progress, stop requests, errors, and what became of workers that failed.

Without torch, so that its process is small and starts fast.
"""

from dataclasses import dataclass
from typing import Any

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

Metrics = dict[str, float]

MAX_IDLE_STARTS = 4
"""Starts of the workers in a row that end before a step is finished, after which the training ends."""


@dataclass(frozen=True)
class Leaving:
    """Nodes with workers that are about to be taken away.

    Attributes:
        nodes: Ray's ids of the nodes, hexadecimal.
        deadline: seconds since 1970; None: not known.
    """

    nodes: tuple[str, ...]
    deadline: float | None


class Board:
    """Worker 0 posts its progress, the driver its stop request, any worker a user's error and that it began, failed, or will lose its node.

    Args:
        stage: for messages.
    """

    def __init__(self, stage: str) -> None:
        self._stage = stage
        self._posts: list[tuple[int, int, Metrics]] = []
        self._stop, self._error = False, ""
        self._leaving: Leaving | None = None
        self._last_step = self._idle_starts = 0
        self._begun: dict[int, str] = {}
        self._failed: dict[int, tuple[str, bool]] = {}

    def begin(self, rank: int, node: str) -> str:
        """Note that a worker begins on a node, and return the error because of which it should not; an empty string: none."""
        if rank in self._begun:  # the workers of the start before have failed
            self._idle_starts += 1
            if self._idle_starts >= MAX_IDLE_STARTS and all(is_collective for _, is_collective in self._failed.values()):
                self.set_error(self._without_progress())
            self._begun, self._failed = {}, {}
        self._begun[rank] = node
        return self._error

    def failed(self, rank: int, reason: str, is_collective: bool) -> None:
        """Note an exception of a worker: one of a collective operation, which others caused, or another, which Ray reports."""
        self._failed[rank] = reason, is_collective

    def _without_progress(self) -> str:
        silent = [f"worker {rank} on node {node} died or hung" for rank, node in sorted(self._begun.items()) if rank not in self._failed]
        others = [f"worker {rank} on node {self._begun.get(rank, '?')}: {reason}" for rank, (reason, _) in sorted(self._failed.items())]
        return (
            f"{self._stage}: {self._idle_starts} starts in a row ended before step {self._last_step + 1} was finished "
            f"({'; '.join([*silent, *others][:4])}); is there enough memory on the nodes, and does their network work (vwl doctor)?"
        )

    def post(self, step: int, num_steps: int, metrics: Metrics) -> bool:
        """Add progress and return whether to stop."""
        if step > self._last_step:
            self._last_step, self._idle_starts = step, 0
        self._posts.append((step, num_steps, metrics))
        return self._stop

    def drain(self) -> list[tuple[int, int, Metrics]]:
        """Return the progress since the last call."""
        posts, self._posts = self._posts, []
        return posts

    def stop(self) -> None:
        """Ask the workers to save and return."""
        self._stop = True

    def set_error(self, message: str) -> None:
        """Set the error that ends the training, if there is none yet."""
        self._error = self._error or message

    def error(self) -> str:
        """Return the error that ends the training, or an empty string."""
        return self._error

    def leave(self, leaving: Leaving) -> None:
        """Note that the workers save and return because nodes are about to be taken."""
        self._leaving = leaving

    def take_leaving(self) -> Leaving | None:
        """Return why the workers have saved and returned, if it was for nodes that are about to be taken, and forget it."""
        leaving, self._leaving = self._leaving, None
        self._begun, self._failed = {}, {}
        return None if self._stop else leaving


def start_board(stage: str) -> Any:
    """Start a `Board` as an actor on this node, so that it lives as long as the driver; it needs no CPU. Return its handle."""
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return ray.remote(num_cpus=0)(Board).options(scheduling_strategy=here).remote(stage)
