"""Follows the trials of a running search: keeps their records, shows their state, and counts what is finished."""

from collections.abc import Callable
from threading import Lock
from typing import Protocol

from vwl.engine.search_types import EpochEnd, StageProgress, TrialEvent
from vwl.storage.folder import Folder
from vwl.tuning.search import Search
from vwl.tuning.trials import DONE, FAILED, STOPPED, Trial, TrialGroup, is_finished, now, objective, read_record, update_record

OTHER_SEED_STOPPED = "stopped early with another seed"


class TrialsView(Protocol):
    """Shows the trials of a search to the user."""

    def show_trial(self, name: str, state: str, text: str = "", done: int = 0, total: int = 0) -> None:
        """Show a trial's state or its running stage, and how much of the stage is done."""


class Follower:
    """The callbacks of a search (`vwl.engine.search_types.SearchCallbacks`): turns events into records and into what is shown.

    Attributes:
        groups: trials that are run by this search, by the id of their first trial, which is the task's name.
    """

    def __init__(self, root: Folder, search: Search, view: TrialsView, after_trial: Callable[[], None]) -> None:
        self._root, self._search, self._view, self._after_trial = root, search, view, after_trial
        self.groups: dict[str, TrialGroup] = {}
        self._epochs: dict[str, EpochEnd] = {}
        self._lock = Lock()

    def add(self, group: TrialGroup) -> None:
        """Follow a group of trials."""
        self.groups[group.trials[0].id] = group

    def is_finished(self, trial: Trial) -> bool:
        """Return whether this search has no work left for a trial."""
        return is_finished(trial, self._root, self._search.index_fingerprint, self._search.space.early_stopping is not None)

    def show(self, trial: Trial) -> None:
        """Show a trial's state according to its record."""
        record = read_record(trial, self._root)
        if record.state == FAILED:
            self._view.show_trial(trial.id, record.state, record.reason)
        elif not self.is_finished(trial):
            self._view.show_trial(trial.id, "waiting")
        else:
            text = f"mIoU {objective(trial, self._root):.2f}" if record.state == DONE else record.reason
            self._view.show_trial(trial.id, record.state, text)

    def on_start(self, task: str) -> None:
        """Show that the group's first trial is starting."""
        with self._lock:
            self._view.show_trial(self.groups[task].trials[0].id, "starting")

    def on_event(self, task: str, event: TrialEvent) -> None:
        """Show a trial's progress or its end."""
        with self._lock:
            if isinstance(event, StageProgress):
                epoch = self._epochs.get(event.trial)
                score = f"  epoch {epoch.epoch}: mAP {100 * epoch.metrics['val_map']:.1f}" if epoch and "val_map" in epoch.metrics else ""
                self._view.show_trial(event.trial, event.stage, event.message + score, event.done, event.total)
            elif isinstance(event, EpochEnd):
                self._epochs[event.trial] = event
            else:
                for trial in self.groups[task].trials:
                    if trial.id == event.trial:
                        self.show(trial)
                self._after_trial()

    def on_early_stop(self, task: str) -> None:
        """Record that the group's unfinished trials were stopped early."""
        with self._lock:
            for trial in self._open_trials(task):
                epoch = self._epochs.get(trial.id)
                reason = f"stopped early after epoch {epoch.epoch}" if epoch else OTHER_SEED_STOPPED
                update_record(trial, self._root, state=STOPPED, reason=reason)
                self.show(trial)
            self._after_trial()

    def on_crash(self, task: str, reason: str) -> None:
        """Record that the group's unfinished trials have failed."""
        with self._lock:
            for trial in self._open_trials(task):
                update_record(trial, self._root, state=FAILED, reason=reason, finished=now())
                self.show(trial)
            self._after_trial()

    def _open_trials(self, task: str) -> list[Trial]:
        """Return the trials of a group that have neither finished nor failed."""
        trials = self.groups[task].trials
        return [trial for trial in trials if not self.is_finished(trial) and read_record(trial, self._root).state != FAILED]
