"""The losses of ten steps of each training are those on record; if others are meant, `python -m tests.golden.update` records them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden.update import GOLDEN, STEPS, loss_terms
from tests.trainings import KINDS, make_data


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("golden"), num_val=0)


@pytest.mark.parametrize("kind", KINDS)
def test_ten_steps_have_the_losses_on_record(kind, index_path, tmp_path):
    expected = json.loads((GOLDEN / f"{kind}.json").read_text())
    assert len(expected) == STEPS
    for found, wanted in zip(loss_terms(kind, index_path, tmp_path), expected, strict=True):
        assert found == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize(("tolerance", "code", "word"), [("1e-9", 0, "same"), ("1e-30", 1, "DIFFERENT")])
def test_two_layouts_are_compared_from_the_command_line(tolerance, code, word):
    command = [sys.executable, str(GOLDEN / "compare.py"), ".@1x4", ".@1x1", "--steps", "2", "--tolerance", tolerance]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stderr
    assert all(kind in done.stdout for kind in KINDS)
    assert word in done.stdout
