"""The Slurm script under a real Slurm: a controller and two nodes with their own networks and host names (`tests/slurm_cluster.py`)."""

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import TINY
from tests.helpers import tiny_scenes
from tests.slurm_cluster import HOW_TO_INSTALL, SlurmCluster, is_installed, wait_until
from tests.stages import STAGES
from vwl.cluster.deployment.render import render
from vwl.cluster.deployment.schema import load_deployment
from vwl.config.files import load_recipe, to_yaml
from vwl.data.index import write_index
from vwl.workflow.run_folder import Run

pytestmark = [
    pytest.mark.ray,
    pytest.mark.drill,
    pytest.mark.timeout(2400),
    pytest.mark.skipif(not is_installed(), reason=HOW_TO_INSTALL),
]
ROOT = Path(__file__).parents[2]
MEMORY_GIB = 4
ENDED = {"COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"}


class Jobs:
    """Jobs of the rendered script on a cluster, in a folder that all nodes see."""

    def __init__(self, cluster: SlurmCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        # Ray finds the code of this checkout, and its own files in each node's own folder
        self.environment = {
            "PYTHONPATH": str(ROOT),
            "RAY_TMPDIR": str(cluster.ray),
            "RAY_worker_niceness": "0",
            "RAY_raylet_start_wait_time_s": "300",
            "RAY_agent_register_timeout_ms": "300000",
            "OMP_NUM_THREADS": "1",
        }

    def submit(self, *arguments: str) -> int:
        return self.cluster.sbatch(self.folder / "vwl.sbatch", *arguments, **self.environment)

    def command(self, name: str, run: str) -> list[str]:
        inputs = ["--data", str(self.folder / "index.parquet"), "--recipe", str(self.folder / "tiny.yaml")]
        layout = ["--workers", "2", "--cpus-per-worker", "1", "--checkpoint-steps", "2"]
        return [*name.split(), *inputs, "--run", str(self.folder / run), *layout]

    def log(self, number: int) -> str:
        path = self.folder / f"vwl-{number}.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait_until_checkpoint(self, number: int, run: str) -> None:
        folder = self.folder / run / "classifier/checkpoints"

        def is_saved() -> bool:
            assert self.cluster.job(number)["JobState"] not in ENDED, self.log(number)
            return any(folder.glob("step-*.pt"))

        wait_until(is_saved, 900, lambda: self.log(number))

    def wait_until_requeued(self, number: int, times: int = 1) -> None:
        def is_waiting() -> bool:
            job = self.cluster.job(number)
            assert job["JobState"] not in ENDED, self.log(number)
            return job["JobState"] == "PENDING" and job["Restarts"] == str(times)

        wait_until(is_waiting, 600, lambda: self.log(number))

    def start_now(self, number: int) -> None:
        """Spare the two minutes that Slurm leaves a requeued job's nodes to settle."""
        self.cluster.update(number, StartTime="now")

    def wait_until_end(self, number: int) -> dict[str, str]:
        wait_until(lambda: self.cluster.job(number)["JobState"] in ENDED, 1500, lambda: self.log(number))
        return self.cluster.job(number)

    def wait_until_nodes_are_empty(self) -> None:
        def left() -> list[str]:
            lines = [line for node in self.cluster.nodes for line in self.cluster.processes(node)]
            return [line for line in lines if re.search(r"raylet|gcs_server|ray start|ray::|vwl", line)]

        wait_until(lambda: not left(), 120, lambda: "\n".join(left()))


@pytest.fixture(scope="module")
def jobs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Jobs]:
    folder = tmp_path_factory.mktemp("shared")
    write_index(tiny_scenes(folder / "scenes", 8, 4), str(folder / "index.parquet"))
    (folder / "tiny.yaml").write_text(to_yaml(load_recipe("demo", [*TINY, "classifier.epochs=60"])))
    nodes = ["gpu.count=2", "gpu.gpus=0", "gpu.cpus=1", f"gpu.memory_gib={MEMORY_GIB}"]
    overrides = [*nodes, f"slurm.venv={Path(sys.executable).parents[1]}", f"shared={folder}"]
    (folder / "vwl.sbatch").write_text(render("slurm", load_deployment(None, overrides))["vwl.sbatch"])
    with SlurmCluster(memory=2 * 1024 * MEMORY_GIB) as cluster:
        yield Jobs(cluster, folder)


