"""The corpus's own check: a case whose exit code or line is another one fails."""

import pytest

from tests.hostile.cases import Case, check

MISSING = Case("no index", lambda folder: ["data", "check", folder / "missing.parquet"], 1, ("there is no index table",))


def test_a_right_case_passes(tmp_path):
    check(MISSING, tmp_path)


@pytest.mark.parametrize("wrong", [{"code": 0}, {"code": 2}, {"parts": ("another line",)}])
def test_a_wrong_expectation_fails(tmp_path, wrong):
    with pytest.raises(AssertionError):
        check(Case(**{**vars(MISSING), **wrong}), tmp_path)
