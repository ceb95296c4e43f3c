"""Experiment trackers: the lines of each training's metrics.jsonl and the stages' scores, sent to MLflow, Weights & Biases or TensorBoard.

A tracker is a callback for metrics. What it has sent is noted in the run folder (`tracker-<name>.json`), so that a run that goes on later
goes on in the same run of the tracker, and what an earlier start did not send is sent then. Where a tracker's data go is set by its own
variables: MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME, WANDB_MODE, WANDB_PROJECT and so on.
"""

import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any, Literal, Protocol

from vwl.api.events import Metrics, OnMetrics
from vwl.api.history import num_kept, score_metrics, training_metrics
from vwl.api.inputs import flat
from vwl.config.recipe import fingerprint
from vwl.errors import Interrupted, VwlError, did_you_mean
from vwl.storage.folder import Folder
from vwl.training.tensorboard import TensorBoard
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES, stages_of

Status = Literal["finished", "stopped", "failed"]
logger = logging.getLogger("vwl")
_PACKAGES = {"mlflow": "mlflow", "wandb": "wandb", "tensorboard": ""}
TRACKERS = tuple(_PACKAGES)
"""Names of the trackers."""
_PROJECT = "vwl"
"""Experiment of MLflow and project of Weights & Biases where none is set."""
_BATCH = 100
"""Parameters that MLflow takes at a time."""


class Backend(Protocol):
    """A run of a tracker."""

    run_id: str

    def log(self, metrics: Metrics) -> None:
        """Send metrics."""

    def end(self, status: Status) -> None:
        """End the run; a later start may go on with it."""


def require_tracker(name: str) -> None:
    """Check that a tracker is known and its package is installed.

    Raises:
        VwlError: it is not; says how to install it.
    """
    if name not in _PACKAGES:
        raise VwlError(f"there is no tracker '{name}'{did_you_mean(name, TRACKERS)} (trackers are {', '.join(TRACKERS)})")
    if _PACKAGES[name]:
        try:
            import_module(_PACKAGES[name])
        except ImportError:
            raise VwlError(f"the tracker {name} is not installed; install it with: pip install 'vwl[{name}]'") from None


@contextmanager
def open_tracker(name: str, run: Run) -> Iterator[OnMetrics]:
    """Start a tracker's run, or go on with that of an earlier start, and yield the callback that sends metrics to it.

    What happens at the tracker later does not end the run: a failure is logged once, and the next start sends what is missing.

    Raises:
        VwlError: the tracker is unknown, not installed, or its run cannot be started.
    """
    require_tracker(name)
    tracker = _Tracker(name, run)
    status: Status = "failed"
    try:
        yield tracker.send
        status = "finished"
    except (KeyboardInterrupt, Interrupted):
        status = "stopped"
        raise
    finally:
        tracker.end(status)


class _Tracker:
    """Sends each line of metrics.jsonl and each score once."""

    def __init__(self, name: str, run: Run) -> None:
        self._name, self._run, self._file = name, run, f"tracker-{name}.json"
        of_run = fingerprint([run.recipe.model_dump(mode="json"), run.index.fingerprint()])
        stored = run.folder.read_json(self._file) if run.folder.exists(self._file) else {}
        self._sent: dict[str, Any] = {"fingerprint": of_run, "stages": {}}
        if isinstance(stored, dict) and stored.get("fingerprint") == of_run:
            self._sent = stored
        try:
            self._backend: Backend | None = _BACKENDS[name](run, self._sent.get("run"))
        except Exception as error:  # each tracker has its own
            raise VwlError(f"the tracker {name} cannot start: {_line(error)}") from None
        self._sent["run"] = self._backend.run_id
        self._save()
        for stage in stages_of(run.recipe):
            self._send_earlier(stage)

    def _send_earlier(self, stage: str) -> None:
        """Send what earlier starts have left in the run folder."""
        if STAGES[stage].kind == "train":
            for metrics in training_metrics(self._run, stage)[: num_kept(self._run, stage)]:
                self.send(metrics)
        elif self._run.is_done(stage) and (scores := score_metrics(self._run, stage)) is not None:
            self.send(scores)

    def send(self, metrics: Metrics) -> None:
        """Send metrics that were not sent before."""
        if self._backend is None:
            return
        of_stage = self._run.fingerprint(metrics.stage)
        sent = self._sent["stages"].get(metrics.stage, {})
        if sent.get("fingerprint") != of_stage:  # its inputs have changed since
            sent = {"fingerprint": of_stage, "lines": 0, "scores": None}
        if metrics.line is None:
            if sent["scores"] == dict(metrics.values):
                return
            sent["scores"] = dict(metrics.values)
        elif metrics.line < sent["lines"]:
            return
        else:
            sent["lines"] = metrics.line + 1
        try:
            self._backend.log(metrics)
        except Exception as error:
            logger.warning("the tracker %s has failed: %s; the same command sends what is missing later", self._name, _line(error))
            self._backend = None
            return
        self._sent["stages"][metrics.stage] = sent
        self._save()

    def end(self, status: Status) -> None:
        """End the tracker's run."""
        if self._backend is not None:
            try:
                self._backend.end(status)
            except Exception as error:
                logger.warning("the tracker %s did not end its run: %s", self._name, _line(error))

    def _save(self) -> None:
        with suppress(VwlError):  # the run itself says so
            self._run.folder.write_json(self._file, self._sent)


