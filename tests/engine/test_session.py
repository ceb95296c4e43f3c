"""Sessions: Ray is started by them and by nothing else."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_what_asks_ray_for_something_outside_a_session_starts_none():
    code = "import vwl.engine.session, ray; ray.put(1)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Started a local Ray instance" not in done.stderr
    assert "has not been started yet" in done.stderr.strip().splitlines()[-1]
