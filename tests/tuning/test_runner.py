"""A search before and between its trials, without Ray: data set, pending samples, early stopping."""

from dataclasses import replace

import pytest

from tests.tuning.searches import run_here, space, tiny_index, tiny_recipe
from vwl.config.layout import Layout
from vwl.data.index import read_index, write_index
from vwl.engine.search_types import EpochEnd, PastSample
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.tuning import samples
from vwl.tuning.follow import Follower
from vwl.tuning.runner import TuneResources, run_search
from vwl.tuning.search import Search, open_searches
from vwl.tuning.space import Domain, EarlyStopping
from vwl.tuning.trials import objective, read_record, update_record

DRAWN = {"name": "drawn", "parameter": None, "values": [], "strategy": "search", "early_stopping": {"grace_epochs": 1}}
KEYS = [{"classifier.codebook.num_codewords": number} for number in (4, 8, 16)]


class View:
    def __init__(self) -> None:
        self.shown: dict[str, str] = {}

    def show_trial(self, name: str, state: str, text: str = "", done: int = 0, total: int = 0) -> None:
        self.shown[name] = state


@pytest.fixture
def index_path(tmp_path) -> str:
    return tiny_index(tmp_path)


def planned(found, index_path: str, seeds: int = 1) -> Search:
    return Search.plan(found, tiny_recipe(), read_index(index_path), index_path, seeds)


def drawn(index_path: str, seeds: int = 1) -> Search:
    found = space(**DRAWN, search={"classifier.codebook.num_codewords": {"choices": [4, 8, 16]}})
    return replace(planned(found, index_path, seeds), samples=tuple(KEYS))


def follower(search: Search, root: Folder, view: View | None = None) -> Follower:
    return Follower(root, search, view or View(), lambda: None)


def test_a_changed_data_set_is_an_error_and_leaves_the_folder_as_it_was(index_path, tmp_path):
    root = Folder(tmp_path / "search")
    run_here(planned(space(values=[4]), index_path), root)
    before = {path: path.read_bytes() for path in (tmp_path / "search").rglob("*") if path.is_file()}
    index = read_index(index_path)
    write_index(replace(index, rows=index.rows[1:]), index_path)
    (search,) = open_searches(root)
    with pytest.raises(VwlError, match=r"is not the data set of the search in .*; restore it"):
        run_search(search, root, TuneResources(Layout()), View(), print, lambda: None)
    assert {path: path.read_bytes() for path in (tmp_path / "search").rglob("*") if path.is_file()} == before


def test_a_failed_sample_is_run_again_and_a_stopped_one_is_not(index_path, tmp_path):
    search, root = drawn(index_path), Folder(tmp_path)
    failed, stopped, _ = (entry.trial for entry in search.entries())
    update_record(failed, root, state="failed", reason="no space left")
    update_record(stopped, root, state="stopped", reason="stopped early after epoch 1")
    assert samples.past_and_pending(search, root, follower(search, root)) == ([PastSample(KEYS[1], None)], [KEYS[0], KEYS[2]])


def test_the_objective_of_a_sample_is_the_mean_over_its_seeds_and_it_is_pending_until_all_are_done(index_path, tmp_path):
    search, root = replace(drawn(index_path, seeds=2), samples=tuple(KEYS[:2])), Folder(tmp_path)
    first, second, third, _ = (entry.trial for entry in search.entries())  # seed 0 of both, then seed 1
    run_here(replace(search, samples=(KEYS[0],)), root)
    run_here(replace(search, samples=(KEYS[1],), seeds=(0,)), root)
    past, pending = samples.past_and_pending(search, root, follower(search, root))
    assert past == [PastSample(KEYS[0], pytest.approx((objective(first, root) + objective(third, root)) / 2))]
    assert pending == [KEYS[1]]
    assert objective(second, root) > 0


