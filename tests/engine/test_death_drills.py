"""Drills of processes that die or hang whenever they are started: the command ends in one line that names the stage and the node."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.helpers import tiny_scenes
from tests.ray_cluster import NodeProcesses
from vwl.config.files import load_recipe, to_yaml
from vwl.config.layout import Layout
from vwl.data.index import write_index
from vwl.engine import local
from vwl.engine.base import Engine
from vwl.workflow.pipeline import run_stages
from vwl.workflow.run_folder import Run

pytestmark = [pytest.mark.ray, pytest.mark.drill, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
NODE = r"[0-9.]+ [0-9a-f]{6}"


@pytest.fixture(scope="module")
def faults(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("faults")


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with scenes, their index, the recipe and a run with a classifier."""
    folder = tmp_path_factory.mktemp("deaths")
    write_index(tiny_scenes(folder / "scenes", 32, num_val=0), folder / "index.parquet")
    recipe = load_recipe("demo", TINY)
    (folder / "recipe.yaml").write_text(to_yaml(recipe))
    run = Run.start(str(folder / "run"), recipe, str(folder / "index.parquet"))
    run_stages(run, ["classifier"], Engine(local, local), Layout(cpus_per_worker=1), lambda *_: None, lambda line: None)
    return folder


@pytest.fixture(scope="module")
def cluster(faults) -> Iterator[NodeProcesses]:
    """A head without CPUs, and two nodes with one each, in whose processes faults are switched on by files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VWL_FAULTS", str(faults))
        patch.setenv("PYTHONPATH", f"{ROOT / 'tests' / 'faults'}:{ROOT}")
        with NodeProcesses(token=False, dashboard=False) as cluster:
            cluster.add_node(cpus=1)
            cluster.add_node(cpus=1)
            yield cluster


@pytest.fixture
def fault(faults, request) -> Iterator[None]:
    path = faults / request.param
    path.touch()
    yield
    path.unlink()


def error_line(done: subprocess.CompletedProcess) -> str:
    assert done.returncode == 1, done.stderr
    assert "Traceback" not in done.stderr
    (line,) = (line for line in done.stderr.splitlines() if line.startswith("error:"))
    return line


def train(cluster: NodeProcesses, trained: Path, run: Path, workers: int) -> subprocess.CompletedProcess:
    words = ("--data", trained / "index.parquet", "--recipe", trained / "recipe.yaml", "--run", run, "--address", cluster.gcs)
    limits = {"VWL_COLLECTIVE_TIMEOUT_S": "10", "TORCH_PROCESS_GROUP_SHUTDOWN_TIMEOUT_S": "5"}
    return cluster.vwl("train", "classifier", *words, "--workers", workers, "--cpus-per-worker", 1, **limits)


@pytest.mark.parametrize("fault", ["stage-dies"], indirect=True)
def test_a_stage_whose_processes_die_while_they_load_it(cluster, trained, fault, tmp_path):
    shutil.copytree(trained / "run", tmp_path / "run")
    line = error_line(cluster.vwl("infer", "cam", "--run", tmp_path / "run", "--address", cluster.gcs))
    assert re.fullmatch(rf"error: cam: \d+ processes in a row died while they loaded the stage, the last on node {NODE}; is there .*", line)


@pytest.mark.parametrize("fault", ["training-dies"], indirect=True)
def test_a_training_whose_worker_dies_at_each_start(cluster, trained, fault, tmp_path):
    line = error_line(train(cluster, trained, tmp_path / "run", workers=1))
    assert re.fullmatch(
        rf"error: classifier: 4 starts in a row ended before step 1 was finished \(worker 0 on node {NODE} died or hung\); is there .*",
        line,
    )


@pytest.mark.parametrize("fault", ["worker-hangs"], indirect=True)
def test_a_training_whose_worker_hangs_at_each_start(cluster, trained, fault, tmp_path):
    line = error_line(train(cluster, trained, tmp_path / "run", workers=2))
    print(f"\n{line}")
    assert re.match(
        rf"error: classifier: 4 starts in a row ended .* \(worker 1 on node {NODE} died or hung; worker 0 on node {NODE}: ", line
    )
