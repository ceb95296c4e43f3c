"""Suggestions go on from what was tried: begun settings first, none twice, and none of a space that is used up."""

import sys

import pytest
from ray.tune.search import Searcher

from vwl.engine.suggest import OBJECTIVE, Past, Suggester
from vwl.errors import VwlError
from vwl.tuning.space import Domain

RATE = {"rate": Domain(low=1e-3, high=1e-1, log=True)}
WORDS = {"words": Domain(choices=[4, 8, 16])}


def suggester(domains, past=(), pending=(), admit=lambda keys: {"keys": keys}, seed=0):
    return Suggester(domains, seed, list(past), list(pending), admit)


def keys_of(found: Suggester, number: int, start: int = 0) -> list[dict]:
    return [found.suggest(str(n))["keys"] for n in range(start, start + number)]


def test_suggestions_lie_in_their_domains():
    drawn = keys_of(suggester({**RATE, **WORDS}), 12)
    assert all(1e-3 <= keys["rate"] <= 1e-1 for keys in drawn)
    assert {keys["words"] for keys in drawn} <= {4, 8, 16}
    assert len({keys["rate"] for keys in drawn}) == 12


def test_a_key_of_whole_numbers_is_drawn_whole_and_goes_on_so():
    domains = {"words": Domain(low=4, high=8, whole=True)}
    drawn = keys_of(suggester(domains, past=[Past({"words": 5}, 1.0)], pending=[{"words": 8}]), 12)
    assert drawn[0] == {"words": 8}
    assert {keys["words"] for keys in drawn} <= {4, 5, 6, 7, 8}
    assert all(isinstance(keys["words"], int) for keys in drawn)


def test_what_was_begun_is_suggested_first():
    begun = [{"rate": 0.0123}, {"rate": 0.0456}]
    assert keys_of(suggester(RATE, pending=begun), 2) == begun


def test_what_is_known_is_not_suggested_again_and_a_used_up_space_ends():
    seen: list[int] = []

    def admit(keys):
        if keys["words"] in seen:
            return None
        seen.append(keys["words"])
        return {"keys": keys}

    found = suggester(WORDS, admit=admit)
    keys_of(found, 3)
    assert sorted(seen) == [4, 8, 16]
    assert found.suggest("more") == Searcher.FINISHED


def test_a_search_that_goes_on_does_not_draw_what_it_drew_at_first():
    first = keys_of(suggester(RATE), 3)
    again = keys_of(suggester(RATE, past=[Past(keys, 1.0) for keys in first]), 3)
    assert not {keys["rate"] for keys in first} & {keys["rate"] for keys in again}


def test_past_scores_steer_the_suggestions():
    past = [Past({"rate": rate}, rate) for rate in (10 ** (-3 + 0.1 * n) for n in range(21))]
    rates = []
    found = suggester(RATE, past=past)
    for number in range(10):
        rates.append(found.suggest(str(number))["keys"]["rate"])
        found.on_trial_complete(str(number), {OBJECTIVE: rates[-1]})
    assert sum(rate > 0.01 for rate in rates) >= 8  # at random 5


def test_a_trial_without_a_score_counts_as_given_up():
    found = suggester(RATE, past=[Past({"rate": 0.01}, None)])
    found.suggest("a")
    found.on_trial_result("a", {"epoch": 1, "training_iteration": 1})  # news without a score are no mistake
    found.on_trial_complete("a", {"epoch": 1})
    found.suggest("b")
    found.on_trial_complete("b", {OBJECTIVE: 40.0})
    assert [trial.state.name for trial in found._ot_study.trials] == ["PRUNED", "PRUNED", "COMPLETE"]


def test_without_optuna_the_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(VwlError, match=r"needs the package optuna: pip install 'vwl\[tune\]'"):
        suggester(RATE)
