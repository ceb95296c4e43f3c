"""`make bench-gpu` runs on a CPU too, at a size of seconds: every line, its parity, and JSON."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def run(*options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "benchmarks/gpu.py", *options]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=600)


def test_every_part_runs_on_a_cpu_and_is_equal():
    done = run("--device", "cpu", "--small", "--json", "-")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert (report["device"], report["small"]) == ("cpu", True)
    names = [result["what"] for result in report["results"]]
    for part in ("classifier step, bf16, 2 loader threads", "DeepLabV2 step", "CAM, 4 scales", "dense CRF", "random walk"):
        assert any(name.startswith(part) for name in names), part
    assert all(result["right"] and result["value"] > 0 and result["parity"] for result in report["results"])
    steps = [result for result in report["results"] if " step, " in result["what"]]
    assert all(result["flop_share"] > 0 and 0 <= result["data_wait"] <= 1 for result in steps)


def test_without_a_gpu_it_says_so_in_a_line():
    done = run()
    assert done.returncode == 1
    assert done.stderr.splitlines() == ["torch finds no GPU on this machine; --device cpu --small shows that the script runs"]
