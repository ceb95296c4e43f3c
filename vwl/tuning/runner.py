"""Runs a search: refuses what cannot end before anything starts, hands the trials that are left to Ray, and keeps the record."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from threading import Lock
from typing import Any, Protocol

import numpy as np

from vwl.cluster.plan import BASE_MEMORY, worker_memory
from vwl.config.layout import Layout
from vwl.config.recipe import Recipe
from vwl.data.index import read_index
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.tuning.search import Search, groups
from vwl.tuning.space import Domain, EarlyStopping
from vwl.tuning.trials import DONE, FAILED, STOPPED, UNFINISHED, News, Trial, Work, is_finished, note, objective, record, work
from vwl.workflow.stages import STAGES

PLACES = "places.json"
"""Where each search was last run."""
_OTHER_SEED = "stopped early with another seed"
_DIGITS = 3
"""Significant digits of a drawn number: a recipe that people read."""


@dataclass(frozen=True)
class Places:
    """Where trials run.

    Attributes:
        layout: of each trial's trainings.
        concurrent: trials at a time; none: as many as fit.
        address: the cluster's.
        asked: the options that say so, which a resumed search takes over.
    """

    layout: Layout
    concurrent: int | None = None
    address: str | None = None
    asked: Mapping[str, Any] = field(default_factory=dict)


class View(Protocol):
    """What shows how the trials stand."""

    def trial(self, name: str, state: str, text: str = "", done: int = 0, total: int = 0) -> None:
        """Show a trial's state, and of a running one how far it is."""


def run_search(
    search: Search, root: Folder, places: Places, view: View, say: Callable[[str], None], after_trial: Callable[[], None]
) -> None:
    """Run a search's unfinished trials; what is finished, also by another search in the folder, is not done again.

    Args:
        search: what is searched.
        root: the folder.
        places: where.
        view: is shown each trial's state.
        say: one line for the user.
        after_trial: called when a trial has ended.

    Raises:
        VwlError: a trial can never fit into the cluster, or its batch cannot be shared by its workers; or the data set has changed.
        Interrupted: Ctrl-C; what was done is kept.
    """
    search = search.joined_with_stored(root)
    if read_index(search.index_path).fingerprint() != search.index_fingerprint:
        raise VwlError(
            f"{search.index_path} is not the data set that {root} was searched on; put that one back, or say where it is "
            "(--resume RUN --data INDEX), or use another --run folder"
        )
    for entry in search.entries() or search.entries_of({}, 0, search.seeds[:1]):
        for stage in entry.trial.stages:
            if STAGES[stage].kind == "train":
                places.layout.split_batch(getattr(entry.trial.recipe, stage).batch_size)
    follow = _Follower(root, search, view, after_trial)
    for trial in {entry.trial.id: entry.trial for entry in search.entries()}.values():
        follow.show(trial)
    (_run_samples if search.space.strategy == "search" else _run_grid)(search, root, places, follow, say)


def _run_grid(search: Search, root: Folder, places: Places, follow: "_Follower", say: Callable[[str], None]) -> None:
    found = list(groups(search.entries(), search.index_fingerprint))
    for group in found:
        left = tuple(trial for trial in group if not follow.is_finished(trial))
        if left:
            follow.add(Work(left, root, search.index_path, places.layout))
    total, left_over = sum(map(len, found)), sum(len(task.trials) for task in follow.tasks.values())
    with _opened(search, root, places, total, left_over, len(follow.tasks), say) as concurrent:
        if concurrent:
            from vwl.engine import tune

            tune.run_all(follow.tasks, work, places.layout, concurrent, str(root / "ray"), follow)


@contextmanager
def _opened(search: Search, root: Folder, places: Places, total: int, left: int, tasks: int, say: Callable[[str], None]) -> Iterator[int]:
    """Yield how many tasks to run at a time, Ray being there; 0, and no Ray, where no trial is left."""
    before = f"{search.space.name}: {total} trials, {total - left} done before"
    if not left:
        search.write(root)
        say(before)
        yield 0
        return
    os.environ.setdefault("RAY_DASHBOARD_STARTUP_TIMEOUT_S", "300")  # its minute is short on a busy machine; read when Ray is imported
    from vwl.engine import tune  # Ray takes seconds to import

    with tune.tune_session(places.address):
        concurrent = tune.concurrency(places.layout, places.concurrent, _memory(search, places.layout))
        search.write(root)
        known = root.read_json(PLACES) if root.exists(PLACES) else {}
        root.write_json(PLACES, {**known, search.space.name: dict(places.asked)})
        say(f"{before}; {min(concurrent, tasks)} at a time")
        yield concurrent


