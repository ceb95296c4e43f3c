"""How stages are laid over CPUs and GPUs; the pool itself is drilled in test_cluster_drills.py."""

import pytest

from vwl.engine.pool import actors, plan_pool, split_cpus


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


@pytest.mark.parametrize(
    ("cpus", "gpus", "num_shards", "max_processes", "wanted"),
    [
        (8, 0, 100, None, (8, 100, 0.0)),  # all CPUs now, and more when nodes join
        (8, 0, 3, None, (3, 3, 0.0)),  # never more than there is work
        (8, 0, 100, 6, (6, 6, 0.0)),
        (4, 0, 100, 6, (4, 6, 0.0)),
        (0, 0, 100, None, (1, 100, 0.0)),  # an autoscaler adds the first node for a process that waits
        (64, 8, 1000, None, (32, 1000, 0.25)),
    ],
)
def test_a_pool_starts_with_what_fits_and_may_grow(cpus, gpus, num_shards, max_processes, wanted):
    pool = plan_pool(cpus, gpus, num_shards, max_processes)
    assert (pool.least, pool.most, pool.gpu_share) == wanted
