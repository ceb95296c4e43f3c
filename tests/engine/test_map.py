"""Settings of Ray Data for a stage; what it does there is tested in test_engine.py and test_map_drills.py."""

from ray.data import DataContext

from vwl.engine.map import limit_waiting


def test_a_stage_that_hangs_is_ended_after_five_minutes_unless_the_user_says_otherwise(monkeypatch):
    context = DataContext()
    limit_waiting(context)
    assert context.execution_no_progress_timeout_s == 300
    monkeypatch.setenv("RAY_DATA_EXECUTION_NO_PROGRESS_TIMEOUT_S", "7")
    theirs = DataContext(execution_no_progress_timeout_s=7)
    limit_waiting(theirs)
    assert theirs.execution_no_progress_timeout_s == 7
