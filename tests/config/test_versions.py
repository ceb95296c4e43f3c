"""Versions and commit, also where there is no git and no checkout."""

from vwl.config.versions import commit


def test_a_submitted_job_names_the_commit_of_the_code_that_was_sent(monkeypatch):
    monkeypatch.setenv("VWL_COMMIT", "abc1234")
    assert commit() == "abc1234"


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.delenv("VWL_COMMIT", raising=False)
    monkeypatch.setenv("PATH", "")
    assert commit() == ""
