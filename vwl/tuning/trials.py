"""One trial of a search: a recipe with its seed, worked on in a run folder of its own, so that resuming is the pipeline's.

A trial is known by the hash of the recipe's sections that count for it, so that a setting which occurs in several tables (k = 256,
gamma = 2 and tau = 1 are one) is trained once. A stage that another trial has finished with the same fingerprint (trials that differ
in a threshold, the CRF or the walk share their classifier) is copied from there. Knows no Ray: `vwl.engine.tune` calls `work`
wherever it has a place.
"""

import json
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vwl.config.layout import Layout
from vwl.config.recipe import Recipe, fingerprint
from vwl.data.index import Index, read_index
from vwl.engine.base import Engine, Progress, ShardRunner, Trainer
from vwl.errors import Interrupted, VwlError
from vwl.storage.folder import Folder
from vwl.workflow.manifest import read_manifest, write_manifest
from vwl.workflow.pipeline import run_stages
from vwl.workflow.run_folder import Run, has_result, stage_fingerprint
from vwl.workflow.stages import STAGES

News = dict[str, Any]
Tell = Callable[[News], None]
UNFINISHED, DONE, FAILED, STOPPED = "unfinished", "done", "failed", "stopped"
"""States of a trial; `stopped` is early stopping, which is final as `done` is."""
_METRICS_EVERY = 1.0
"""Seconds between looks at a training's metrics."""


@dataclass(frozen=True)
class Trial:
    """A recipe, seed included, and the stages that its score needs.

    Attributes:
        recipe: all settings.
        stage: whose score is compared.
    """

    recipe: Recipe
    stage: str

    @property
    def recipe_hash(self) -> str:
        """16 hex digits of the seed and of the recipe's sections that the trial's stages and its score depend on.

        What else a recipe holds, or a later version adds to it, does not make another trial.
        """
        sections = {name.replace("-", "_") for name in self.stages} | {"evaluation"}
        settings = self.recipe.model_dump(mode="json")
        return fingerprint([self.recipe.seed, {name: settings[name] for name in settings if name in sections}])

    @property
    def id(self) -> str:
        """What the trial's folder is called: its method in words, the seed, and the recipe's hash."""
        c = self.recipe.classifier
        words = ["gap"] if c.pooling == "gap" else ["hp", f"gamma{c.gap_weight:g}"]
        if c.codebook.strategy != "none":
            words += [c.codebook.strategy, f"k{c.codebook.num_codewords}"]
        if c.codebook.strategy == "learning":
            words += [f"tau{c.codebook.temperature:g}", *(["nodecov"] if c.codebook.decov == "none" else [])]
        if c.codebook.strategy == "memory":
            words += [f"rho{c.codebook.momentum:g}"]
        return "-".join([*words, f"s{self.recipe.seed}", self.recipe_hash[:8]])

    @property
    def stages(self) -> list[str]:
        """The scored stage and all before it, in order."""
        needed = {self.stage}
        for name in reversed(STAGES):
            if name in needed:
                needed.update(STAGES[name].reads)
        return [name for name in STAGES if name in needed]

    def folder(self, root: Folder) -> Folder:
        """Return the trial's run folder."""
        return root / "trials" / self.id


@dataclass(frozen=True)
class Work:
    """Trials that share their first training, one after the other in one place.

    Attributes:
        trials: at least one.
        root: the search's folder.
        index_path: the data set.
        layout: of the trainings.
        may_stop: trials that were stopped early are finished.
    """

    trials: tuple[Trial, ...]
    root: Folder
    index_path: str
    layout: Layout
    may_stop: bool = False


