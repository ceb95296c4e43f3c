"""Drills of a cluster that changes: nodes join and announce that they leave, nodes have labels, and the head has no CPUs."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.engine.test_map_drills import ended, infer, maps
from tests.helpers import tiny_scenes
from tests.ray_cluster import NodeProcesses, processes_of
from vwl.config.files import load_recipe
from vwl.config.layout import Layout
from vwl.data.index import write_index
from vwl.engine import local
from vwl.engine.base import Engine
from vwl.workflow.pipeline import run_stages
from vwl.workflow.run_folder import Run

pytestmark = [pytest.mark.ray, pytest.mark.drill, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
NUM_IMAGES = 192


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with scenes, their index, and a run whose classifier has seen a few."""
    folder = tmp_path_factory.mktemp("cluster-drills")
    write_index(tiny_scenes(folder / "scenes", NUM_IMAGES, num_val=0), folder / "index.parquet")
    run = Run.start(str(folder / "run"), load_recipe("demo", [*TINY, "classifier.batch_size=32"]), str(folder / "index.parquet"))
    run_stages(run, ["classifier"], Engine(local, local), Layout(cpus_per_worker=1), lambda *_: None, lambda line: None)
    return folder


@pytest.fixture(scope="module")
def undisturbed(trained) -> dict[str, bytes]:
    """The maps that this process makes."""
    shutil.copytree(trained / "run", trained / "undisturbed")
    run = Run.open(str(trained / "undisturbed"))
    run_stages(run, ["cam"], Engine(local, local), Layout(), lambda *_: None, lambda line: None)
    return maps(trained / "undisturbed")


@pytest.fixture
def run(trained, tmp_path) -> Path:
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


@pytest.fixture
def cluster(monkeypatch) -> Iterator[NodeProcesses]:
    """A head without CPUs and a node with one."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with NodeProcesses(token=False) as cluster:
        cluster.add_node(cpus=1)
        yield cluster


def processes_at_work(leader: int) -> list[int]:
    """Return a node's processes of inference that are in the middle of a shard."""
    found = []
    for process in processes_of(leader):
        with suppress(OSError):
            title = Path(f"/proc/{process}/cmdline").read_text()
            if "MapBatches(_Actor)" in title and "submit" in title:
                found.append(process)
    return found


def wait_until_at_work(node: subprocess.Popen, driver: subprocess.Popen) -> list[int]:
    while not (found := processes_at_work(node.pid)):
        assert driver.poll() is None, driver.communicate()[1]
        time.sleep(0.02)
    return found


def test_a_node_that_joins_in_the_middle_of_inference_gets_work(cluster, undisturbed, run):
    driver = infer(cluster, run)
    (busy,) = wait_until_at_work(cluster.nodes[1], driver)
    os.kill(busy, signal.SIGSTOP)  # the only process is busy with its shard until another node has work
    joined = cluster.add_node(cpus=1)
    began = time.monotonic()
    wait_until_at_work(joined, driver)
    print(f"\nat work {time.monotonic() - began:.0f} s after it joined")
    os.kill(busy, signal.SIGCONT)
    ended(driver)
    assert maps(run) == undisturbed
