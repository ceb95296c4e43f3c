"""The Slurm script under a stand-in for Slurm that starts real Ray nodes: a run to its end, and one whose time is up."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_cluster import processes_of
from tests.stages import STAGES
from vwl.cluster.deployment.render import render
from vwl.cluster.deployment.schema import load_deployment
from vwl.config.files import to_yaml
from vwl.workflow.run_folder import Run

pytestmark = [pytest.mark.ray, pytest.mark.drill, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]

SRUN = """#!/usr/bin/env bash
# srun for one machine: every node is this one; options are skipped, the step is run here and ends with srun
step=()
while [ "$#" -gt 0 ]; do
  case $1 in
    --*) echo "$1" >> "$LOG" ;;
    *) step=("$@"); break ;;
  esac
  shift
done
trap 'kill "$child"; wait "$child"; exit 143' TERM
if [ "${step[0]}" = hostname ]; then step=(echo 127.0.0.1); fi
"${step[@]}" &
child=$!
wait "$child"
"""
SCONTROL = """#!/usr/bin/env bash
case $1 in
  show) printf 'one\\ntwo\\n' ;;
  *) echo "scontrol $*" >> "$LOG" ;;
esac
"""


@pytest.fixture
def slurm(tmp_path, tiny_run, monkeypatch) -> Iterator[dict[str, str]]:
    """The environment that Slurm gives a batch script of two nodes with a CPU each; commands of Slurm that do it here."""
    for name, text in (("srun", SRUN), ("scontrol", SCONTROL)):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    venv = Path(sys.executable).parents[1]
    overrides = ["gpu.count=2", "gpu.gpus=0", "gpu.cpus=1", f"slurm.venv={venv}", f"shared={tmp_path}"]
    (tmp_path / "vwl.sbatch").write_text(render("slurm", load_deployment(None, overrides))["vwl.sbatch"])
    (tmp_path / "tiny.yaml").write_text(to_yaml(tiny_run.recipe))
    with tempfile.TemporaryDirectory(prefix="r", dir="/tmp", ignore_cleanup_errors=True) as short:
        kept = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
        yield kept | {
            "PATH": f"{tmp_path}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "LOG": str(tmp_path / "slurm.log"),
            "RAY_TMPDIR": short,
            "RAY_worker_niceness": "0",
            "RAY_raylet_start_wait_time_s": "300",
            "OMP_NUM_THREADS": "1",
            "SLURM_JOB_ID": str(os.getpid()),
            "SLURM_JOB_NODELIST": "node[1-2]",
            "SLURM_CPUS_PER_TASK": "1",
        }


def start(folder: Path, environment: dict[str, str], *arguments: str) -> subprocess.Popen:
    with (folder / "out.log").open("w") as log:
        return subprocess.Popen(
            ["bash", "vwl.sbatch", *arguments], cwd=folder, env=environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        )


def wait_for_the_end_of(job: subprocess.Popen) -> None:
    """Wait until no process of a job is left; a node of Ray that is killed while it drains leaves its own to find that out."""
    deadline = time.monotonic() + 60
    while processes_of(job.pid):
        assert time.monotonic() < deadline, processes_of(job.pid)
        time.sleep(1)


def run_arguments(tiny_run: Run) -> list[str]:
    return ["run", "--data", tiny_run.index_path, "--recipe", "tiny.yaml", "--run", "there", "--workers", "2", "--cpus-per-worker", "1"]


def test_the_script_starts_ray_on_its_nodes_and_runs_the_command(slurm, tmp_path, tiny_run):
    process = start(tmp_path, slurm, *run_arguments(tiny_run))
    code = process.wait(timeout=1500)
    printed = (tmp_path / "out.log").read_text()
    assert code == 0, printed
    assert "nodes: 2 of 2 have joined" in printed
    there = Run.open(str(tmp_path / "there"))
    assert all(there.is_done(stage) for stage in STAGES)
    options = (tmp_path / "slurm.log").read_text().split()
    assert [option for option in options if option.startswith("--nodelist=")] == ["--nodelist=one", "--nodelist=one", "--nodelist=two"]
    assert "--cpus-per-task=1" in options
    assert "scontrol" not in options
    wait_for_the_end_of(process)  # Ray's nodes go with the job


def test_a_run_whose_time_is_up_saves_and_is_put_back_into_the_queue(slurm, tmp_path, tiny_run):
    arguments = [*run_arguments(tiny_run), "-o", "classifier.epochs=400", "--checkpoint-steps", "2"]
    process = start(tmp_path, slurm, *arguments)
    deadline = time.monotonic() + 900
    while not list((tmp_path / "there/classifier/checkpoints").glob("step-*.pt")):
        assert process.poll() is None, (tmp_path / "out.log").read_text()
        assert time.monotonic() < deadline
        time.sleep(1)
    os.kill(process.pid, signal.SIGUSR1)
    code = process.wait(timeout=600)
    printed = (tmp_path / "out.log").read_text()
    assert code == 130, printed
    assert re.search(r"finished work is saved", printed)
    assert f"scontrol requeue {slurm['SLURM_JOB_ID']}" in (tmp_path / "slurm.log").read_text()
    wait_for_the_end_of(process)


def test_without_a_command_the_script_says_how_it_is_used(slurm, tmp_path):
    process = start(tmp_path, slurm)
    assert process.wait(timeout=60) == 2
    assert "usage: sbatch vwl.sbatch COMMAND..." in (tmp_path / "out.log").read_text()
