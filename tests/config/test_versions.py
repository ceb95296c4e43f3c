"""The commit of the running code, also in a submitted job and without git."""

from vwl.config.versions import commit


def test_a_submitted_job_has_the_commit_of_the_submitted_code(monkeypatch):
    monkeypatch.setenv("VWL_COMMIT", "abc1234")
    assert commit() == "abc1234"


def test_without_git_there_is_no_commit(monkeypatch):
    monkeypatch.delenv("VWL_COMMIT", raising=False)
    monkeypatch.setenv("PATH", "")
    assert commit() == ""