def _memory(search: Search, layout: Layout) -> float:
    """Return an estimate of the bytes that a trial's workers need."""
    stages = Trial(search.recipe, search.space.stage).stages
    return layout.workers * (BASE_MEMORY + worker_memory(search.recipe, read_index(search.index_path), layout, stages)[0])


def _run_samples(search: Search, root: Folder, places: Places, follow: "_Follower", say: Callable[[str], None]) -> None:
    past, pending = _so_far(search, root, follow)
    left = max(search.space.samples - len(past), 0)
    total = search.space.samples * len(search.seeds)
    done = sum(follow.is_finished(entry.trial) for entry in search.entries())
    with _opened(search, root, places, total, total - done if left else 0, left, say) as concurrent:
        if concurrent:
            from vwl.engine import tune
            from vwl.engine.suggest import Past, Suggester

            early = search.space.early_stopping
            rungs = None if early is None else _rungs(early, _fewest_epochs(search))
            halving = rungs and tune.Halving("epoch_score", *rungs)
            build = _Build(root, search.index_path, places.layout, search.space.stage, early is not None)
            drawn = _Drawn(search, root, build, follow, pending)
            suggester = Suggester(search.space.search, search.seeds[0], [Past(*one) for one in past], pending, drawn.admit)
            tune.run_suggested(suggester, build, left, halving, work, places.layout, concurrent, str(root / "ray"), follow)


def _so_far(search: Search, root: Folder, follow: "_Follower") -> tuple[list[tuple[News, float | None]], list[News]]:
    """Return the settings that were tried, with their objective (none: stopped early), and those that were begun or failed.

    One that was stopped early with some seed is not begun with others, also not with seeds that are new.
    """
    past: list[tuple[News, float | None]] = []
    pending: list[News] = []
    for number, keys in enumerate(search.samples, 1):
        trials = [entry.trial for entry in search.entries_of(keys, number, search.seeds)]
        states = [record(trial, root)["state"] if follow.is_finished(trial) else UNFINISHED for trial in trials]
        if STOPPED in states:
            past.append((keys, None))
            for trial, state in zip(trials, states, strict=True):
                if state == UNFINISHED:
                    note(trial, root, state=STOPPED, reason=_OTHER_SEED)
        elif all(state == DONE for state in states):
            past.append((keys, float(np.mean([objective(trial, root) for trial in trials]))))
        else:
            pending.append(keys)
    return past, pending


def _fewest_epochs(search: Search) -> int:
    """Return the epochs of the shortest training that a sampled search can draw."""
    key = "classifier.epochs"
    domain = search.space.search.get(key)
    drawn: list[News] = [{}] if domain is None else [{key: value} for value in domain.choices or [domain.low]]
    entries = [entry for keys in drawn for entry in search.entries_of(keys, 0, search.seeds[:1])]
    return min(entry.trial.recipe.classifier.epochs for entry in entries)


def _rungs(early: EarlyStopping, epochs: int) -> tuple[int, int, float] | None:
    """Return the last epoch and the first at which a trial may be stopped, and the share that goes on; none: at no epoch.

    A training at its end is paid for, and is scored.
    """
    return (epochs - 1, early.grace_epochs, early.keep) if early.grace_epochs < epochs else None


@dataclass(frozen=True)
class _Build:
    """Makes the work of a suggestion, its trials of all seeds, in the trial's process."""

    root: Folder
    index_path: str
    layout: Layout
    stage: Any
    may_stop: bool

    def __call__(self, config: News) -> Work:
        trials = tuple(Trial(Recipe.model_validate(recipe), self.stage) for recipe in config["recipes"])
        return Work(trials, self.root, self.index_path, self.layout, self.may_stop)


