"""The samples of a search with the strategy `search`: past and pending ones, new ones from the searcher, and early stopping."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from vwl.config.layout import Layout
from vwl.config.recipe import Recipe
from vwl.engine.search_types import PastSample
from vwl.storage.folder import Folder
from vwl.tuning.follow import OTHER_SEED_STOPPED, Follower
from vwl.tuning.rows import Scored
from vwl.tuning.search import Search
from vwl.tuning.space import Domain, EarlyStopping
from vwl.tuning.trials import DONE, STOPPED, UNFINISHED, Trial, TrialGroup, objective, read_record, update_record

_DIGITS = 3
"""Significant digits of a number drawn from a range, which keeps recipes readable."""


def past_and_pending(search: Search, root: Folder, follower: Follower) -> tuple[list[PastSample], list[dict[str, Any]]]:
    """Return the samples whose trials have ended, and the overrides of those with trials that are unfinished or failed.

    A sample that was stopped early with one seed is not run with other seeds, not even with new ones: their records say so.
    """
    past: list[PastSample] = []
    pending: list[dict[str, Any]] = []
    for number, overrides in enumerate(search.samples, 1):
        trials = [entry.trial for entry in search.entries_of(overrides, number, search.seeds)]
        states = [read_record(trial, root).state if follower.is_finished(trial) else UNFINISHED for trial in trials]
        if STOPPED in states:
            past.append(PastSample(overrides, None))
            for trial, state in zip(trials, states, strict=True):
                if state == UNFINISHED:
                    update_record(trial, root, state=STOPPED, reason=OTHER_SEED_STOPPED)
        elif all(state == DONE for state in states):
            past.append(PastSample(overrides, float(np.mean([objective(trial, root) for trial in trials]))))
        else:
            pending.append(overrides)
    return past, pending


@dataclass(frozen=True)
class GroupBuilder:
    """Builds the group of a sample's trials, one a seed, in the process that runs it.

    Attributes:
        root: the search's folder.
        index_path: the data set.
        layout: of the trainings.
        stage: the stage whose score is compared.
        may_stop: whether trials that were stopped early count as finished.
    """

    root: Folder
    index_path: str
    layout: Layout
    stage: Scored
    may_stop: bool

    def __call__(self, config: dict[str, Any]) -> TrialGroup:
        """Return the trials of a Tune configuration."""
        trials = tuple(Trial(Recipe.model_validate(recipe), self.stage) for recipe in config["recipes"])
        return TrialGroup(trials, self.root, self.index_path, self.layout, self.may_stop)


class SampleRegistry:
    """Stores each sample in the search's file before its trials start."""

    def __init__(self, search: Search, root: Folder, build: GroupBuilder, follower: Follower, pending: Sequence[dict[str, Any]]) -> None:
        self._search, self._root, self._build, self._follower = search, root, build, follower
        self._pending = list(pending)

    def admit(self, overrides: dict[str, Any]) -> dict[str, Any] | None:
        """Return the Tune configuration of a sample's trials; none if the sample is in the search already and not pending."""
        overrides = {key: round_to_digits(value, self._search.space.search[key]) for key, value in overrides.items()}
        if overrides in self._pending:
            self._pending.remove(overrides)
        elif overrides in self._search.samples:
            return None
        else:
            self._search = replace(self._search, samples=(*self._search.samples, overrides))
            self._search.write(self._root)
        number = self._search.samples.index(overrides) + 1
        trials = [entry.trial for entry in self._search.entries_of(overrides, number, self._search.seeds)]
        config = {"name": trials[0].id, "recipes": [trial.recipe.model_dump(mode="json") for trial in trials]}
        self._follower.add(self._build(config))
        return config


def round_to_digits(value: Any, domain: Domain) -> Any:
    """Return a float drawn from a range rounded to three significant digits, within the range; other values as they are."""
    if domain.low is None or domain.high is None or not isinstance(value, float):
        return value
    return min(max(float(f"{value:.{_DIGITS}g}"), domain.low), domain.high)


def fewest_epochs(search: Search) -> int:
    """Return the epochs of the shortest training that the search can draw."""
    key = "classifier.epochs"
    domain = search.space.search.get(key)
    samples: list[dict[str, Any]] = [{}] if domain is None else [{key: value} for value in domain.choices or [domain.low]]
    entries = [entry for overrides in samples for entry in search.entries_of(overrides, 0, search.seeds[:1])]
    return min(entry.trial.recipe.classifier.epochs for entry in entries)


def last_stopping_epoch(early: EarlyStopping, epochs: int) -> int | None:
    """Return the last epoch after which a training may be stopped; none if it is too short to be stopped.

    A training that has reached its last epoch has cost all its time, so it is scored and never stopped.
    """
    return epochs - 1 if early.grace_epochs < epochs else None
