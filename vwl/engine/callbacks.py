"""A training worker's callbacks: progress and stop requests through the board, and the question whether a node is about to be taken."""

from collections.abc import Mapping
from typing import Any

import ray
import ray.train

from vwl.engine.board import Leaving
from vwl.engine.metrics import StageMetrics
from vwl.training.loop import Callbacks

_PREEMPTION_STEPS = 5
"""Steps between questions whether a node is about to be taken, which all workers ask together."""


class BoardCallbacks(Callbacks):
    """A worker's callbacks: they post without waiting, and stop the loop on request or before a worker's node is taken."""

    def __init__(self, board: Any, stage_metrics: StageMetrics) -> None:
        super().__init__(on_step=self._post, should_stop=self._should_stop)
        self._board, self._stage_metrics = board, stage_metrics
        self._answers: list[Any] = []
        self._calls = 0

    def _post(self, step: int, num_steps: int, metrics: Mapping[str, float]) -> None:
        self._answers.append(self._board.post.remote(step, num_steps, metrics))
        self._stage_metrics.set_training(metrics)

    def _should_stop(self) -> bool:
        return self._is_leaving() or self._stop_requested()

    def _stop_requested(self) -> bool:
        ready, self._answers = ray.wait(self._answers, num_returns=len(self._answers), timeout=0) if self._answers else ([], [])
        return any(ray.get(ready))

    def _is_leaving(self) -> bool:
        """Return whether the node of any worker is about to be taken; every worker asks at the same steps."""
        self._calls += 1
        if self._calls % _PREEMPTION_STEPS:
            return False
        info = ray.train.get_preemption_info()
        if info is None:
            return False
        deadline = None if info.deadline_ms is None else info.deadline_ms / 1000
        ray.get(self._board.leave.remote(Leaving(tuple(info.preempted_node_ids), deadline)))
        return True
