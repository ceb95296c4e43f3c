"""The losses of ten steps of each training are those on record; if others are meant, `python -m tests.golden.update` records them."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import compare
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


def test_two_layouts_are_compared_from_the_command_line():
    command = [sys.executable, str(GOLDEN / "compare.py"), ".@1x4", ".@1x1", "--steps", "2", "--tolerance", "1e-9"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert all(kind in done.stdout for kind in KINDS)
    assert "same" in done.stdout


def test_a_difference_above_the_tolerance_is_reported(capsys):
    first = {kind: [{"loss": 1.0}, {"loss": 0.5}] for kind in KINDS}
    second = {**first, "irnet": [{"loss": 1.0}, {"loss": 0.5 + 1e-8}]}
    assert compare.report(first, second, 1e-6)
    assert not compare.report(first, second, 1e-9)
    assert "DIFFERENT" in capsys.readouterr().out
