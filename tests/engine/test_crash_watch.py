"""When deaths of a pool's processes end a stage; real ones are in test_death_drills.py."""

import subprocess
import sys

import pytest

from vwl.engine.crash_watch import MAX_BEGINNINGS, MAX_DEATHS_AT_START, CrashWatch


@pytest.mark.parametrize("module", ["vwl.engine.crash_watch", "vwl.engine.board"])
def test_the_actors_beside_the_workers_import_no_torch(module):
    code = f"import sys, {module}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


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
