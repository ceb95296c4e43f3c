"""Trains a stage with Ray Train: starts workers, restarts them after failures, reports progress and passes on stop requests."""

import threading
import time
import uuid
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vwl.config.layout import Layout
from vwl.engine.base import OnProgress, Progress
from vwl.engine.metrics import STARTS, StageMetrics, run_of, with_progress
from vwl.engine.resources import busy_slots_message, check_worker_slots, worker_resources
from vwl.engine.shared_folder import check_shared
from vwl.errors import Interrupted, VwlError
from vwl.training.build import TrainSpec, build_task
from vwl.training.distributed import world_size
from vwl.training.loop import Callbacks, Metrics, TrainResult, train

_COLLECTIVE_TIMEOUT = 300
"""Seconds."""
_MAX_FAILURES = 10
"""Failures of workers after which Ray Train gives up; each costs the steps since the last checkpoint."""
_STOP_SECONDS = 120
"""Time that workers have to save and return after Ctrl-C."""


def fit(spec: TrainSpec, layout: Layout, on_progress: OnProgress) -> TrainResult:
    """Train a stage on the connected cluster, going on from its last checkpoint.

    Workers or nodes that fail are replaced and the training goes on from the last checkpoint; an elastic layout goes on with fewer
    workers meanwhile. Ctrl-C lets the workers save and return.

    Raises:
        VwlError: the cluster is too small, its nodes do not share the folder, or the training raised it.
        Interrupted: stopped on request, after a checkpoint.
    """
    layout.split_batch(getattr(spec.recipe, spec.stage).batch_size)
    check_worker_slots(layout, layout.min_workers or layout.workers)
    check_shared(spec.folder)
    on_progress = with_progress(on_progress, run_of(spec.folder))
    if reason := busy_slots_message(layout):
        on_progress(Progress(spec.stage, 0, 1, reason))
    # On the driver's node, so that it lives as long as the driver.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = _Board.options(num_cpus=0, scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"spec": spec, "layout": layout, "board": board},
        torch_config=TorchConfig(timeout_s=_COLLECTIVE_TIMEOUT),
        scaling_config=ScalingConfig(
            num_workers=layout.workers if layout.min_workers is None else (layout.min_workers, layout.workers),
            use_gpu=layout.gpus_per_worker > 0,
            resources_per_worker=worker_resources(layout),
        ),
        run_config=RunConfig(
            # The loop finds its own checkpoints, so every start is a new run for Ray.
            name=f"{spec.stage}-{uuid.uuid4().hex[:8]}",
            storage_path=str(spec.folder / "ray"),
            failure_config=FailureConfig(max_failures=_MAX_FAILURES),
        ),
    )
    outcome: dict[str, Any] = {}

    def run() -> None:
        try:
            outcome["result"] = trainer.fit().return_value
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        _report_until_end(thread, board, spec.stage, on_progress)
    except KeyboardInterrupt:
        # The loop asks before each step, saves, and returns.
        board.stop.remote()
        thread.join(_STOP_SECONDS)
    error = ray.get(board.error.remote())
    if error:
        raise VwlError(error)
    if "error" in outcome:
        raise outcome["error"]
    result: TrainResult | None = outcome.get("result")
    if result is None or not result.finished:
        raise Interrupted(f"{spec.stage} stopped")
    return result


def _report_until_end(thread: threading.Thread, board: Any, stage: str, on_progress: OnProgress) -> None:
    while True:
        alive = thread.is_alive()
        for step, num_steps, metrics in ray.get(board.drain.remote()):
            on_progress(Progress(stage, step, num_steps, metrics=metrics))
        if not alive:
            return
        time.sleep(0.3)


@ray.remote
class _Board:
    """Actor between driver and workers: worker 0 posts its progress, the driver its stop request, any worker a user's error."""

    def __init__(self) -> None:
        self._posts: list[tuple[int, int, Metrics]] = []
        self._stop, self._error = False, ""

    def post(self, step: int, num_steps: int, metrics: Metrics) -> bool:
        """Add progress and return whether to stop."""
        self._posts.append((step, num_steps, metrics))
        return self._stop

    def drain(self) -> list[tuple[int, int, Metrics]]:
        posts, self._posts = self._posts, []
        return posts

    def stop(self) -> None:
        self._stop = True

    def set_error(self, message: str) -> None:
        self._error = self._error or message

    def error(self) -> str:
        return self._error


class _BoardCallbacks(Callbacks):
    """Posts progress without waiting; the answer to an earlier post says whether to stop. Sets the metrics for Prometheus."""

    def __init__(self, board: Any, stage_metrics: StageMetrics) -> None:
        super().__init__(on_step=self._post, should_stop=self._stop_requested)
        self._board, self._stage_metrics = board, stage_metrics
        self._answers: list[Any] = []

    def _post(self, step: int, num_steps: int, metrics: Metrics) -> None:
        self._answers.append(self._board.post.remote(step, num_steps, metrics))
        self._stage_metrics.set_training(metrics)

    def _stop_requested(self) -> bool:
        ready, self._answers = ray.wait(self._answers, num_returns=len(self._answers), timeout=0) if self._answers else ([], [])
        return any(ray.get(ready))


def _worker(config: dict[str, Any]) -> TrainResult | None:
    board = config["board"]
    if ray.get(board.error.remote()):
        return None
    spec: TrainSpec = config["spec"]
    # Ray keeps an OMP_NUM_THREADS of the environment, and results depend on the number of threads in the last bit.
    torch.set_num_threads(config["layout"].cpus_per_worker)
    stage_metrics = StageMetrics(run_of(spec.folder), spec.stage)
    stage_metrics.count(STARTS)
    try:
        return train(build_task(spec), config["layout"], spec.folder, spec.fingerprint, _BoardCallbacks(board, stage_metrics))
    except VwlError as error:
        ray.get(board.set_error.remote(str(error)))
        if world_size() > 1:
            raise  # the others wait in a collective operation; Ray ends the group, and the next start finds the error
        return None
