"""The comparison of the whole chain with the forms of public code, on two drawn scenes."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.timeout(900)
def test_the_small_mode_finds_equal_masks_and_prints_a_row_for_each_step():
    """The script leaves with an error where maps or masks are further apart than it allows."""
    pytest.importorskip("pydensecrf.densecrf")
    script = str(ROOT / "benchmarks" / "end_to_end.py")
    env = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, script, "--images", "2", "--small"], env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for step in ("cam", "crf", "irnet-labels", "walk", "segment", "all but the walk", "whole chain"):
        assert f"{step} (CPU:" in done.stdout
    assert "the dense walk run" in done.stdout
