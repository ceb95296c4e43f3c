"""Optuna's suggestions for Ray Tune, resumed from what the trials' folders say and not from a pickled searcher."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ray.tune.search import Searcher
from ray.tune.search.optuna import OptunaSearch

from vwl.errors import VwlError

OBJECTIVE = "objective"
_DRAWS = 20
"""Suggestions that are tried when all earlier ones were seen before."""


@dataclass(frozen=True)
class Past:
    """A setting that was tried: its objective, or none if it was stopped early or failed."""

    keys: dict[str, Any]
    objective: float | None


class Suggester(OptunaSearch):
    """Tree-structured Parzen estimators over independent domains."""

    def __init__(
        self,
        domains: Mapping[str, Any],
        seed: int,
        past: Sequence[Past],
        pending: Sequence[dict[str, Any]],
        admit: Callable[[dict[str, Any]], dict[str, Any] | None],
    ) -> None:
        """Start from what was tried.

        Args:
            domains: a `vwl.tuning.space.Domain` a key.
            seed: of the sampler.
            past: finished settings.
            pending: settings that were begun, to be suggested first.
            admit: makes a trial's configuration of a setting, or none of one that is known already.

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
        # A search that goes on must not draw again what it drew at its first start.
        sampler = optuna.samplers.TPESampler(seed=seed + len(past) + len(pending), multivariate=True, constant_liar=True)
        super().__init__(space=space, metric=OBJECTIVE, mode="max", sampler=sampler)
        self._admit = admit
        for trial in past:
            state = optuna.trial.TrialState.PRUNED if trial.objective is None else optuna.trial.TrialState.COMPLETE
            done = optuna.trial.create_trial(state=state, value=trial.objective, params=trial.keys, distributions=space)
            self._ot_study.add_trial(done)
        for keys in pending:
            self._ot_study.enqueue_trial(keys)

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return a trial's configuration, or that there is nothing new to try."""
        for _ in range(_DRAWS):
            config = self._admit(dict(super().suggest(trial_id) or {}))
            if config is not None:
                return config
            self.on_trial_complete(trial_id)
            self._ot_trials.pop(trial_id)
            self._completed_trials.discard(trial_id)
        return Searcher.FINISHED

    def __getstate__(self) -> dict[str, Any]:
        return {}  # for Tune's pickled settings, which nobody reads

    def save(self, checkpoint_path: str) -> None:
        """Do nothing: the record of the samples is elsewhere."""

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Do nothing: an objective comes at a trial's end only."""
