"""One trial of a search: a recipe with its seed, run in a run folder of its own, so that it resumes as a pipeline does.

A trial's id has the hash of the recipe's sections that its score depends on, so that a setting which occurs in several tables
(k = 256, gamma = 2 and tau = 1 are one) is trained once. A stage that another trial has finished with the same fingerprint is copied
from there: trials that differ in a threshold, the CRF or the walk share their classifier. Imports no Ray: `vwl.engine.tune` calls
`run_trials` in a process of the cluster.
"""

import json
import re
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, cast

import numpy as np

from vwl.config.layout import Layout
from vwl.config.recipe import Recipe, fingerprint, hashed_settings
from vwl.data.index import Index, read_index
from vwl.engine.base import Engine, OnProgress, Progress
from vwl.engine.search_types import EpochEnd, OnTrialEvent, StageProgress, TrialEnd
from vwl.errors import Interrupted, VwlError
from vwl.inference.seeds import SeedBackground
from vwl.storage.folder import Folder
from vwl.workflow.imported import STAGE as IMPORTED_STAGE
from vwl.workflow.imported import ImportedMaps
from vwl.workflow.manifest import read_manifest
from vwl.workflow.pipeline import run_stages
from vwl.workflow.reuse import copy_stage
from vwl.workflow.run_folder import Run, has_result, stage_fingerprint
from vwl.workflow.seeds import import_seeds, inspect_seeds
from vwl.workflow.stages import STAGES

State = Literal["unfinished", "done", "failed", "stopped"]
UNFINISHED: State = "unfinished"
DONE: State = "done"
FAILED: State = "failed"
STOPPED: State = "stopped"
"""States of a trial; `stopped` is by early stopping, and final as `done` is."""
RECORD = "trial.json"
_METRICS_SECONDS = 1.0
"""Time between two reads of a training's metrics file."""


@dataclass(frozen=True)
class Trial:
    """A recipe with its seed, and the stage that is scored.

    Attributes:
        recipe: all settings.
        stage: the stage whose score is compared.
        imported: maps of another method that take the place of classifier and CAM stage, with a hash of their files.
    """

    recipe: Recipe
    stage: str
    imported: ImportedMaps | None = None

    @property
    def recipe_hash(self) -> str:
        """16 hex digits of the seed and of the recipe's sections that the trial's stages and its score depend on.

        Other sections of a recipe, or sections that a later version adds, do not change it.
        """
        sections = {name.replace("-", "_") for name in self.stages} | {"evaluation"}
        if self.recipe.refiner != "irnet" and {"walk", "masks"} & {*self.stages}:
            sections |= {"refiner", "psa_walk"}
        names = [name for name in type(self.recipe).model_fields if name in sections]
        maps = [] if self.imported is None else [self.imported.fingerprint("")]
        return fingerprint([self.recipe.seed, {name: hashed_settings(self.recipe, name) for name in names}, *maps])

    @property
    def id(self) -> str:
        """Name of the trial's folder: the method and its parameters, the seed, and the recipe's hash."""
        if self.imported is not None:
            name = re.sub(r"[^A-Za-z0-9]+", "-", self.imported.folder.rstrip("/").rpartition("/")[2]).strip("-") or "maps"
            return f"import-{name[:40]}-s{self.recipe.seed}-{self.recipe_hash[:8]}"
        c = self.recipe.classifier
        parts = ["gap"] if c.pooling == "gap" else ["hp", f"gamma{c.gap_weight:g}"]
        if c.codebook.strategy != "none":
            parts += [c.codebook.strategy, f"k{c.codebook.num_codewords}"]
        if c.codebook.strategy == "learning":
            parts += [f"tau{c.codebook.temperature:g}", *(["nodecov"] if c.codebook.decov == "none" else [])]
        if c.codebook.strategy == "memory":
            parts += [f"rho{c.codebook.momentum:g}"]
        return "-".join([*parts, f"s{self.recipe.seed}", self.recipe_hash[:8]])

    @property
    def stages(self) -> list[str]:
        """The scored stage and all before it, in order."""
        needed = {self.stage}
        for name in reversed(STAGES):
            if name in needed and not (name == IMPORTED_STAGE and self.imported is not None):
                needed.update(STAGES[name].reads(self.recipe))
        return [name for name in STAGES if name in needed]

    def folder(self, root: Folder) -> Folder:
        """Return the trial's run folder."""
        return root / "trials" / self.id

    def fingerprint(self, stage: str, index_fingerprint: str) -> str:
        """Return the fingerprint that a stage of the trial has when it is done."""
        maps = None if self.imported is None else self.imported.fingerprint(index_fingerprint)
        return stage_fingerprint(stage, self.recipe, index_fingerprint, maps)


