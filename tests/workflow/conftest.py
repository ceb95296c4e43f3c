"""Fixtures of the workflow's tests."""

import pytest

from tests.helpers import copy_run, truncate
from tests.stages import STAGES
from tests.workflow.runs import delete_stages
from vwl.workflow.run_folder import Run


@pytest.fixture
def copied(tiny_run, tmp_path) -> Run:
    return copy_run(tiny_run, tmp_path)


@pytest.fixture
def damaged(copied) -> Run:
    """A run without inference results, two of whose images were damaged."""
    delete_stages(copied, *(name for name, spec in STAGES.items() if spec.kind != "train"))
    truncate(copied.index, "train_00002")
    truncate(copied.index, "val_00001")
    return copied
