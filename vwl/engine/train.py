"""Trains a stage with Ray Train: starts workers, restarts them after failures, reports progress and passes on stop requests."""

import os
import threading
import time
import uuid
from typing import Any

import ray
import ray.train
import torch
from ray.exceptions import OutOfMemoryError, RayActorError
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer

from vwl.config.layout import Layout
from vwl.config.networks import batch_size
from vwl.engine.base import OnProgress, Progress
from vwl.engine.board import Leaving, start_board
from vwl.engine.callbacks import BoardCallbacks
from vwl.engine.metrics import STARTS, StageMetrics, run_of, with_progress
from vwl.engine.resources import busy_slots_message, check_worker_slots, worker_resources
from vwl.engine.shared_folder import check_shared
from vwl.errors import Interrupted, VwlError
from vwl.training.build import TrainSpec, build_task
from vwl.training.distributed import is_collective_error, world_size
from vwl.training.loop import TrainResult, train

_COLLECTIVE_TIMEOUT = 300
"""Seconds that a worker waits for the others in a collective operation before it fails."""
_COLLECTIVE_VARIABLE = "VWL_COLLECTIVE_TIMEOUT_S"
"""Environment variable that replaces it."""
_MAX_FAILURES = 10
"""Failures of workers after which Ray Train gives up; each costs the steps since the last checkpoint."""
_DEATHS = (OutOfMemoryError, RayActorError)
"""What Ray raises where a process has died."""
_STOP_SECONDS = 120
"""Time that workers have to save and return after Ctrl-C."""


def fit(spec: TrainSpec, layout: Layout, on_progress: OnProgress) -> TrainResult:
    """Train a stage on the connected cluster, going on from its last checkpoint.

    Workers or nodes that fail are replaced and the training goes on from the last checkpoint; an elastic layout goes on with fewer
    workers meanwhile. Before a node is taken whose leaving was announced (spot instances, `ray drain-node`), all workers save, and go on
    without it. Ctrl-C lets the workers save and return.

    Raises:
        VwlError: the cluster is too small or none of its nodes has the layout's labels, its nodes do not share the folder, workers die
            or hang several times without finishing a step, or the training raised it.
        Interrupted: stopped on request, after a checkpoint.
    """
    layout.split_batch(batch_size(spec.recipe, spec.stage))
    check_worker_slots(layout, layout.min_workers or layout.workers)
    check_shared(spec.folder)
    on_progress = with_progress(on_progress, run_of(spec.folder))
    board = start_board(spec.stage)
    message, step, num_steps = "", 0, 1
    while True:
        if reason := busy_slots_message(layout):
            message = f"{message}; {reason}" if message else reason
        if message:
            on_progress(Progress(spec.stage, step, num_steps, message))
        result = _train(spec, layout, board, on_progress)
        if result is not None and result.finished:
            return result
        leaving = _answer(spec.stage, board.take_leaving.remote())
        if result is None or leaving is None:
            raise Interrupted(f"{spec.stage} stopped")
        message, step, num_steps = _leaving_message(leaving, result.step), result.step, max(num_steps, result.step)


def _leaving_message(leaving: Leaving, step: int) -> str:
    names = ", ".join(node[:6] for node in leaving.nodes)
    when = "" if leaving.deadline is None else f" in {max(0.0, leaving.deadline - time.time()):.0f} s"
    return f"node {names} is about to be taken{when}: saved after step {step}, going on with other nodes"


def _train(spec: TrainSpec, layout: Layout, board: Any, on_progress: OnProgress) -> TrainResult | None:
    """Run the workers once: to the end, until Ctrl-C, or until a node is about to be taken; the last two leave a checkpoint."""
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"spec": spec, "layout": layout, "board": board},
        torch_config=TorchConfig(timeout_s=int(os.environ.get(_COLLECTIVE_VARIABLE, _COLLECTIVE_TIMEOUT))),
        scaling_config=ScalingConfig(
            num_workers=layout.workers if layout.min_workers is None else (layout.min_workers, layout.workers),
            use_gpu=layout.gpus_per_worker > 0,
            resources_per_worker=worker_resources(layout),
            label_selector=dict(layout.trainers_on) or None,
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
    error = _answer(spec.stage, board.error.remote())
    if error:
        raise VwlError(error)
    if "error" in outcome:
        raise _without_traceback(spec.stage, outcome["error"])
    result: TrainResult | None = outcome.get("result")
    return result


def _report_until_end(thread: threading.Thread, board: Any, stage: str, on_progress: OnProgress) -> None:
    while True:
        alive = thread.is_alive()
        for step, num_steps, metrics in _answer(stage, board.drain.remote()):
            on_progress(Progress(stage, step, num_steps, metrics=metrics))
        if not alive:
            return
        time.sleep(0.3)


def _answer(stage: str, answer: Any) -> Any:
    """Return what the board answers.

    Raises:
        VwlError: its process died.
    """
    try:
        return ray.get(answer)
    except _DEATHS as error:
        raise _without_traceback(stage, error) from None


def _without_traceback(stage: str, error: Exception) -> Exception:
    """Return one line for the deaths of processes, and any other exception, a bug, as it is."""
    failures: dict[int, Exception] = getattr(error, "worker_failures", None) or {-1: error}
    if not all(isinstance(failure, _DEATHS) for failure in failures.values()):
        return error
    worker, failure = min(failures.items())
    who = "the process that coordinates the workers" if worker < 0 else f"worker {worker}"
    why = "out of memory" if isinstance(failure, OutOfMemoryError) else " ".join(str(failure).split())[:160]
    return VwlError(f"{stage}: {who} died ({why}); start the command again to go on from the last checkpoint")


def _worker(config: dict[str, Any]) -> TrainResult | None:
    board, rank = config["board"], ray.train.get_context().get_world_rank()
    node = f"{ray.util.get_node_ip_address()} {ray.get_runtime_context().get_node_id()[:6]}"
    if ray.get(board.begin.remote(rank, node)):
        return None
    spec: TrainSpec = config["spec"]
    # Ray keeps an OMP_NUM_THREADS of the environment, and results depend on the number of threads in the last bit.
    torch.set_num_threads(config["layout"].cpus_per_worker)
    stage_metrics = StageMetrics(run_of(spec.folder), spec.stage)
    stage_metrics.count(STARTS)
    try:
        return train(build_task(spec), config["layout"], spec.folder, spec.fingerprint, BoardCallbacks(board, stage_metrics))
    except VwlError as error:
        ray.get(board.set_error.remote(str(error)))
        if world_size() > 1:
            raise  # the others wait in a collective operation; Ray ends the group, and the next start finds the error
        return None
    except Exception as error:
        reason = " ".join(str(error).split())[:160]
        ray.get(board.failed.remote(rank, reason, is_collective_error(error)))
        raise
