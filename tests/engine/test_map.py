"""How stages are laid over CPUs and GPUs; what they do there is tested in test_engine.py and test_map_drills.py."""

import pytest
from ray.data import DataContext

from vwl.engine.map import actors, limit_waiting, split_cpus


@pytest.mark.parametrize(
    ("cpus", "gpus", "wanted"),
    [
        (8, 0, (8, 0.0)),  # a CPU each
        (64, 8, (32, 0.25)),  # four to a GPU, so that it does not wait for what they do on CPUs
        (16, 8, (16, 0.5)),
        (8, 8, (8, 1.0)),
        (6, 4, (4, 1.0)),
        (2, 4, (2, 1.0)),  # never more than there are CPUs, or the pool would wait for ever
    ],
)
def test_actors_fill_gpus_and_cpus(cpus, gpus, wanted):
    assert actors(cpus, gpus) == wanted


@pytest.mark.parametrize(
    ("cpus", "gpus", "wanted"),
    [
        (1, 0, None),
        (2, 0, (1, 1)),
        (64, 0, (48, 16)),
        (64, 8, (32, 32)),  # what networks leave
        (8, 8, (7, 1)),  # and never nothing
        (2, 4, (1, 1)),
    ],
)
def test_networks_and_others_share_the_cpus(cpus, gpus, wanted):
    assert split_cpus(cpus, gpus) == wanted


def test_a_stage_that_hangs_is_ended_after_five_minutes_unless_the_user_says_otherwise(monkeypatch):
    context = DataContext()
    limit_waiting(context)
    assert context.execution_no_progress_timeout_s == 300
    monkeypatch.setenv("RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S", "7")
    theirs = DataContext(execution_no_progress_timeout_s=7)
    limit_waiting(theirs)
    assert theirs.execution_no_progress_timeout_s == 7
