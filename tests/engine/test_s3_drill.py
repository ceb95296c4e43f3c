"""Everything on S3 on two nodes that share no folder: the bytes of a run on disk, also when the server is away for 20 seconds."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.drills import results
from tests.helpers import tiny_scenes
from tests.ray_cluster import NodeProcesses
from tests.s3 import S3Server, copy_tree, serving
from tests.stages import STAGES
from vwl.config.files import load_recipe, to_yaml
from vwl.config.layout import Layout
from vwl.data.index import make_index, write_index
from vwl.engine import local
from vwl.engine.base import Engine
from vwl.storage.folder import Folder
from vwl.workflow.pipeline import run_stages
from vwl.workflow.run_folder import Run

pytestmark = [pytest.mark.ray, pytest.mark.drill, pytest.mark.timeout(2400)]
AWAY = 20
NUM_TRAIN = 64
"""Enough for an outage in the middle of four shards."""


@pytest.fixture(scope="module")
def server(tmp_path_factory) -> Iterator[S3Server]:
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture(scope="module")
def here(tmp_path_factory) -> Run:
    """The run on this machine's disk, without Ray."""
    from tests.conftest import TINY

    folder = tmp_path_factory.mktemp("here")
    write_index(tiny_scenes(folder / "scenes", NUM_TRAIN, 4), folder / "index.parquet")
    run = Run.start(str(folder / "run"), load_recipe("demo", TINY), str(folder / "index.parquet"))
    run_stages(run, list(STAGES), Engine(local, local), Layout(cpus_per_worker=1), lambda *_: None, lambda line: None)
    return run


@pytest.fixture(scope="module")
def index_uri(server, here) -> str:
    """The same images and index in the bucket."""
    copy_tree(Path(here.index.root.path), Folder(server.uri("scenes")))
    index = make_index(here.index.rows, here.index.classes, Folder(server.uri("scenes")), here.index.source)
    write_index(index, server.uri("index.parquet"))
    return server.uri("index.parquet")


@pytest.fixture(scope="module")
def cluster(server, tmp_path_factory) -> Iterator[NodeProcesses]:
    """A head without CPUs and two nodes with one each; every process has a working and a temporary folder of its own."""
    with pytest.MonkeyPatch.context() as patch:
        for number in range(3):
            folder = tmp_path_factory.mktemp(f"node-{number}")
            patch.setenv("TMPDIR", str(folder))
            patch.chdir(folder)
            if number == 0:
                cluster = NodeProcesses(token=False)
            else:
                cluster.add_node()
    try:
        yield cluster
    finally:
        cluster.end()


def start(cluster: NodeProcesses, folder: Path, *words: str) -> subprocess.Popen:
    """Start a command in an empty folder that no node knows."""
    return subprocess.Popen(
        [sys.executable, "-m", "vwl.cli.main", *words, "--address", cluster.gcs],
        cwd=folder,
        env=cluster.driver_environment(TMPDIR=str(folder)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def fetched(run: Folder, folder: Path) -> Path:
    """Copy a run out of the bucket."""
    from pyarrow import fs

    fs.copy_files(run.path, str(folder), source_filesystem=run.filesystem, destination_filesystem=fs.LocalFileSystem())
    return folder


def strike(server: S3Server, process: subprocess.Popen, when: Callable[[], bool]) -> None:
    """Take the server away for `AWAY` seconds at a moment of the command."""
    while not when():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)
    with server.away():
        time.sleep(AWAY)
        assert process.poll() is None, process.communicate()[0]


@pytest.fixture(scope="module")
def there(server, here, index_uri, cluster, tmp_path_factory) -> Run:
    """The run in the bucket, on the cluster."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "tiny.yaml").write_text(to_yaml(here.recipe))
    words = ["run", "--data", index_uri, "--recipe", "tiny.yaml", "--run", server.uri("run"), "--cpus-per-worker", "1"]
    process = start(cluster, folder, *words)
    said = process.communicate(timeout=1800)[0]
    assert process.returncode == 0, said
    assert sorted(path.name for path in folder.iterdir() if not path.name.startswith("vwl-cache-")) == ["tiny.yaml"]
    return Run.open(server.uri("run"))


def test_a_run_in_a_bucket_has_the_bytes_of_one_on_disk(there, here, tmp_path):
    ours, theirs = results(fetched(there.folder, tmp_path / "run")), results(Path(here.folder.path))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert not list((tmp_path / "run").rglob(".part-*"))


def test_images_are_kept_on_the_nodes(there, cluster, tmp_path_factory):
    base = tmp_path_factory.getbasetemp()
    kept = [list(base.glob(f"node-{number}*/vwl-cache-{os.getuid()}/*")) for number in range(3)]
    assert kept[0] == []  # the head works on nothing
    assert sum(map(len, kept)) >= len(there.index.rows)


def test_an_outage_in_the_middle_of_inference_costs_nothing(server, there, here, cluster, tmp_path):
    (there.folder / "cam").clear()
    done = there.folder / "cam" / "done"
    process = start(cluster, tmp_path, "infer", "cam", "--run", str(there.folder))
    strike(server, process, lambda: bool(done.names(".json")))
    left = NUM_TRAIN // 16 - len(done.names(".json"))
    said = process.communicate(timeout=900)[0]
    assert process.returncode == 0, said
    assert left > 0  # it was in the middle
    ours, theirs = results(fetched(there.folder, tmp_path / "run")), results(Path(here.folder.path))
    assert {name for name in ours if name.startswith("cam/")} == {name for name in theirs if name.startswith("cam/")}
    assert [name for name in ours if name.startswith("cam/") and ours[name] != theirs[name]] == []


def test_an_outage_while_a_checkpoint_is_written_costs_nothing(server, there, here, index_uri, cluster, tmp_path):
    recipe = ["--data", index_uri, "--recipe", "tiny.yaml", "--run", server.uri("again")]
    (tmp_path / "tiny.yaml").write_text(to_yaml(here.recipe))
    process = start(cluster, tmp_path, "train", "classifier", *recipe, "--cpus-per-worker", "1", "--checkpoint-steps", "1")
    strike(server, process, lambda: re.search(r"again/classifier/checkpoints/\.part-\w+-step-", server.uploads()) is not None)
    said = process.communicate(timeout=900)[0]
    assert process.returncode == 0, said
    ours = torch.load(fetched(Folder(server.uri("again")), tmp_path / "again") / "classifier/weights.pt", weights_only=True)["model"]
    expected = torch.load(Path(here.folder.path) / "classifier/weights.pt", weights_only=True)["model"]
    assert all(torch.equal(value, expected[name]) for name, value in ours.items())


def test_a_server_that_stays_away_ends_the_command_in_one_line_and_the_command_goes_on(server, there, here, cluster, tmp_path):
    (there.folder / "masks").clear()
    process = start(cluster, tmp_path, "infer", "masks", "--run", str(there.folder))
    with server.away():
        said = process.communicate(timeout=900)[0]
    assert process.returncode == 1
    assert "Traceback" not in said
    (line,) = (line for line in said.splitlines() if line.startswith("error: "))
    assert line.endswith("is the storage up? The same command goes on")
    again = start(cluster, tmp_path, "infer", "masks", "--run", str(there.folder))
    assert again.wait(timeout=600) == 0
    ours, theirs = results(fetched(there.folder, tmp_path / "run")), results(Path(here.folder.path))
    assert [name for name in theirs if name.startswith("masks/") and ours.get(name) != theirs[name]] == []