class _Drawn:
    """Writes down each setting before it is tried."""

    def __init__(self, search: Search, root: Folder, build: _Build, follow: "_Follower", pending: Sequence[dict[str, Any]]) -> None:
        self._search, self._root, self._build, self._follow = search, root, build, follow
        self._pending = list(pending)

    def admit(self, keys: dict[str, Any]) -> dict[str, Any] | None:
        """Return the configuration of a setting's trials; none if it is known."""
        keys = {key: _rounded(value, self._search.space.search[key]) for key, value in keys.items()}
        if keys in self._pending:
            self._pending.remove(keys)
        elif keys in self._search.samples:
            return None
        else:
            self._search = replace(self._search, samples=(*self._search.samples, keys))
            self._search.write(self._root)
        number = self._search.samples.index(keys) + 1
        trials = [entry.trial for entry in self._search.entries_of(keys, number, self._search.seeds)]
        config = {"name": trials[0].id, "recipes": [trial.recipe.model_dump(mode="json") for trial in trials]}
        self._follow.add(self._build(config))
        return config


def _rounded(value: Any, domain: Domain) -> Any:
    """Return a drawn number of a range as people would write it."""
    if domain.low is None or domain.high is None or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.{_DIGITS}g}"), domain.low), domain.high)


class _Follower:
    """Turns what Ray says of the trials into their record and the view."""

    def __init__(self, root: Folder, search: Search, view: View, after_trial: Callable[[], None]) -> None:
        self._root, self._search, self._view, self._after_trial = root, search, view, after_trial
        self.tasks: dict[str, Work] = {}
        self._epochs: dict[str, News] = {}
        self._lock = Lock()

    def add(self, work: Work) -> None:
        """Take on a task, which is called as its first trial."""
        self.tasks[work.trials[0].id] = work

    def is_finished(self, trial: Trial) -> bool:
        return is_finished(trial, self._root, self._search.index_fingerprint, self._search.space.early_stopping is not None)

    def show(self, trial: Trial) -> None:
        """Show a trial as it is in its folder."""
        found = record(trial, self._root)
        state = found["state"]
        if state == FAILED:
            self._view.trial(trial.id, state, found["reason"])
        elif not self.is_finished(trial):
            self._view.trial(trial.id, "waiting")
        else:
            self._view.trial(trial.id, state, f"mIoU {objective(trial, self._root):.2f}" if state == DONE else found["reason"])

    def __call__(self, event: str, name: str, news: News) -> None:
        """Take news of the task that is called as its first trial."""
        with self._lock:
            trials = self.tasks[name].trials
            if event == "start":
                self._view.trial(trials[0].id, "starting")
            elif event == "news":
                self._news(news)
            elif event in {"crash", "stopped"}:
                self._ended(event, trials, news)

    def _news(self, news: News) -> None:
        name = news.get("trial")
        if name is None:
            return
        if "state" in news:
            self._show_by_name(name)
            self._after_trial()
        elif "epoch" in news:
            self._epochs[name] = news
        else:
            epoch = self._epochs.get(name, {})
            score = f"  epoch {epoch['epoch']}: mAP {100 * epoch['val_map']:.1f}" if "val_map" in epoch else ""
            self._view.trial(name, news["stage"], news["text"] + score, news["at"], news["of"])

    def _show_by_name(self, name: str) -> None:
        for task in self.tasks.values():
            for trial in task.trials:
                if trial.id == name:
                    self.show(trial)

    def _ended(self, event: str, trials: tuple[Trial, ...], news: News) -> None:
        for trial in trials:
            if self.is_finished(trial) or record(trial, self._root)["state"] == FAILED:
                continue
            if event == "crash":
                note(trial, self._root, state=FAILED, reason=news["reason"], finished=time.strftime("%Y-%m-%dT%H:%M:%S%z"))
            else:
                epoch = self._epochs.get(trial.id, {}).get("epoch")
                note(trial, self._root, state=STOPPED, reason=f"stopped early after epoch {epoch}" if epoch else _OTHER_SEED)
            self.show(trial)
        self._after_trial()