@pytest.fixture(scope="module")
def undisturbed(jobs: Jobs) -> int:
    """A job that trained the classifier in `undisturbed` to its end."""
    number = jobs.submit(*jobs.command("train classifier", "undisturbed"))
    job = jobs.wait_until_end(number)
    assert job["JobState"] == "COMPLETED", jobs.log(number)
    return number


def losses(run: Path) -> list[dict[str, float]]:
    lines: list[dict[str, Any]] = [json.loads(line) for line in (run / "classifier/metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key == "step" or key.startswith("loss")} for line in lines if "loss" in line]


def weights(run: Path) -> dict[str, torch.Tensor]:
    return torch.load(run / "classifier/weights.pt", weights_only=True)["model"]


def test_a_job_takes_both_nodes_and_leaves_nothing_behind(jobs, undisturbed):
    printed = jobs.log(undisturbed)
    assert "nodes: 2 of 2 have joined" in printed
    assert "CPU collective: gloo over 2 nodes" in printed
    # not the whole machine's memory, and not a node's name that stands for a loopback address
    nodes = re.findall(r"node ([\d.]+) \w+: 1 CPUs, 0 GPUs, ([\d.]+) GiB", printed)
    assert sorted(nodes) == [("10.77.0.11", f"{MEMORY_GIB * 0.8:.1f}"), ("10.77.0.12", f"{MEMORY_GIB * 0.8:.1f}")]
    assert "Traceback" not in printed
    jobs.wait_until_nodes_are_empty()


def test_a_job_at_its_time_limit_saves_is_requeued_and_ends_with_the_losses_of_an_undisturbed_one(jobs, undisturbed):
    number = jobs.submit(*jobs.command("train classifier", "limited"))
    jobs.wait_until_checkpoint(number, "limited")
    limit = int(jobs.cluster.job(number)["RunTime"].split(":")[1]) + 6  # minutes; Slurm signals five minutes before it
    jobs.cluster.update(number, TimeLimit=str(limit))
    jobs.wait_until_requeued(number)
    printed = jobs.log(number)
    assert "finished work is saved" in printed
    assert "Traceback" not in printed
    assert len(losses(jobs.folder / "limited")) < len(losses(jobs.folder / "undisturbed"))
    assert not (jobs.folder / "limited/classifier/weights.pt").exists()

    jobs.cluster.update(number, TimeLimit="1-00:00:00")
    jobs.start_now(number)
    assert jobs.wait_until_end(number)["JobState"] == "COMPLETED", jobs.log(number)
    assert jobs.log(number).startswith(printed)  # the log of the first start is kept
    assert losses(jobs.folder / "limited") == losses(jobs.folder / "undisturbed")
    expected = weights(jobs.folder / "undisturbed")
    assert all(torch.equal(tensor, expected[name]) for name, tensor in weights(jobs.folder / "limited").items())


def test_a_signal_before_ray_has_started_requeues_the_job_as_well(jobs):
    number = jobs.submit(*jobs.command("train classifier", "early"))
    wait_until(lambda: "Local node IP" in jobs.log(number), 300, lambda: jobs.log(number))
    jobs.cluster.signal_batch_script(number, "USR1")
    jobs.wait_until_requeued(number)
    assert not (jobs.folder / "early").exists()
    jobs.cluster.cancel(number)
    jobs.wait_until_nodes_are_empty()


def test_a_job_without_a_command_says_how_the_script_is_used(jobs):
    number = jobs.submit()
    job = jobs.wait_until_end(number)
    assert (job["JobState"], job["ExitCode"]) == ("FAILED", "2:0")
    assert re.search(r"usage: sbatch \S+ COMMAND\.\.\.", jobs.log(number))


def test_a_run_does_all_its_stages(jobs, undisturbed):
    number = jobs.submit(*jobs.command("run", "undisturbed"))
    assert jobs.wait_until_end(number)["JobState"] == "COMPLETED", jobs.log(number)
    there = Run.open(str(jobs.folder / "undisturbed"))
    assert all(there.is_done(stage) for stage in STAGES)
