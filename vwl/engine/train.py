"""Hands the training loop to Ray Train: workers, restarts after failures, progress and stop requests."""

import threading
import time
import uuid
from collections.abc import Callable
from typing import Any

import ray
import ray.train
import torch
from ray.train import FailureConfig, RunConfig, ScalingConfig
from ray.train.torch import TorchConfig, TorchTrainer
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vwl.config.layout import Layout
from vwl.engine.resources import check_places, lacking_places, place
from vwl.engine.shared_folder import check_shared
from vwl.errors import Interrupted, VwlError
from vwl.training.build import TrainSpec, build_task
from vwl.training.distributed import world_size
from vwl.training.loop import Control, Figures, train

Report = Callable[[str, int, int, str | dict[str, float]], None]
_COLLECTIVE_TIMEOUT = 300
_MAX_FAILURES = 10
"""Deaths of workers that one start outlives; each costs the steps since the last checkpoint."""
_STOP_PATIENCE = 120


def fit(spec: TrainSpec, layout: Layout, report: Report) -> dict[str, Any]:
    """Train a stage on the connected cluster, going on from its last checkpoint; return the loop's result.

    Workers or nodes that die are replaced and the training goes on from the last checkpoint; an elastic layout goes on with
    fewer workers meanwhile. Ctrl-C lets the workers save and leave.

    Raises:
        VwlError: the cluster is too small, its nodes do not share the folder, or the training met a user's mistake.
        Interrupted: it was stopped, and saved.
    """
    layout.pieces(getattr(spec.recipe, spec.stage).batch_size)
    check_places(layout)
    check_shared(spec.folder)
    if reason := lacking_places(layout):
        report(spec.stage, 0, 1, reason)
    # Beside the driver: on another node it would die with that.
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    board = _Board.options(num_cpus=0, scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    trainer = TorchTrainer(
        _worker,
        train_loop_config={"spec": spec, "layout": layout, "board": board},
        torch_config=TorchConfig(timeout_s=_COLLECTIVE_TIMEOUT),
        scaling_config=ScalingConfig(
            num_workers=layout.workers if layout.min_workers is None else (layout.min_workers, layout.workers),
            use_gpu=layout.gpus_per_worker > 0,
            resources_per_worker=place(layout),
        ),
        run_config=RunConfig(
            # The loop finds its own checkpoints; to Ray every start is a new run.
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
        _watch(thread, board, spec.stage, report)
    except KeyboardInterrupt:
        # The loop asks between steps; it saves and returns like a finished training.
        board.stop.remote()
        thread.join(_STOP_PATIENCE)
    mistake = ray.get(board.mistake.remote())
    if mistake:
        raise VwlError(mistake)
    if "error" in outcome:
        raise outcome["error"]
    result = outcome.get("result")
    if result is None or not result["finished"]:
        raise Interrupted(f"{spec.stage} stopped")
    return dict(result)


def _watch(thread: threading.Thread, board: Any, stage: str, report: Report) -> None:
    while True:
        alive = thread.is_alive()
        for step, total, figures in ray.get(board.drain.remote()):
            report(stage, step, total, figures)
        if not alive:
            return
        time.sleep(0.3)


@ray.remote
class _Board:
    """Where worker 0 writes its progress and reads whether to stop."""

    def __init__(self) -> None:
        self._news: list[tuple[int, int, Figures]] = []
        self._stop, self._mistake = False, ""

    def post(self, step: int, total: int, figures: Figures) -> bool:
        self._news.append((step, total, figures))
        return self._stop

    def drain(self) -> list[tuple[int, int, Figures]]:
        news, self._news = self._news, []
        return news

    def stop(self) -> None:
        self._stop = True

    def report_mistake(self, message: str) -> None:
        self._mistake = self._mistake or message

    def mistake(self) -> str:
        return self._mistake


class _BoardControl(Control):
    """Posts without waiting; the answer to an earlier post says whether to stop."""

    def __init__(self, board: Any) -> None:
        super().__init__(progress=self._post, stop_requested=self._asked)
        self._board = board
        self._answers: list[Any] = []

    def _post(self, step: int, total: int, figures: Figures) -> None:
        self._answers.append(self._board.post.remote(step, total, figures))

    def _asked(self) -> bool:
        ready, self._answers = ray.wait(self._answers, num_returns=len(self._answers), timeout=0) if self._answers else ([], [])
        return any(ray.get(ready))


def _worker(config: dict[str, Any]) -> dict[str, Any] | None:
    board = config["board"]
    if ray.get(board.mistake.remote()):
        return None
    spec: TrainSpec = config["spec"]
    # Ray leaves an OMP_NUM_THREADS of the environment as it is, and the last bit depends on the number of threads.
    torch.set_num_threads(config["layout"].cpus_per_worker)
    try:
        return train(build_task(spec), config["layout"], spec.folder, spec.fingerprint, _BoardControl(board))
    except VwlError as error:
        ray.get(board.report_mistake.remote(str(error)))
        if world_size() > 1:
            raise  # the others wait in a collective operation; Ray ends the group, and the next start finds the mistake
        return None
