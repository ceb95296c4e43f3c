"""Suggested samples: pending ones first, none twice, none from a space that is used up, and past scores count."""

import sys

import pytest
from ray.tune.search import Searcher

from vwl.engine.search_types import PastSample
from vwl.engine.suggest import Suggester
from vwl.engine.trainables import OBJECTIVE
from vwl.errors import VwlError
from vwl.tuning.space import Domain

RATE = {"rate": Domain(low=1e-3, high=1e-1, log=True)}
CODEWORDS = {"codewords": Domain(choices=[4, 8, 16])}


def suggester(domains, past=(), pending=(), admit=lambda keys: {"keys": keys}, seed=0):
    return Suggester(domains, seed, list(past), list(pending), admit)


def keys_of(found: Suggester, number: int, start: int = 0) -> list[dict]:
    return [found.suggest(str(n))["keys"] for n in range(start, start + number)]


def test_suggestions_lie_in_their_domains():
    drawn = keys_of(suggester({**RATE, **CODEWORDS}), 12)
    assert all(1e-3 <= keys["rate"] <= 1e-1 for keys in drawn)
    assert {keys["codewords"] for keys in drawn} <= {4, 8, 16}
    assert len({keys["rate"] for keys in drawn}) == 12


def test_an_integer_key_is_drawn_as_an_integer_also_after_past_samples():
    domains = {"codewords": Domain(low=4, high=8, whole=True)}
    drawn = keys_of(suggester(domains, past=[PastSample({"codewords": 5}, 1.0)], pending=[{"codewords": 8}]), 12)
    assert drawn[0] == {"codewords": 8}
    assert {keys["codewords"] for keys in drawn} <= {4, 5, 6, 7, 8}
    assert all(isinstance(keys["codewords"], int) for keys in drawn)


def test_pending_samples_are_suggested_first():
    pending = [{"rate": 0.0123}, {"rate": 0.0456}]
    assert keys_of(suggester(RATE, pending=pending), 2) == pending


def test_known_samples_are_not_suggested_again_and_a_used_up_space_ends():
    seen: list[int] = []

    def admit(keys):
        if keys["codewords"] in seen:
            return None
        seen.append(keys["codewords"])
        return {"keys": keys}

    found = suggester(CODEWORDS, admit=admit)
    keys_of(found, 3)
    assert sorted(seen) == [4, 8, 16]
    assert found.suggest("more") == Searcher.FINISHED


def test_a_resumed_search_does_not_draw_its_first_samples_again():
    first = keys_of(suggester(RATE), 3)
    again = keys_of(suggester(RATE, past=[PastSample(keys, 1.0) for keys in first]), 3)
    assert not {keys["rate"] for keys in first} & {keys["rate"] for keys in again}


def test_suggestions_follow_past_scores():
    past = [PastSample({"rate": rate}, rate) for rate in (10 ** (-3 + 0.1 * n) for n in range(21))]
    rates = []
    found = suggester(RATE, past=past)
    for number in range(10):
        rates.append(found.suggest(str(number))["keys"]["rate"])
        found.on_trial_complete(str(number), {OBJECTIVE: rates[-1]})
    assert sum(rate > 0.01 for rate in rates) >= 8  # 5 if drawn at random


def test_a_trial_without_a_score_counts_as_pruned():
    found = suggester(RATE, past=[PastSample({"rate": 0.01}, None)])
    found.suggest("a")
    found.on_trial_result("a", {"epoch": 1, "training_iteration": 1})  # a result without a score is allowed
    found.on_trial_complete("a", {"epoch": 1})
    found.suggest("b")
    found.on_trial_complete("b", {OBJECTIVE: 40.0})
    assert [trial.state.name for trial in found._ot_study.trials] == ["PRUNED", "PRUNED", "COMPLETE"]


def test_the_error_without_optuna_names_the_package(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(VwlError, match=r"needs the package optuna: pip install 'vwl\[tune\]'"):
        suggester(RATE)
