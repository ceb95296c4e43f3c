"""How stages are laid over CPUs and GPUs, and what is done about processes that die; the pool itself is drilled in test_cluster_drills.py."""

import pytest

from vwl.engine.pool import MAX_BEGINNINGS, MAX_DEATHS_AT_START, CrashWatch, actors, plan_pool, split_cpus


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


def test_processes_that_die_one_after_the_other_while_they_load_end_the_stage():
    watch = CrashWatch("cam")
    watch.building("a", "10.0.0.1 aaaaaa")
    for _ in range(MAX_DEATHS_AT_START - 1):
        assert watch.building("a", "10.0.0.2 bbbbbb") == ""
    assert watch.building("a", "10.0.0.1 aaaaaa").startswith(
        "cam: 6 processes in a row died while they loaded the stage, the last on node 10.0.0.2"
    )


def test_processes_that_load_at_the_same_time_are_not_dead():
    watch = CrashWatch("cam")
    assert [watch.building(str(number), "node") for number in range(100)] == [""] * 100


def test_a_process_that_has_loaded_ends_the_row():
    watch = CrashWatch("cam")
    for number in range(10 * MAX_DEATHS_AT_START):
        assert watch.building("a", "node") == ""
        if number % (MAX_DEATHS_AT_START - 1) == 0:
            watch.built("b")


def test_a_shard_that_no_process_survives_ends_the_stage_and_others_do_not():
    watch = CrashWatch("crf")
    assert [watch.begin(7, "10.0.0.1 aaaaaa") for _ in range(MAX_BEGINNINGS)] == [""] * MAX_BEGINNINGS
    assert watch.begin(7, "10.0.0.2 bbbbbb").startswith(
        "crf: 8 processes died in shard 7, the last on node 10.0.0.1 aaaaaa; is there enough memory"
    )
    assert watch.begin(8, "10.0.0.1 aaaaaa") == ""