@dataclass(frozen=True)
class TrialGroup:
    """Trials that share their first training; they run one after the other in one process.

    Attributes:
        trials: at least one.
        root: the search's folder.
        index_path: the data set.
        layout: of the trainings.
        may_stop: whether trials that were stopped early count as finished.
    """

    trials: tuple[Trial, ...]
    root: Folder
    index_path: str
    layout: Layout
    may_stop: bool = False


@dataclass(frozen=True)
class TrialRecord:
    """The file trial.json in a trial's folder.

    Attributes:
        trial: the trial's id.
        recipe_hash: `Trial.recipe_hash`.
        state: how the trial stands.
        reason: why it failed or was stopped; else empty.
        seconds: time that was spent on it in all runs.
        started, finished: local time, ISO 8601.
    """

    trial: str
    recipe_hash: str
    state: State = "unfinished"
    reason: str = ""
    seconds: float = 0.0
    started: str | None = None
    finished: str | None = None


def run_trials(group: TrialGroup, engine: Engine, on_event: OnTrialEvent) -> None:
    """Run the trials that are not finished; a failure is recorded in its trial's folder and the others continue.

    Args:
        group: the trials.
        engine: runs their stages.
        on_event: called with the events of the trials; the last `TrialEnd` has the objective if all trials are done.

    Raises:
        Interrupted, KeyboardInterrupt: stopped on request; finished stages and checkpoints are kept.
    """
    index = read_index(group.index_path)
    objectives: list[float] = []

    def end(trial: Trial, state: State, reason: str) -> None:
        if state == DONE:
            objectives.append(objective(trial, group.root))
        mean = float(np.mean(objectives)) if len(objectives) == len(group.trials) else None
        on_event(TrialEnd(trial.id, state, reason, mean))

    for trial in group.trials:
        before = read_record(trial, group.root)
        if is_finished(trial, group.root, index.fingerprint(), group.may_stop):
            end(trial, before.state, before.reason)
            continue
        began = time.monotonic()
        update_record(trial, group.root, state=UNFINISHED, reason="")
        state, reason = DONE, ""
        try:
            _run_stages(trial, group, index, engine, on_event)
        except (Interrupted, KeyboardInterrupt):
            raise
        except VwlError as error:
            state, reason = FAILED, str(error)
        except Exception as error:  # the other trials of a long search continue; the table shows the reason
            state, reason = FAILED, f"{type(error).__name__}: {error}"
        finally:
            update_record(trial, group.root, seconds=round(before.seconds + time.monotonic() - began, 1))
        update_record(trial, group.root, state=state, reason=reason, finished=now())
        end(trial, state, reason)


def _run_stages(trial: Trial, group: TrialGroup, index: Index, engine: Engine, on_event: OnTrialEvent) -> None:
    # The folder's name has the hash of the sections that count; the other sections may be those of another search.
    run = Run.start(str(trial.folder(group.root)), trial.recipe, group.index_path, overwrite=True)
    epochs_sent, last_read = 0, 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal epochs_sent, last_read
        message = f"loss {progress.metrics['loss']:.4f}" if progress.metrics else progress.message or progress.part
        on_event(StageProgress(trial.id, progress.stage, progress.done, progress.total, message))
        if progress.stage == "classifier" and (progress.done == progress.total or time.monotonic() - last_read > _METRICS_SECONDS):
            last_read = time.monotonic()
            epochs = epoch_metrics(run.stage_folder(progress.stage))
            for epoch, metrics in list(epochs.items())[epochs_sent:]:
                score = metrics.get("val_map", -metrics.get("loss", 0.0))
                on_event(EpochEnd(trial.id, epoch, score, metrics))
            epochs_sent = len(epochs)

    for stage in trial.stages:
        _copy_finished_stage(run, trial, stage, group.root)
        if stage == IMPORTED_STAGE and trial.imported is not None and not run.is_done(stage):
            _import(run, trial.imported, on_progress)
        messages: list[str] = []
        run_stages(run, [stage], engine, group.layout, on_progress, messages.append)
        (group.root / "stages").write_json(f"{run.fingerprint(stage)}.json", {"trial": trial.id})
    manifest = run.manifest(trial.stage)
    if manifest is None or not manifest.scores:
        raise VwlError(f"{group.index_path} has no ground truth to score the stage {trial.stage} with; add masks to the data set")


