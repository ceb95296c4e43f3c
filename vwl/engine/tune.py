"""Runs the tasks of a search on Ray Tune: how many at a time, early stopping, suggested samples. Each task trains through Ray Train.

A task's own process holds no CPU: its training's workers hold them. Only as many tasks run at a time as their workers fit into the
cluster, so that none waits for another. Tune's files are not used to resume: the state of a trial is in its run folder, and a
resumed search is a new Tune run of the trials that are left. Where a task's process is killed, Ray Train's own cleaner releases
its placement group, which needs the dashboard (`session(..., dashboard=True)`).
"""

import logging
import os
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search import Searcher

from vwl.config.layout import Layout
from vwl.engine.resources import check_worker_slots
from vwl.engine.search_types import RunTask, SearchCallbacks
from vwl.engine.session import cluster_memory, session
from vwl.engine.trainables import ENDED, EPOCH, EPOCH_SCORE, EVENT, STOP_SECONDS, ListedTask, MapActors, SampledTask
from vwl.errors import Interrupted, VwlError

_MAX_FAILURES = 2
"""How often a task's own process is started again after it died; failed workers are Ray Train's business."""
_TASK_MEMORY = 2**20
"""Bytes of logical memory that a task's own process reserves: Ray wants some resource, and its workers need all the CPUs."""
_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_worker_maximum_startup_concurrency": "32",
}
"""No log files, results without a metric allowed, Ctrl-C handled here, and no warning about a task's seven processes."""


@contextmanager
def tune_session(address: str | None, cpus: int | None = None) -> Iterator[None]:
    """Open a session for searches: `vwl.engine.session.session` with the dashboard and Tune's settings."""
    for key, value in _TUNE_SETTINGS.items():
        os.environ.setdefault(key, value)
    with session(address, cpus, dashboard=True):
        for logger in ("ray.tune", "ray.train"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        yield


def fitting_tasks(layout: Layout) -> int:
    """Return how many tasks with trainings of this layout fit into the idle cluster at a time.

    Raises:
        VwlError: not even one fits.
    """
    return check_worker_slots(layout, layout.workers, "a trial", "--workers-per-trial") // layout.workers


def concurrent_tasks(layout: Layout, requested: int | None, memory: float) -> int:
    """Return how many tasks to run at a time: as many as requested, or as many as fit.

    Without a request, tasks on CPUs are also limited by the cluster's memory; GPUs have their own.

    Args:
        layout: of the trainings.
        requested: tasks at a time; none: as many as fit.
        memory: bytes that a task needs.

    Raises:
        VwlError: more are requested than fit, or not even one fits.
    """
    fitting = fitting_tasks(layout)
    if requested is not None and requested > fitting:
        raise VwlError(
            f"--concurrent asks for {requested} trials at a time and the cluster has worker slots for {fitting}; "
            "lower --concurrent or use --concurrent auto"
        )
    in_memory = fitting if layout.gpus_per_worker else int(cluster_memory() // memory)
    return requested or max(1, min(fitting, in_memory))


def run_tasks(
    tasks: Mapping[str, Any], run_task: RunTask, layout: Layout, concurrent: int, storage: str, callbacks: SearchCallbacks
) -> None:
    """Run every task in a Tune trial of its own.

    Args:
        tasks: by name; picklable.
        run_task: runs a task in its own process.
        layout: of the trainings.
        concurrent: tasks at a time.
        storage: folder for Ray's own files.
        callbacks: called in this process.

    Raises:
        Interrupted: stopped by Ctrl-C; the trials have saved.
    """
    _run(
        tune.with_parameters(ListedTask, tasks=dict(tasks), run_task=run_task, actors=MapActors(layout)),
        {"task": tune.grid_search(list(tasks))},
        tune.TuneConfig(num_samples=1, max_concurrent_trials=concurrent),
        storage,
        lambda trial: trial.config["task"],
        callbacks,
    )


def run_samples(
    suggester: Searcher,
    build: Callable[[dict[str, Any]], Any],
    num_samples: int,
    scheduler: ASHAScheduler | None,
    run_task: RunTask,
    layout: Layout,
    concurrent: int,
    storage: str,
    callbacks: SearchCallbacks,
) -> None:
    """Run the tasks of samples that a searcher suggests; other arguments and errors are those of `run_tasks`.

    Args:
        suggester: its configurations have the task's `name`.
        build: builds a task from a configuration, in the task's process; picklable.
        num_samples: how many samples to run.
        scheduler: early stopping, see `successive_halving`; none: every trial runs to its end.
    """
    _run(
        tune.with_parameters(SampledTask, build=build, run_task=run_task, actors=MapActors(layout)),
        {},
        tune.TuneConfig(num_samples=num_samples, max_concurrent_trials=concurrent, search_alg=suggester, scheduler=scheduler),
        storage,
        lambda trial: trial.config["name"],
        callbacks,
    )


def successive_halving(max_epochs: int, grace_epochs: int, keep: float) -> ASHAScheduler:
    """Return early stopping by asynchronous successive halving over the scores of epochs.

    Args:
        max_epochs: no trial is stopped after this epoch.
        grace_epochs: no trial is stopped before this epoch.
        keep: share of the trials that continues at a rung.
    """
    return ASHAScheduler(
        time_attr=EPOCH,
        metric=EPOCH_SCORE,
        mode="max",
        max_t=max_epochs,
        stop_last_trials=False,  # after their last epoch, their maps are still to be made and scored
        grace_period=grace_epochs,
        reduction_factor=1 / keep,
    )


def _run(
    trainable: Any, param_space: dict[str, Any], tune_config: Any, storage: str, name: Callable[[Any], str], callbacks: SearchCallbacks
) -> None:
    stopper = _Stopper()
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([{"memory": _TASK_MEMORY}])),
        param_space=param_space,
        tune_config=tune_config,
        run_config=tune.RunConfig(
            storage_path=storage,
            verbose=0,
            stop=stopper,
            callbacks=[_TuneCallback(name, callbacks, stopper)],
            failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    errors: list[Exception] = []

    def fit() -> None:
        try:
            tuner.fit()
        except Exception as error:
            errors.append(error)

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except KeyboardInterrupt:
        stopper.stopped = True
        thread.join(STOP_SECONDS + 10)
        raise Interrupted("search stopped") from None
    if errors:
        raise errors[0]


class _Stopper(tune.Stopper):
    """Ends all Tune trials once `stopped` is set."""

    stopped = False

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.stopped


class _TuneCallback(tune.Callback):
    """Translates Tune's callbacks into those of a search."""

    def __init__(self, name: Callable[[Any], str], callbacks: SearchCallbacks, stopper: _Stopper) -> None:
        self._name, self._callbacks, self._stopper = name, callbacks, stopper

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its callbacks with its settings, which are never read

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._callbacks.on_start(self._name(trial))

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any) -> None:
        if EVENT in result:
            self._callbacks.on_event(self._name(trial), result[EVENT])

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        if ENDED not in (trial.last_result or {}) and not self._stopper.stopped:
            self._callbacks.on_early_stop(self._name(trial))

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_error()
        lines = str(error).strip().splitlines() if error else []
        self._callbacks.on_crash(self._name(trial), lines[-1] if lines else "the trial's process died")
