"""Suggests samples of a search space to Ray Tune, with Optuna. A resumed search is rebuilt from its past samples, not from a pickle."""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from vwl.engine.search_types import PastSample
from vwl.engine.trainables import OBJECTIVE
from vwl.errors import VwlError

_DRAWS = 20
"""Draws after which a search space counts as used up, if all of them repeat earlier samples."""


class Suggester(OptunaSearch):
    """A searcher for Tune: tree-structured Parzen estimators over independent domains."""

    def __init__(
        self,
        domains: Mapping[str, Any],
        seed: int,
        past: Sequence[PastSample],
        pending: Sequence[dict[str, Any]],
        admit: Callable[[dict[str, Any]], dict[str, Any] | None],
    ) -> None:
        """Start from the samples of earlier runs.

        Args:
            domains: a `vwl.tuning.space.Domain` for each recipe key.
            seed: of the sampler.
            past: samples whose trials have ended.
            pending: overrides of unfinished samples, which are suggested first.
            admit: returns the Tune trial's configuration for a sample's overrides, or none if the sample is known already.

        Raises:
            VwlError: Optuna is not installed.
        """
        try:
            import optuna
        except ImportError:
            raise VwlError("a space with the strategy search needs the package optuna: pip install 'vwl[tune]'") from None
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        logging.getLogger("ray.tune.search.optuna").setLevel(logging.ERROR)
        kinds = optuna.distributions
        space: dict[str, Any] = {}
        for key, d in domains.items():
            if d.choices:
                space[key] = kinds.CategoricalDistribution(d.choices)
            elif d.whole:
                space[key] = kinds.IntDistribution(int(d.low), int(d.high), log=d.log)
            else:
                space[key] = kinds.FloatDistribution(d.low, d.high, log=d.log)
        # With the same seed, a resumed search would draw its first samples again.
        sampler = optuna.samplers.TPESampler(seed=seed + len(past) + len(pending), multivariate=True, constant_liar=True)
        super().__init__(space=space, metric=OBJECTIVE, mode="max", sampler=sampler)
        self._admit = admit
        for sample in past:
            state = optuna.trial.TrialState.PRUNED if sample.objective is None else optuna.trial.TrialState.COMPLETE
            trial = optuna.trial.create_trial(state=state, value=sample.objective, params=sample.overrides, distributions=space)
            self._ot_study.add_trial(trial)
        for overrides in pending:
            self._ot_study.enqueue_trial(overrides)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return the configuration of a Tune trial, or `Searcher.FINISHED` if the space is used up."""
        for _ in range(_DRAWS):
            config = self._admit(dict(super().suggest(trial_id) or {}))
            if config is not None:
                return config
            self.on_trial_complete(trial_id)
            self._ot_trials.pop(trial_id)
            self._completed_trials.discard(trial_id)
        return Searcher.FINISHED

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune pickles its searcher with its settings, which are never read

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the search's folder holds the samples."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: a trial has an objective only at its end."""
