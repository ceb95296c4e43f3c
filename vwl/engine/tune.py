"""Hands the trials of a search to Ray Tune: places, early stopping, suggestions; each trial trains through Ray Train.

A trial's own process holds no CPU: its training's workers take them, and as many trials run at a time as their workers fit into
the cluster, so that none can wait for another. Tune's files are not used to resume: what a trial has done is in its run folder, and
a search is begun anew with the trials that are left. A trial that is stopped early asks its training to save and leave before its
process ends, so that its placement group is given back at once; where the process is killed, Ray Train's own cleaner does it, which
needs the dashboard (`session(..., dashboard=True)`).
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler

from vwl.config.layout import Layout
from vwl.engine import local, map, train
from vwl.engine.base import OnProgress
from vwl.engine.session import cluster_gpus, cluster_memory, session
from vwl.errors import Interrupted, VwlError
from vwl.inference.build import InferenceSpec
from vwl.inference.runner import Shard

News = dict[str, Any]
Watch = Callable[[str, str, News], None]
_NEWS_EVERY = 1.0
"""Seconds between a trial's progress lines."""
_STOP_PATIENCE = 60
"""Seconds that a trial has to save and leave."""
_MAX_FAILURES = 2
"""Deaths of a trial's own process that are outlived; those of its workers are Ray Train's business."""
_RESERVED = 2**20
"""Bytes of (logical) memory that hold a trial's place: Ray wants some resource, and a share of a CPU would be missing to the workers."""
_TUNE_SETTINGS = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_worker_maximum_startup_concurrency": "32",
}
"""Our own record is kept, news without a metric is allowed, Ctrl-C is ours; a trial has seven processes, of which Ray would warn."""


@dataclass(frozen=True)
class Halving:
    """Asynchronous successive halving over epochs.

    Attributes:
        metric: larger is better.
        max_epochs: no trial is stopped after.
        grace_epochs: no trial is stopped before.
        keep: share that goes on at a rung.
    """

    metric: str
    max_epochs: int
    grace_epochs: int
    keep: float


@contextmanager
def tune_session(address: str | None, cpus: int | None = None) -> Iterator[None]:
    """Open a session for searches; as `vwl.engine.session.session`, with what giving back a killed trial's resources needs."""
    for key, value in _TUNE_SETTINGS.items():
        os.environ.setdefault(key, value)
    with session(address, cpus, dashboard=True):
        for logger in ("ray.tune", "ray.train"):
            logging.getLogger(logger).setLevel(logging.CRITICAL)
        yield


