"""A search on Ray Tune: the scores of this process, no placement groups left, and one-line errors where it cannot run."""

import time
from dataclasses import replace

import pytest
from ray.util.state import list_placement_groups

from tests.tuning.searches import run_here, space, tiny_index, tiny_recipe
from vwl.config.layout import Layout
from vwl.data.index import read_index
from vwl.engine import tune
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.tuning.results import trial_rows
from vwl.tuning.runner import TuneResources, run_search
from vwl.tuning.search import Search, open_searches

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


class Shown:
    """A view that remembers the states of each trial."""

    def __init__(self) -> None:
        self.states: dict[str, list[str]] = {}

    def show_trial(self, name: str, state: str, text: str = "", done: int = 0, total: int = 0) -> None:
        self.states.setdefault(name, []).append(state)


def placement_groups(timeout: float = 60) -> list[str]:
    """Return the placement groups that still hold resources after a timeout in seconds; Ray removes them asynchronously."""
    deadline = time.monotonic() + timeout
    while True:
        left = [group.placement_group_id for group in list_placement_groups() if group.state != "REMOVED"]
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.5)


@pytest.fixture(scope="module")
def search(tmp_path_factory) -> Search:
    index_path = tiny_index(tmp_path_factory.mktemp("tune"))
    return Search.plan(space(values=[4, 8]), tiny_recipe(), read_index(index_path), index_path, num_seeds=1)


@pytest.fixture(scope="module", autouse=True)
def cluster():
    with tune.tune_session(None, cpus=2):
        yield


def run(search: Search, root: Folder, layout: Layout = Layout(), **more: int) -> Shown:  # noqa: B008
    view = Shown()
    run_search(search, root, TuneResources(layout, **more), view, lambda line: None, lambda: None)
    return view


def test_two_trials_at_a_time_give_the_scores_of_this_process_and_leave_nothing_behind(search, tmp_path):
    here, there = Folder(tmp_path / "here"), Folder(tmp_path / "there")
    run_here(search, here)
    view = run(search, there)
    scores = ("state", "train_miou", "val_miou", "val_threshold", "val_best_miou_with_ground_truth")
    ours, theirs = ([[row[name] for name in scores] for row in trial_rows(root, [search])] for root in (there, here))
    assert ours == theirs
    assert all(states[:2] == ["waiting", "starting"] and states[-1] == "done" for states in view.states.values())
    assert placement_groups() == []
    assert {name: states[-1:] for name, states in run(search, there).states.items()} == {name: ["done"] for name in view.states}


def test_a_sampled_search_trains_each_sample_with_each_seed_and_resumes_with_more(search, tmp_path):
    domains = {"classifier.codebook.num_codewords": {"low": 4, "high": 6}}
    drawn = space(name="drawn", parameter=None, values=[], strategy="search", search=domains, samples=2)
    root = Folder(tmp_path)
    sampled = Search.plan(drawn, search.recipe, read_index(search.index_path), search.index_path, num_seeds=2)
    # The first sample is finished in this process within a second; on Ray a trial takes about fifteen.
    run_here(replace(sampled, samples=({"classifier.codebook.num_codewords": 5},)), root)
    run(sampled, root)
    (found,) = open_searches(root)
    rows = trial_rows(root, [found])
    assert [(row["state"], row["seed"]) for row in rows] == [("done", 0)] * 2 + [("done", 1)] * 2
    assert root.read_json("resources.json") == {"drawn": {}}
    first, second = (keys["classifier.codebook.num_codewords"] for keys in found.samples)
    assert (first, second) in {(5, 4), (5, 6)}
    assert placement_groups() == []


@pytest.mark.parametrize(
    ("layout", "more", "message"),
    [
        (
            Layout(workers=2, cpus_per_worker=2),
            {},
            r"a trial needs 2 workers with 2 CPUs each and .* slots for 1 .*nodes: 2 CPUs",
        ),
        (Layout(gpus_per_worker=1), {}, "1 worker with 1 CPU and 1 GPU each"),
        (Layout(), {"concurrent": 3}, "asks for 3 trials at a time and the cluster has worker slots for 2"),
        (Layout(workers=2), {"concurrent": 2}, "asks for 2 trials at a time and the cluster has worker slots for 1"),
        (Layout(workers=3), {}, "does not divide among 3 workers"),
    ],
)
def test_a_search_that_cannot_run_is_a_one_line_error_before_anything_starts(search, tmp_path, layout, more, message):
    with pytest.raises(VwlError, match=message) as caught:
        run(search, Folder(tmp_path), layout, **more)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("gib", "wanted", "expected"), [(1, None, 2), (6, None, 1), (100, None, 1), (100, 2, 2)])
def test_automatic_concurrency_is_limited_by_the_memory_of_the_cluster(monkeypatch, gib, wanted, expected):
    monkeypatch.setattr(tune, "cluster_memory", lambda: 8 * 2**30)
    monkeypatch.setattr(tune, "fitting_tasks", lambda layout: 2)
    assert tune.concurrent_tasks(Layout(), wanted, gib * 2**30) == expected
