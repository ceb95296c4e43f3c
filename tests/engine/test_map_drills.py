"""Failure drills of inference on nodes, on real images: each image is there once, as of an undisturbed run, or is named."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers import real_data
from tests.ray_cluster import NodeProcesses, processes_of
from vwl.config.files import load_recipe
from vwl.config.layout import Layout
from vwl.data.index import make_index, write_index
from vwl.data.voc import prepare_voc
from vwl.engine import local
from vwl.engine.base import Engine
from vwl.workflow.pipeline import run_stages
from vwl.workflow.run_folder import Run

pytestmark = [pytest.mark.ray, pytest.mark.drill, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
NUM_IMAGES = 160
KEYS = [
    "classifier.crop=64",
    "classifier.resize=[64,96]",
    "classifier.epochs=1",
    "classifier.codebook.num_codewords=16",
    "cam.long_side=224",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with an index of real images and a run whose classifier has seen them once."""
    folder = tmp_path_factory.mktemp("map-drills")
    found, _ = prepare_voc(real_data("voc12mini"))
    rows = [row for row in found.rows if row.split in {"train", "aug"}][:NUM_IMAGES]
    write_index(make_index(rows, found.classes, found.root, found.source), folder / "index.parquet")
    run = Run.start(str(folder / "run"), load_recipe("demo", KEYS), str(folder / "index.parquet"))
    run_stages(run, ["classifier"], Engine(local, local), Layout(cpus_per_worker=2), lambda *_: None, lambda line: None)
    return folder


@pytest.fixture(scope="module")
def undisturbed(trained) -> dict[str, bytes]:
    """The maps that this process makes."""
    shutil.copytree(trained / "run", trained / "undisturbed")
    run = Run.open(str(trained / "undisturbed"))
    run_stages(run, ["cam"], Engine(local, local), Layout(), lambda *_: None, lambda line: None)
    return maps(trained / "undisturbed")


@pytest.fixture
def cluster(monkeypatch) -> Iterator[NodeProcesses]:
    """A head without CPUs, and two nodes with one each, in which an image can be made fatal."""
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests' / 'faults'}:{ROOT}")
    with NodeProcesses(token=False) as cluster:
        cluster.add_node(cpus=1)
        cluster.add_node(cpus=1)
        yield cluster


def maps(run: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (run / "cam").glob("part-*.parquet")}


def infer(cluster: NodeProcesses, run: Path) -> subprocess.Popen:
    command = [sys.executable, "-m", "vwl.cli.main", "infer", "cam", "--run", str(run), "--address", cluster.gcs]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=cluster.driver_environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def wait_for_shards(run: Path, number: int, process: subprocess.Popen) -> None:
    while len(list((run / "cam" / "done").glob("*.json"))) < number:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.02)


def ended(process: subprocess.Popen) -> str:
    """Wait for the end of a command that succeeds and return what it said."""
    said = process.communicate(timeout=600)[1]
    assert process.returncode == 0, said
    return said


@pytest.fixture
def run(trained, tmp_path) -> Path:
    shutil.copytree(trained / "run", tmp_path / "run")
    return tmp_path / "run"


def test_a_killed_actor_is_replaced(cluster, undisturbed, run):
    process = infer(cluster, run)
    wait_for_shards(run, 2, process)
    nodes = [pid for node in cluster.nodes[1:] for pid in processes_of(node.pid)]
    actors = [pid for pid in nodes if "MapBatches(_Actor)" in Path(f"/proc/{pid}/cmdline").read_text()]
    assert len(actors) == 2
    os.kill(random.Random(0).choice(actors), signal.SIGKILL)
    ended(process)
    assert maps(run) == undisturbed


def test_a_killed_node_is_done_without(cluster, undisturbed, run):
    process = infer(cluster, run)
    wait_for_shards(run, 2, process)
    cluster.kill(cluster.nodes.pop())
    ended(process)
    assert maps(run) == undisturbed


def test_a_killed_driver_goes_on_when_it_is_started_again(cluster, undisturbed, run):
    process = infer(cluster, run)
    wait_for_shards(run, 3, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    done = {path.name: path.stat().st_mtime_ns for path in (run / "cam" / "done").glob("*.json")}
    ended(infer(cluster, run))
    assert all((run / "cam" / "done" / name).stat().st_mtime_ns == when for name, when in done.items())
    assert maps(run) == undisturbed


def test_a_full_disk_is_one_line_and_nothing_is_lost(cluster, undisturbed, trained, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    needed = sum(path.stat().st_size for path in (trained / "run").rglob("*") if path.is_file())
    size = needed + sum(map(len, undisturbed.values())) // 2
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", disk], check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        shutil.copytree(trained / "run", disk / "run")
        process = infer(cluster, disk / "run")
        said = process.communicate(timeout=600)[1]
        assert process.returncode == 1
        errors = [line for line in said.splitlines() if line.startswith("error:")]
        assert len(errors) == 1
        assert "No space left on device; free space or choose another folder" in errors[0]
        assert "Traceback" not in said
        subprocess.run(["mount", "-o", f"remount,size={4 * size}", disk], check=True)
        ended(infer(cluster, disk / "run"))
        assert maps(disk / "run") == undisturbed
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


@pytest.fixture
def deadly_cluster(monkeypatch, trained) -> Iterator[NodeProcesses]:
    index = Run.open(str(trained / "run")).index
    monkeypatch.setenv("VWL_FATAL_IMAGE", index.rows[NUM_IMAGES // 2].image_id)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests' / 'faults'}:{ROOT}")
    with NodeProcesses(token=False) as cluster:
        cluster.add_node(cpus=1)
        cluster.add_node(cpus=1)
        yield cluster


def test_an_image_that_kills_its_process_is_named_and_the_others_are_done(deadly_cluster, undisturbed, run):
    process = infer(deadly_cluster, run)
    said = process.communicate(timeout=900)[1]
    assert process.returncode == 1, said
    fatal = os.environ["VWL_FATAL_IMAGE"]
    failed = json.loads((run / "cam" / "manifest.json").read_text())["failed"]
    assert failed == {fatal: "its process crashed 2 times"}
    others = {name: data for name, data in maps(run).items() if name != f"part-{NUM_IMAGES // 2 // 16:05d}.parquet"}
    assert others == {name: undisturbed[name] for name in others}
    assert len(others) == len(undisturbed) - 1
    assert "1 image failed" in said
