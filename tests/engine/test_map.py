"""How a stage is laid over CPUs and GPUs; what it does there is tested in test_engine.py and test_map_drills.py."""

import pytest

from vwl.engine.map import actors


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
