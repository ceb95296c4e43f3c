"""Fixtures of the report's tests."""

import pytest

from tests.helpers import copy_run
from vwl.workflow.run_folder import Run


@pytest.fixture
def copied(tiny_run, tmp_path) -> Run:
    return copy_run(tiny_run, tmp_path)
