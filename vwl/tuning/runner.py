"""Runs a search: refuses what cannot end before anything starts, hands the trials that are left to Ray, and keeps the record."""

import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from threading import Lock
from typing import Any, Protocol

from vwl.data.index import Index, read_index
from vwl.plan import BASE_MEMORY, worker_memory
from vwl.recipe import Recipe
from vwl.stages import STAGES
from vwl.store import Folder
from vwl.training.distributed import Layout
from vwl.tuning.search import Sample, Search, groups
from vwl.tuning.trials import DONE, FAILED, STOPPED, UNFINISHED, News, Trial, Work, is_finished, note, objective, record, work

_DIGITS = 3
"""Significant digits of a drawn number: a recipe that people read."""


@dataclass(frozen=True)
class Places:
    """Where trials run: the layout of each, how many at a time (none: as many as fit), and the cluster's address."""

    layout: Layout
    concurrent: int | None = None
    address: str | None = None


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
        VwlError: a trial can never fit into the cluster, or its batch cannot be shared by its workers.
        Interrupted: Ctrl-C; what was done is kept.
    """
    search = search.joined_with_stored(root)
    index = read_index(search.index_path)
    for entry in search.entries() or [search.entry_of(Sample({}, search.seeds[0]), 0)]:
        for stage in entry.trial.stages:
            if STAGES[stage].kind == "train":
                places.layout.pieces(getattr(entry.trial.recipe, stage).batch_size)
    follow = _Follower(root, index, search, view, after_trial)
    for trial in {entry.trial.id: entry.trial for entry in search.entries()}.values():
        follow.show(trial)
    (_run_samples if search.space.strategy == "search" else _run_grid)(search, root, places, follow, say)


def _run_grid(search: Search, root: Folder, places: Places, follow: "_Follower", say: Callable[[str], None]) -> None:
    found = list(groups(search.entries(), search.index_fingerprint))
    for group in found:
        left = tuple(trial for trial in group if not follow.is_finished(trial))
        if left:
            follow.tasks[left[0].id] = Work(left, root, search.index_path, places.layout)
    total, left_over = sum(map(len, found)), sum(len(task.trials) for task in follow.tasks.values())
    with _opened(search, root, places, total, left_over, say) as concurrent:
        if concurrent:
            from vwl.engine import tune

            tune.run_all(follow.tasks, work, places.layout, concurrent, str(root / "ray"), follow)


@contextmanager
def _opened(search: Search, root: Folder, places: Places, total: int, left: int, say: Callable[[str], None]) -> Iterator[int]:
    """Yield how many trials to run at a time, Ray being there; 0, and no Ray, where none is left."""
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
        say(f"{before}; {min(concurrent, left)} at a time")
        yield concurrent


def _memory(search: Search, layout: Layout) -> float:
    """Return an estimate of the bytes that a trial's workers need."""
    stages = Trial(search.recipe, search.space.stage).stages
    return layout.workers * (BASE_MEMORY + worker_memory(search.recipe, read_index(search.index_path), layout, stages)[0])


def _run_samples(search: Search, root: Folder, places: Places, follow: "_Follower", say: Callable[[str], None]) -> None:
    past, pending = [], []
    for entry in search.entries():
        state = record(entry.trial, root)["state"]
        if state == FAILED or follow.is_finished(entry.trial):
            past.append((entry.setting.overrides, objective(entry.trial, root) if state == DONE else None))
        else:
            pending.append(entry.setting.overrides)
    left = max(search.space.samples - len(past), 0)
    with _opened(search, root, places, search.space.samples, left, say) as concurrent:
        if concurrent:
            from vwl.engine import tune
            from vwl.engine.suggest import Past, Suggester

            early = search.space.early_stopping
            halving = (
                None if early is None else tune.Halving("epoch_score", search.recipe.classifier.epochs, early.grace_epochs, early.keep)
            )
            drawn = _Drawn(search, root, follow, pending)
            suggester = Suggester(search.space.search, search.seeds[0], [Past(*one) for one in past], pending, drawn.admit)
            build = _Build(root, search.index_path, places.layout, search.space.stage)
            tune.run_suggested(suggester, build, left, halving, work, places.layout, concurrent, str(root / "ray"), follow)


@dataclass(frozen=True)
class _Build:
    """Makes a trial's work of a suggestion, in the trial's process."""

    root: Folder
    index_path: str
    layout: Layout
    stage: Any

    def __call__(self, config: News) -> Work:
        return Work((Trial(Recipe.model_validate(config["recipe"]), self.stage),), self.root, self.index_path, self.layout)


class _Drawn:
    """Writes down each setting before it is tried."""

    def __init__(self, search: Search, root: Folder, follow: "_Follower", pending: list[dict[str, Any]]) -> None:
        self._search, self._root, self._follow = search, root, follow
        self._pending = {entry.trial.id for entry in search.entries() if entry.setting.overrides in pending}

    def admit(self, keys: dict[str, Any]) -> dict[str, Any] | None:
        """Return the configuration of a setting's trial; none if it is known."""
        keys = {key: float(f"{value:.{_DIGITS}g}") if isinstance(value, float) else value for key, value in keys.items()}
        samples = self._search.samples
        known = next((number for number, sample in enumerate(samples, 1) if sample.keys == keys), None)
        seeds = self._search.seeds
        sample = Sample(keys, seeds[len(samples) % len(seeds)]) if known is None else samples[known - 1]
        entry = self._search.entry_of(sample, known or len(samples) + 1)
        if known is None:
            self._search = replace(self._search, samples=(*samples, sample))
            self._search.write(self._root)
        elif entry.trial.id not in self._pending:
            return None
        self._pending.discard(entry.trial.id)
        self._follow.tasks[entry.trial.id] = Work((entry.trial,), self._root, self._search.index_path, Layout())
        return {"name": entry.trial.id, "recipe": entry.trial.recipe.model_dump(mode="json")}


class _Follower:
    """Turns what Ray says of the trials into their record and the view."""

    def __init__(self, root: Folder, index: Index, search: Search, view: View, after_trial: Callable[[], None]) -> None:
        self._root, self._index, self._search, self._view, self._after_trial = root, index, search, view, after_trial
        self.tasks: dict[str, Work] = {}
        self._epochs: dict[str, News] = {}
        self._lock = Lock()

    def is_finished(self, trial: Trial) -> bool:
        return is_finished(trial, self._root, self._index, self._search.index_path)

    def show(self, trial: Trial) -> None:
        """Show a trial as it is in its folder."""
        found = record(trial, self._root)
        state = found["state"]
        if state == DONE:
            text = f"mIoU {objective(trial, self._root):.2f}" if self.is_finished(trial) else ""
            self._view.trial(trial.id, state if text else "waiting", text)
        else:
            self._view.trial(trial.id, "waiting" if state == UNFINISHED else state, found["reason"])

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
                epoch = self._epochs.get(trial.id, {}).get("epoch", 0)
                note(trial, self._root, state=STOPPED, reason=f"stopped early after epoch {epoch}")
            self.show(trial)
        self._after_trial()