def places(layout: Layout) -> int:
    """Return how many trials of this layout fit into the connected cluster at a time.

    Raises:
        VwlError: not even one.
    """
    wanted: dict[str, float] = {"CPU": layout.cpus_per_worker}
    if layout.gpus_per_worker:
        wanted["GPU"] = layout.gpus_per_worker
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    workers = sum(int(min(node.get(kind, 0) // amount for kind, amount in wanted.items())) for node in nodes)
    if workers < layout.workers:
        each = " and ".join(f"{amount:g} {kind}{'s' if amount != 1 else ''}" for kind, amount in wanted.items())
        there = ", ".join(" + ".join(f"{node.get(kind, 0):g} {kind}s" for kind in wanted) for node in nodes)
        raise VwlError(
            f"a trial needs {layout.workers} worker{'s' if layout.workers > 1 else ''} of {each} each and the cluster has places for "
            f"{workers} (its nodes: {there}); lower --workers-per-trial, --cpus-per-worker or --gpus-per-worker"
        )
    return workers // layout.workers


def concurrency(layout: Layout, wanted: int | None, memory: float) -> int:
    """Return how many trials to run at a time: as many as fit, or `wanted`.

    Trials that nobody has counted are also no more than the cluster's memory holds, at `memory` bytes each; trials on GPUs have their own.

    Raises:
        VwlError: more are wanted than there are places, or there is no place for one.
    """
    fitting = places(layout)
    if wanted is not None and wanted > fitting:
        raise VwlError(f"{wanted} trials at a time are asked for and {fitting} fit into the cluster; lower --concurrent or say auto")
    held = fitting if layout.gpus_per_worker else int(cluster_memory() // memory)
    return wanted or max(1, min(fitting, held))


def run_all(tasks: Mapping[str, Any], work: Callable[..., None], layout: Layout, concurrent: int, storage: str, watch: Watch) -> None:
    """Run every task in a trial of its own.

    Args:
        tasks: by name; picklable.
        work: called as `work(task, train, map, tell)` in the trial's process; importable.
        layout: of its trainings.
        concurrent: trials at a time.
        storage: folder for Ray's own files.
        watch: called here with (event, name, news); events are `start`, `news`, `end`, `stopped` (early), and `crash` with a `reason`.

    Raises:
        Interrupted: stopped by Ctrl-C; the trials have saved.
    """
    _run(
        tune.with_parameters(_Task, tasks=dict(tasks), work=work, map=_Maps(layout)),
        {"task": tune.grid_search(list(tasks))},
        tune.TuneConfig(num_samples=1, max_concurrent_trials=concurrent),
        storage,
        lambda trial: trial.config["task"],
        watch,
    )


def run_suggested(
    suggest: Any,
    build: Callable[[News], Any],
    num_samples: int,
    halving: Halving | None,
    work: Callable[..., None],
    layout: Layout,
    concurrent: int,
    storage: str,
    watch: Watch,
) -> None:
    """Run tasks that a searcher suggests; as `run_all`.

    Args:
        suggest: a searcher of `vwl.engine.suggest`.
        build: makes a task of a suggestion, in the trial's process; picklable.
        num_samples: how many.
        halving: early stopping; none: every trial ends.
    """
    scheduler = halving and ASHAScheduler(
        time_attr="epoch",
        metric=halving.metric,
        mode="max",
        max_t=halving.max_epochs,
        stop_last_trials=False,  # their maps are still to be made and scored
        grace_period=halving.grace_epochs,
        reduction_factor=1 / halving.keep,
    )
    _run(
        tune.with_parameters(_Suggested, build=build, work=work, map=_Maps(layout)),
        {},
        tune.TuneConfig(num_samples=num_samples, max_concurrent_trials=concurrent, search_alg=suggest, scheduler=scheduler),
        storage,
        lambda trial: trial.config["name"],
        watch,
    )


def _run(trainable: Any, config: News, tune_config: Any, storage: str, name: Callable[[Any], str], watch: Watch) -> None:
    stopper = _Stopper()
    tuner = tune.Tuner(
        tune.with_resources(trainable, tune.PlacementGroupFactory([{"memory": _RESERVED}])),
        param_space=config,
        tune_config=tune_config,
        run_config=tune.RunConfig(
            storage_path=storage,
            verbose=0,
            stop=stopper,
            callbacks=[_Callback(name, watch, stopper)],
            failure_config=tune.FailureConfig(max_failures=_MAX_FAILURES),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    outcome: dict[str, Any] = {}

    def fit() -> None:
        try:
            tuner.fit()
        except Exception as error:
            outcome["error"] = error

    thread = threading.Thread(target=fit, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(0.2)
    except KeyboardInterrupt:
        stopper.stopped = True
        thread.join(_STOP_PATIENCE + 10)
        raise Interrupted("search stopped") from None
    if "error" in outcome:
        raise outcome["error"]


class _Stopper(tune.Stopper):
    """Ends all trials when asked to."""

    stopped = False

    def __call__(self, trial_id: str, result: News) -> bool:
        return False

    def stop_all(self) -> bool:
        return self.stopped


class _Callback(tune.Callback):
    """Passes on what Tune says of its trials; in Tune's pickled settings, which nobody reads, it is empty."""

    def __init__(self, name: Callable[[Any], str], watch: Watch, stopper: _Stopper) -> None:
        self._name, self._watch, self._stopper = name, watch, stopper

    def __getstate__(self) -> News:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        self._watch("start", self._name(trial), {})

    def on_trial_result(self, iteration: int, trials: list[Any], trial: Any, result: News, **info: Any) -> None:
        self._watch("news", self._name(trial), result)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        news = trial.last_result or {}
        if "ended" in news:
            self._watch("end", self._name(trial), news)
        elif not self._stopper.stopped:
            self._watch("stopped", self._name(trial), news)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        error = trial.get_error()
        lines = str(error).strip().splitlines() if error else []
        self._watch("crash", self._name(trial), {"reason": lines[-1] if lines else "the trial's process died"})


class _Maps:
    """Inference of a trial: in its own process where that has a machine's CPU, else on as many actors as the training has workers."""

    def __init__(self, layout: Layout) -> None:
        self._workers = layout.workers
        nodes = [node for node in ray.nodes() if node["Alive"]]
        self._here = layout.workers == 1 and not cluster_gpus() and len(nodes) == 1

    def run_shards(
        self, spec: InferenceSpec, shards: list[Shard], images_done: int, on_progress: OnProgress, max_processes: int | None = None
    ) -> None:
        if self._here:
            local.run_shards(spec, shards, images_done, on_progress, max_processes=1)
        else:
            map.run_shards(spec, shards, images_done, on_progress, self._workers)

    def split_processes(self) -> None:
        """A trial keeps to its place."""


class _Trial(tune.Trainable):
    """Works in a thread; Tune asks it for news step by step, and for its end."""

    def _start(self, task: Any, work: Callable[..., None], maps: _Maps) -> None:
        self._changed, self._stop = threading.Condition(), threading.Event()
        self._progress: News | None = None
        self._lines: list[News] = []
        self._last: News = {}
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, args=(task, work, maps), daemon=True)
        self._thread.start()

    def _work(self, task: Any, work: Callable[..., None], maps: _Maps) -> None:
        try:
            with session(None):  # connected already; this makes the settings hold in this process
                work(task, train, maps, self._tell)
        except (Interrupted, KeyboardInterrupt):
            pass
        except BaseException as error:
            self._error = error
        with self._changed:
            self._changed.notify_all()

    def _tell(self, news: News) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt  # as if the user had pressed Ctrl-C: the training saves and leaves
        with self._changed:
            if "epoch" in news or "state" in news:
                self._lines.append(news)
                self._changed.notify_all()
            else:
                self._progress = news

    def step(self) -> News:
        """Return a line (of an epoch, or of an end) as soon as there is one, else how far the trial is."""
        deadline = time.monotonic() + _NEWS_EVERY
        with self._changed:
            while not self._lines and self._thread.is_alive() and time.monotonic() < deadline:
                self._changed.wait(0.1)
            if self._lines:
                line = self._lines.pop(0)
                self._last = {key: value for key, value in line.items() if key != "epoch"}
                return line
            if self._thread.is_alive():
                return dict(self._progress or {})
        if self._error is not None:
            raise self._error
        return {**self._last, "done": True, "ended": True}

    def cleanup(self) -> None:
        """Let the work save and leave."""
        self._stop.set()
        self._thread.join(_STOP_PATIENCE)


class _Task(_Trial):
    """A trial of a list."""

    def setup(self, config: News, tasks: Mapping[str, Any], work: Callable[..., None], map: _Maps) -> None:
        """Begin."""
        self._start(tasks[config["task"]], work, map)


class _Suggested(_Trial):
    """A trial of a searcher."""

    def setup(self, config: News, build: Callable[[News], Any], work: Callable[..., None], map: _Maps) -> None:
        """Begin."""
        self._start(build(config), work, map)