def test_a_sample_that_was_stopped_with_one_seed_is_not_started_with_new_ones(index_path, tmp_path):
    search, root = replace(drawn(index_path, seeds=3), samples=(KEYS[0],)), Folder(tmp_path)
    first, *others = (entry.trial for entry in search.entries())
    update_record(first, root, state="stopped", reason="stopped early after epoch 1")
    assert samples.past_and_pending(search, root, follower(search, root)) == ([PastSample(KEYS[0], None)], [])
    assert {read_record(trial, root).reason for trial in others} == {"stopped early with another seed"}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({}, 1),
        ({"base": {"classifier.epochs": 4}}, 4),
        ({"search": {"classifier.epochs": {"low": 3, "high": 9}}}, 3),
        ({"search": {"classifier.epochs": {"choices": [9, 5]}}}, 5),
    ],
)
def test_the_fewest_epochs_are_those_of_the_shortest_training_of_the_space(index_path, fields, expected):
    found = space(**DRAWN, **{"search": {"classifier.codebook.num_codewords": {"choices": [4]}}, **fields})
    assert samples.fewest_epochs(planned(found, index_path)) == expected


def test_a_sample_is_admitted_once_or_if_pending_and_is_stored_with_all_seeds(index_path, tmp_path):
    search, root = replace(drawn(index_path, seeds=2), samples=tuple(KEYS[:2])), Folder(tmp_path)
    followed = follower(search, root)
    build = samples.GroupBuilder(root, index_path, Layout(), "cam", may_stop=True)
    admit = samples.SampleRegistry(search, root, build, followed, KEYS[1:2]).admit
    assert admit(KEYS[0]) is None
    pending, new = admit(KEYS[1]), admit(KEYS[2])
    assert pending is not None
    assert new is not None
    assert admit(KEYS[1]) is None
    assert open_searches(root)[0].samples == tuple(KEYS)
    group = build(new)
    assert [(trial.recipe.classifier.codebook.num_codewords, trial.recipe.seed) for trial in group.trials] == [(16, 0), (16, 1)]
    assert followed.groups[new["name"]] == group
    assert group.may_stop


@pytest.mark.parametrize(
    ("value", "domain", "expected"),
    [
        (0.123456, {"low": 0.0, "high": 1.0}, 0.123),
        (0.99987, {"low": 0.9, "high": 0.9999}, 0.9999),
        (0.90001, {"low": 0.9000099, "high": 1.0}, 0.9000099),
        (0.9999, {"choices": [0.9, 0.9999]}, 0.9999),
        (1234, {"low": 1, "high": 5000, "whole": True}, 1234),
    ],
)
def test_a_drawn_number_is_rounded_within_its_range_and_a_choice_is_unchanged(value, domain, expected):
    assert samples.round_to_digits(value, Domain(**domain)) == expected


@pytest.mark.parametrize(("epochs", "grace", "expected"), [(4, 1, 3), (2, 1, 1), (1, 1, None), (3, 5, None)])
def test_no_training_is_stopped_after_its_last_epoch(epochs, grace, expected):
    assert samples.last_stopping_epoch(EarlyStopping(grace_epochs=grace, keep=0.5), epochs) == expected


def test_a_trial_that_another_search_has_stopped_is_waiting(index_path, tmp_path):
    search, root, view = planned(space(values=[4]), index_path), Folder(tmp_path), View()
    trial = search.entries()[0].trial
    update_record(trial, root, state="stopped", reason="stopped early after epoch 1")
    follower(search, root, view).show(trial)
    assert view.shown == {trial.id: "waiting"}


def test_the_other_seeds_of_a_sample_that_is_stopped_early_are_not_started(index_path, tmp_path):
    search, root = replace(drawn(index_path, seeds=2), samples=(KEYS[0],)), Folder(tmp_path)
    followed = follower(search, root)
    trials = tuple(entry.trial for entry in search.entries())
    config = {"name": trials[0].id, "recipes": [trial.recipe.model_dump(mode="json") for trial in trials]}
    followed.add(samples.GroupBuilder(root, index_path, Layout(), "cam", may_stop=True)(config))
    followed.on_event(trials[0].id, EpochEnd(trials[0].id, 1, 0.1, {"val_map": 0.1}))
    followed.on_early_stop(trials[0].id)
    reasons = [read_record(trial, root).reason for trial in trials]
    assert reasons == ["stopped early after epoch 1", "stopped early with another seed"]
    assert all(map(followed.is_finished, trials))