def work(task: Work, train: Trainer, map: ShardRunner, tell: Tell) -> None:
    """Do the trials that are not finished; a failure is recorded in its trial's folder and the others go on.

    The `objective` is told with the last of them, if all are done: their mean.

    Args:
        task: what to do.
        train, map: where the stages are done.
        tell: gets the news: `trial`, `stage`, `at`, `of`, of a training also `epoch` with its figures; and the end's `state`.

    Raises:
        Interrupted, KeyboardInterrupt: stopped on request; what is done is kept.
    """
    index = read_index(task.index_path)
    objectives: list[float] = []

    def end(trial: Trial, state: News) -> None:
        if state["state"] == DONE:
            objectives.append(objective(trial, task.root))
        if len(objectives) == len(task.trials):
            state = {**state, "objective": float(np.mean(objectives))}
        tell({"trial": trial.id, **state})

    for trial in task.trials:
        before = record(trial, task.root)
        if is_finished(trial, task.root, index.fingerprint(), task.may_stop):
            end(trial, {"state": before["state"]})
            continue
        began = time.monotonic()
        note(trial, task.root, state=UNFINISHED, reason="")
        try:
            _do(trial, task, index, train, map, tell)
            ended = {"state": DONE, "reason": ""}
        except (Interrupted, KeyboardInterrupt):
            raise
        except VwlError as error:
            ended = {"state": FAILED, "reason": str(error)}
        except Exception as error:  # the other trials of a search of hours go on; the reason is in the table
            ended = {"state": FAILED, "reason": f"{type(error).__name__}: {error}"}
        finally:
            note(trial, task.root, seconds=round(before["seconds"] + time.monotonic() - began, 1))
        note(trial, task.root, **ended, finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"))
        end(trial, ended)


def _do(trial: Trial, task: Work, index: Index, train: Trainer, map: ShardRunner, tell: Tell) -> None:
    # The folder's name vouches for the sections that count; the others may be another search's.
    run = Run.start(str(trial.folder(task.root)), trial.recipe, task.index_path, overwrite=True)
    finished = task.root / "stages"
    told, looked = 0, 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal told, looked
        stage = progress.stage
        text = f"loss {progress.metrics['loss']:.4f}" if progress.metrics else progress.message
        tell({"trial": trial.id, "stage": stage, "at": progress.done, "of": progress.total, "text": text})
        if STAGES[stage].kind == "train" and (progress.done == progress.total or time.monotonic() - looked > _METRICS_EVERY):
            looked = time.monotonic()
            epochs = epoch_metrics(run.stage_folder(stage))
            for epoch in epochs[told:] if stage == "classifier" else []:
                tell({"trial": trial.id, "epoch_score": epoch.get("val_map", -epoch.get("loss", 0.0)), **epoch})
            told = len(epochs) if stage == "classifier" else told

    for stage in trial.stages:
        _copy_finished(run, stage, task.root)
        messages: list[str] = []
        run_stages(run, [stage], Engine(train, map), task.layout, on_progress, messages.append)
        finished.write_json(f"{run.fingerprint(stage)}.json", {"trial": trial.id})
    manifest = run.manifest(trial.stage)
    if manifest is None or not manifest.scores:
        raise VwlError(f"{task.index_path} has no ground truth to score {trial.stage} on")


def _copy_finished(run: Run, stage: str, root: Folder) -> None:
    """Take over a stage that another trial has finished with the same fingerprint."""
    wanted = run.fingerprint(stage)
    if run.is_done(stage) or not (root / "stages").exists(f"{wanted}.json"):
        return
    other = (root / "stages").read_json(f"{wanted}.json")["trial"]
    source, target = root / "trials" / other / stage, run.stage_folder(stage)
    manifest = read_manifest(source)
    if manifest is None or manifest.fingerprint != wanted or manifest.state != "done":
        return
    target.clear()
    for place in ("", "done"):
        there = source / place if place else source
        for name in there.names():
            if name != "manifest.json":
                (target / place if place else target).write(name, there.read(name))
    write_manifest(target, replace(manifest, copied_from=other))


def epoch_metrics(folder: Folder) -> list[News]:
    """Return a line for each epoch that is over: `epoch` (from 1), `loss` (the last logged) and its terms, `val_map` if scored.

    An epoch is over when it was scored or a later one has begun.
    """
    if not folder.exists("metrics.jsonl"):
        return []
    epochs: dict[int, News] = {}
    for text in folder.read("metrics.jsonl").decode().splitlines():
        with suppress(ValueError):  # the line that is being written
            line = json.loads(text)
            kept = {key: value for key, value in line.items() if key.startswith(("loss", "val_", "code"))}
            epochs.setdefault(line["epoch"], {"epoch": line["epoch"] + 1}).update(kept)
    last = max(epochs, default=-1)
    return [line for epoch, line in sorted(epochs.items()) if epoch < last or any(key.startswith("val_") for key in line)]


def record(trial: Trial, root: Folder) -> News:
    """Return what is noted of a trial: state, reason, seconds, times."""
    place = trial.folder(root)
    found = place.read_json("trial.json") if place.exists("trial.json") else {}
    return {"state": UNFINISHED, "reason": "", "seconds": 0.0, **found}


def note(trial: Trial, root: Folder, **changes: Any) -> None:
    """Change what is noted of a trial."""
    known = {"trial": trial.id, "recipe_hash": trial.recipe_hash, "started": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
    trial.folder(root).write_json("trial.json", known | record(trial, root) | changes)


def is_finished(trial: Trial, root: Folder, index_fingerprint: str, may_stop: bool) -> bool:
    """Return whether nothing is left to do: all stages done with these settings and data, or, if it may stop, stopped early."""
    state, place = record(trial, root)["state"], trial.folder(root)
    if state == STOPPED:
        return may_stop
    return state == DONE and all(
        has_result(place, stage, stage_fingerprint(stage, trial.recipe, index_fingerprint)) for stage in trial.stages
    )


def objective(trial: Trial, root: Folder) -> float:
    """Return a done trial's mIoU on val (train, if nothing is held out), percent."""
    manifest = read_manifest(trial.folder(root) / trial.stage)
    assert manifest is not None
    scores = {score.split: score.miou for score in manifest.scores}
    return float(scores["val"] if "val" in scores else scores["train"])
