"""Drills of a cluster that changes: nodes join and announce that they leave, nodes have labels, and the head has no CPUs."""

import json
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.engine.test_drills import Driver, command_of
from tests.engine.test_map_drills import ended, infer, maps
from tests.helpers import tiny_scenes
from tests.ray_cluster import RAY, VWL, NodeProcesses, processes_of
from tests.trainings import make_data, metrics, tiny_spec, train_to_end
from vwl.config.files import load_recipe, to_yaml
from vwl.config.layout import Layout
from vwl.data.index import write_index
from vwl.engine import local
from vwl.engine.base import Engine
from vwl.workflow.pipeline import run_stages
from vwl.workflow.run_folder import Run

pytestmark = [pytest.mark.ray, pytest.mark.drill, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
NUM_IMAGES = 192
STEPS = 60


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
    with NodeProcesses(token=False, dashboard=False) as cluster:
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


def node_id(node: subprocess.Popen) -> str:
    """Return Ray's id of a node, which its processes have on their command lines."""
    for process in processes_of(node.pid):
        with suppress(OSError):
            if found := re.search(r"node[-_]id[= \0]([0-9a-f]{56})", Path(f"/proc/{process}/cmdline").read_text()):
                return found[1]
    raise AssertionError("no process of the node names it")


def test_a_node_that_announces_its_preemption_costs_no_step(cluster, tmp_path):
    cluster.add_node(cpus=1)
    data, taken = make_data(tmp_path, num_val=0), cluster.nodes[2]
    # no checkpoint but the one before the node is taken
    driver = Driver(cluster, data, tmp_path / "disturbed", 2, steps=(STEPS, 10 * STEPS), RAY_TRAIN_PREEMPTION_POLL_INTERVAL_S="0.5")
    while driver.next_step() != 7:
        pass
    (worker,) = (pid for pid in processes_of(taken.pid) if "RayTrainWorker" in command_of(pid))
    os.kill(worker, signal.SIGSTOP)  # the training waits while the cluster is told; it must not end before
    words = ["--node-id", node_id(taken), "--reason", "DRAIN_NODE_REASON_PREEMPTION", "--reason-message", "drill"]
    command = [RAY, "drain-node", "--address", cluster.gcs, *words, "--deadline-remaining-seconds", "600"]
    subprocess.run(command, env=cluster.driver_environment(), check=True, capture_output=True)
    cluster.add_node(cpus=1)
    os.kill(worker, signal.SIGCONT)
    continued = time.monotonic()
    steps = [7]
    while (step := driver.next_step(600)) is not None:
        if step == steps[-1] + 1 and taken in cluster.nodes and any("is about to be taken" in line for line in driver.said):
            print(f"\nthe step after the save was finished {time.monotonic() - continued:.0f} s after the announcement")
            assert command_of(worker) == ""
            cluster.kill(taken)
            cluster.nodes.remove(taken)
        steps.append(step)
    assert driver.process.wait() == 0, driver.said[-40:]
    assert taken not in cluster.nodes
    assert steps == list(range(7, STEPS + 1))
    (message,) = (line for line in driver.said if "is about to be taken" in line)
    print(message)
    train_to_end(tiny_spec("classifier-M", data, tmp_path / "undisturbed", STEPS), log_every=10)
    lines, others = metrics(tmp_path / "disturbed"), metrics(tmp_path / "undisturbed")
    assert [line["step"] for line in lines] == [line["step"] for line in others]
    for line, expected in zip(lines, others, strict=True):
        assert line == pytest.approx(expected, rel=1e-9)


@pytest.fixture
def market(monkeypatch) -> Iterator[NodeProcesses]:
    """A head without CPUs, and two nodes with labels."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with NodeProcesses(dashboard=False) as cluster:
        cluster.add_node(cpus=1, labels="market=on-demand")
        cluster.add_node(cpus=1, labels="market=spot,zone=a")
        yield cluster


def where_processes_were(cluster: NodeProcesses, driver: subprocess.Popen) -> set[tuple[str, str]]:
    """Follow a command to its end and return the kinds of workers that were seen, each with its node."""
    seen = set()
    kinds = {"RayTrainWorker": "training", "MapBatches(_Actor)": "inference"}
    while driver.poll() is None:
        for name, node in zip(("head", "on-demand", "spot"), cluster.nodes, strict=True):
            titles = [command_of(process) for process in processes_of(node.pid)]
            seen |= {(name, kind) for title in titles for text, kind in kinds.items() if text in title}
        time.sleep(0.3)
    said = driver.communicate()[1]
    assert driver.returncode == 0, said
    return seen


def test_a_head_without_cpus_and_labels_that_say_where_trainings_and_inference_run(market, trained, tmp_path):
    index, run = trained / "index.parquet", tmp_path / "run"
    (tmp_path / "recipe.yaml").write_text(to_yaml(load_recipe("demo", [*TINY, "classifier.batch_size=32"])))
    known = ("--data", index, "--recipe", tmp_path / "recipe.yaml", "--run", run, "--address", market.gcs)

    def start(*words: object) -> subprocess.Popen:
        options = {"cwd": ROOT, "env": market.driver_environment(), "stdout": subprocess.DEVNULL, "stderr": subprocess.PIPE, "text": True}
        return subprocess.Popen([*VWL, *map(str, words)], **options)

    training = start("train", "classifier", *known, "--cpus-per-worker", 1, "--trainers-on", "market=on-demand")
    assert where_processes_were(market, training) == {("on-demand", "training")}
    inference = start("infer", "cam", "--run", run, "--address", market.gcs, "--inference-on", "market=!on-demand")
    assert where_processes_were(market, inference) == {("spot", "inference")}
    assert json.loads((run / "cam" / "manifest.json").read_text())["state"] == "done"

    refused = market.vwl("infer", "crf", "--run", run, "--address", market.gcs, "--inference-on", "market=reserved")
    assert refused.returncode == 1
    assert refused.stderr == (
        "error: no node of the cluster has the labels market=reserved of --inference-on (their labels: market=on-demand; "
        "market=spot, zone=a); start nodes with: ray start --address HEAD:6379 --labels market=reserved\n"
    )
    other = ("--data", index, "--recipe", tmp_path / "recipe.yaml", "--run", tmp_path / "other", "--address", market.gcs)
    few = market.vwl("train", "classifier", *other, "--workers", 2, "--cpus-per-worker", 1, "--trainers-on", "market=spot")
    assert few.returncode == 1
    assert few.stderr.startswith(
        "error: the training needs 2 workers with 1 CPU each and the cluster has slots for 1 (its nodes with the labels market=spot: 1 CPUs)"
    )