def _named(metrics: Metrics) -> dict[str, float]:
    """Return values by the names that trackers show: `classifier/loss_image`, `walk/val_miou`."""
    return {f"{metrics.stage}/{name}": float(value) for name, value in metrics.values.items()}


def _settings(run: Run) -> dict[str, Any]:
    """Return what made a run."""
    return {**dict(flat(run.recipe.model_dump(mode="json"))), "data": run.index.source, "data_fingerprint": run.index.fingerprint()}


def _line(error: Exception) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__


class _Mlflow:
    """A run of MLflow, by its client: nothing of the caller's own active run is touched."""

    def __init__(self, run: Run, run_id: str | None) -> None:
        import mlflow
        from mlflow.entities import Param

        self._client = mlflow.MlflowClient()
        if run_id is not None:
            self._client.update_run(run_id, "RUNNING")
            self.run_id = run_id
            return
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT)
        found = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if found is None else found.experiment_id
        tags = {"vwl.folder": run.folder.uri, "vwl.recipe": run.recipe.name}
        self.run_id = str(self._client.create_run(number, run_name=_name_of(run.folder), tags=tags).info.run_id)
        params = [Param(name, str(value)) for name, value in _settings(run).items()]
        for first in range(0, len(params), _BATCH):
            self._client.log_batch(self.run_id, params=params[first : first + _BATCH])

    def log(self, metrics: Metrics) -> None:
        """Send metrics; scores have step 0."""
        from mlflow.entities import Metric

        now, step = int(1000 * time.time()), metrics.step or 0
        self._client.log_batch(self.run_id, metrics=[Metric(name, value, now, step) for name, value in _named(metrics).items()])

    def end(self, status: Status) -> None:
        """Set the run's status."""
        self._client.set_terminated(self.run_id, {"finished": "FINISHED", "stopped": "KILLED", "failed": "FAILED"}[status])


class _Wandb:
    """A run of Weights & Biases. Each training has a step of its own, `<stage>/step`."""

    def __init__(self, run: Run, run_id: str | None) -> None:
        import wandb

        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            id=run_id,
            resume="allow" if run_id is not None else None,
            name=_name_of(run.folder),
            config=_settings(run),
            reinit="create_new",  # the caller's own run stays
            settings=wandb.Settings(silent=True, x_disable_stats=True, disable_code=True, disable_git=True),
        )
        self.run_id = str(self._run.id)
        for stage in stages_of(run.recipe):
            if STAGES[stage].kind == "train":
                self._run.define_metric(f"{stage}/*", step_metric=f"{stage}/step")

    def log(self, metrics: Metrics) -> None:
        """Send metrics."""
        step = {} if metrics.step is None else {f"{metrics.stage}/step": metrics.step}
        self._run.log({**_named(metrics), **step})

    def end(self, status: Status) -> None:
        """End the run, and wait until its data are written or sent."""
        self._run.finish(exit_code=0 if status == "finished" else 1)


class _TensorBoard:
    """Event files beside those that every training writes itself: the scores of the stages."""

    def __init__(self, run: Run, run_id: str | None) -> None:
        self._folder, self.run_id = run.folder, run.folder.uri

    def log(self, metrics: Metrics) -> None:
        """Write scores; those of trainings are there."""
        if metrics.step is None:
            board = TensorBoard(self._folder / metrics.stage, 0)
            board.add({"step": 0, **metrics.values})
            board.save()

    def end(self, status: Status) -> None:
        """Do nothing: files are written at once."""


_BACKENDS: Mapping[str, Any] = {"mlflow": _Mlflow, "wandb": _Wandb, "tensorboard": _TensorBoard}


def _name_of(folder: Folder) -> str:
    return folder.uri.rstrip("/").rpartition("/")[2]
