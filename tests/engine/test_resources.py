"""Worker slots of a real cluster: errors if it is too small, waiting if it is busy; and folders that its nodes do not share."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.ray_cluster import VWL, NodeProcesses
from vwl.config.files import to_yaml
from vwl.workflow.run_folder import Run

pytestmark = [pytest.mark.ray, pytest.mark.drill, pytest.mark.timeout(1200)]
ROOT = Path(__file__).parents[2]
UNSHARE = ("unshare", "--mount")


@pytest.fixture(scope="module")
def own_disk(tmp_path_factory) -> Path:
    """A folder where one of the nodes mounts a disk of its own."""
    if subprocess.run([*UNSHARE, "mount", "-t", "tmpfs", "tmpfs", tmp_path_factory.mktemp("try")], check=False).returncode:
        pytest.skip("processes cannot have mounts of their own here")
    return tmp_path_factory.mktemp("own")


@pytest.fixture(scope="module")
def cluster(own_disk) -> Iterator[NodeProcesses]:
    """A head without CPUs and two nodes with one each."""
    with NodeProcesses() as cluster:
        cluster.add_node()
        cluster.add_node(within=(*UNSHARE, "sh", "-c", f'mount -t tmpfs tmpfs {own_disk} && exec "$@"', "sh"))
        yield cluster


def train(tiny_run: Run, folder: Path, cluster: NodeProcesses, *arguments: str) -> list[str]:
    (folder / "tiny.yaml").write_text(to_yaml(tiny_run.recipe))
    known = ["--data", tiny_run.index_path, "--recipe", str(folder / "tiny.yaml"), "--run", str(folder / "run")]
    return ["train", "classifier", *known, "--address", cluster.gcs, "--cpus-per-worker", "1", *arguments]


def test_a_folder_that_a_node_does_not_share_is_an_error_before_the_training(cluster, tiny_run, own_disk):
    done = cluster.vwl(*train(tiny_run, own_disk, cluster))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: the folder {own_disk}/run/classifier is not the same on all 3 nodes of the cluster (1 see another: ")
    assert line.endswith("mount one folder on all of them under this path (NFS), or use --run s3://... or gs://...")
    assert not list((own_disk / "run").rglob(".vwl-*"))
    assert not (own_disk / "run/classifier/checkpoints").exists()


def test_a_folder_that_a_node_does_not_share_is_an_error_before_an_inference(cluster, tiny_run, own_disk):
    from tests.helpers import copy_run

    (own_disk / "done").mkdir()
    copied = copy_run(tiny_run, own_disk / "done")
    copied.stage_folder("cam").clear()
    done = cluster.vwl("infer", "cam", "--run", copied.folder, "--address", cluster.gcs)
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: the folder {copied.folder} is not the same on all 3 nodes")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--gpus-per-worker", "1"], "the training needs 1 worker with 1 CPU and 1 GPU each and the cluster has slots for 0"),
        (["--workers", "4"], "the training needs 4 workers with 1 CPU each and the cluster has slots for 2"),
        (["--cpus-per-worker", "2"], "the training needs 1 worker with 2 CPUs each and the cluster has slots for 0"),
    ],
)
def test_a_cluster_that_is_too_small_is_an_error(cluster, tiny_run, tmp_path, options, message):
    done = cluster.vwl(*train(tiny_run, tmp_path, cluster, *options))
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error: {message} (its nodes: ")
    assert line.endswith("lower --workers, --cpus-per-worker or --gpus-per-worker")


HOLD = """
import sys, time, ray
from vwl.engine.session import session

@ray.remote
class Holder:
    def ping(self):
        pass

with session(sys.argv[1]):
    holders = [Holder.options(num_cpus=1).remote() for _ in range(2)]
    ray.get([holder.ping.remote() for holder in holders])
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_training_waits_for_a_busy_cluster_and_says_so(cluster, tiny_run, tmp_path):
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    holder = subprocess.Popen([sys.executable, "-c", HOLD, cluster.gcs], cwd=ROOT, env=cluster.driver_environment(), **pipes)
    assert holder.stdout is not None
    assert holder.stdout.readline() == "held\n"
    with (tmp_path / "log").open("w") as log:
        command = [*VWL, *train(tiny_run, tmp_path, cluster)]
        process = subprocess.Popen(command, cwd=ROOT, env=cluster.driver_environment(), stdout=log, stderr=log)
    waiting = "waiting: the cluster is busy, 0 of the 1 worker slots needed are free"
    while waiting not in (tmp_path / "log").read_text():
        assert process.poll() is None, (tmp_path / "log").read_text()
        time.sleep(0.5)
    holder.communicate("\n")
    assert process.wait(timeout=600) == 0, (tmp_path / "log").read_text()
    manifest = json.loads((tmp_path / "run/classifier/manifest.json").read_text())
    assert manifest["state"] == "done"