def _import(run: Run, maps: ImportedMaps, on_progress: OnProgress) -> None:
    """Import the maps of a trial.

    Raises:
        VwlError: they cannot be imported, or are no longer those that the search was started with.
    """
    background = cast(SeedBackground, maps.background)
    now = inspect_seeds(run.index, run.index_path, Folder(maps.folder), maps.format, background).record
    if now.content != maps.content:
        raise VwlError(f"the files of {maps.folder} have changed since the search was started; import them under another name (--import)")
    import_seeds(run, Folder(maps.folder), maps.format, background, on_progress, lambda message: None, overwrite=True)


def _copy_finished_stage(run: Run, trial: Trial, stage: str, root: Folder) -> None:
    """Copy a stage that another trial has finished with the same fingerprint, if there is one."""
    wanted = trial.fingerprint(stage, run.index.fingerprint())
    if run.is_done(stage) or not (root / "stages").exists(f"{wanted}.json"):
        return
    other = (root / "stages").read_json(f"{wanted}.json")["trial"]
    copy_stage(root / "trials" / other / stage, run.stage_folder(stage), wanted, other)


def epoch_metrics(folder: Folder) -> dict[int, Mapping[str, float]]:
    """Return the metrics of each finished epoch, by epoch from 1: `loss` (the last logged) with its terms, and `val_map` if scored.

    An epoch is finished when it was scored or a later one has begun.

    Args:
        folder: of a training, with metrics.jsonl.
    """
    if not folder.exists("metrics.jsonl"):
        return {}
    epochs: dict[int, dict[str, float]] = {}
    for text in folder.read("metrics.jsonl").decode().splitlines():
        with suppress(ValueError):  # the last line may be incomplete while it is written
            line = json.loads(text)
            kept = {key: value for key, value in line.items() if key.startswith(("loss", "val_", "code"))}
            epochs.setdefault(line["epoch"] + 1, {}).update(kept)
    last = max(epochs, default=0)
    return {epoch: line for epoch, line in sorted(epochs.items()) if epoch < last or any(key.startswith("val_") for key in line)}


def read_record(trial: Trial, root: Folder) -> TrialRecord:
    """Return a trial's record; that of an unfinished trial where there is no file."""
    folder = trial.folder(root)
    stored = folder.read_json(RECORD) if folder.exists(RECORD) else {}
    known = {field.name for field in fields(TrialRecord)}
    return replace(TrialRecord(trial.id, trial.recipe_hash), **{key: value for key, value in stored.items() if key in known})


def update_record(trial: Trial, root: Folder, **changes: Any) -> None:
    """Change fields of a trial's record; the first change sets `started`."""
    record = read_record(trial, root)
    changed = replace(record, **{"started": record.started or now(), **changes})
    trial.folder(root).write_json(RECORD, {key: value for key, value in asdict(changed).items() if value is not None})


def now() -> str:
    """Return the local time in ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def is_finished(trial: Trial, root: Folder, index_fingerprint: str, may_stop: bool) -> bool:
    """Return whether all stages of a trial are done with these settings and data, or, with `may_stop`, it was stopped early."""
    state, folder = read_record(trial, root).state, trial.folder(root)
    if state == STOPPED:
        return may_stop
    return state == DONE and all(has_result(folder, stage, trial.fingerprint(stage, index_fingerprint)) for stage in trial.stages)


def objective(trial: Trial, root: Folder) -> float:
    """Return the mIoU of a done trial on val, or on train if the data set has no val split; percent."""
    manifest = read_manifest(trial.folder(root) / trial.stage)
    assert manifest is not None
    scores = {score.split: score.miou for score in manifest.scores}
    return float(scores["val"] if "val" in scores else scores["train"])
