"""Failure drills of searches: driver, trial, worker and node are killed, a search is interrupted, trials are stopped early.

`pytest -s` prints how long each recovery took.
"""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ray.util.state import list_placement_groups

from tests.conftest import TINY
from tests.ray_cluster import VWL, NodeProcesses, processes_of
from tests.tuning.searches import run_here, space, tiny_index, tiny_recipe
from vwl.config.layout import Layout
from vwl.data.index import read_index, write_index
from vwl.data.scenes import prepare_scenes
from vwl.engine import tune
from vwl.storage.folder import Folder
from vwl.tuning.results import trial_rows
from vwl.tuning.runner import TuneResources, run_search
from vwl.tuning.search import Search, open_searches

pytestmark = [pytest.mark.ray, pytest.mark.drill, pytest.mark.timeout(3600)]
ROOT = Path(__file__).parents[2]
SPACE = "title: Drill\nparameter: classifier.codebook.num_codewords\nvalues: [4, 8]\n"
EPOCHS = 30
"""Enough to kill a training halfway."""


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> str:
    return tiny_index(tmp_path_factory.mktemp("drills"))


@pytest.fixture
def ray_folder(monkeypatch) -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))  # Ray's sockets need a short path
    monkeypatch.setenv("RAY_TMPDIR", str(folder))
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


class View:
    """Remembers the last state of each trial."""

    def __init__(self) -> None:
        self.shown: dict[str, str] = {}

    def show_trial(self, name: str, state: str, text: str = "", done: int = 0, total: int = 0) -> None:
        self.shown[name] = state


class Command:
    """`vwl tune` in a session of its own."""

    def __init__(self, folder: Path, *words: object, environment: dict[str, str] | None = None) -> None:
        self.log = folder / f"command-{time.monotonic_ns()}.log"
        with self.log.open("w") as log:
            command = [*VWL, "tune", *map(str, words)]
            self.process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log, start_new_session=True)

    def until(self, ready: Callable[[], object], seconds: float = 900) -> object:
        """Wait until `ready` returns something, while the command runs."""
        deadline = time.monotonic() + seconds
        while not (found := ready()):
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()
            time.sleep(0.1)
        return found

    def end(self, seconds: float = 1800) -> int:
        try:
            return self.process.wait(seconds)
        finally:
            for process in processes_of(self.process.pid):
                os.kill(process, signal.SIGKILL)

    def named(self, name: str) -> list[int]:
        """Return the processes of this name in the command's Ray."""
        return [process for process in processes_of(self.process.pid) if name in command_line(process)]


def command_line(process: int) -> str:
    try:
        return Path(f"/proc/{process}/cmdline").read_text(errors="replace")
    except OSError:
        return ""


def started(folder: Path, index_path: str, concurrent: int = 1, address: str | None = None, **given: Any) -> Command:
    """Start the drill's search: two settings, one seed."""
    (folder / "drill.yaml").write_text(SPACE)
    settings = [*TINY, "classifier.backbone.name=timm:test_resnet", f"classifier.epochs={EPOCHS}"]
    overrides = [word for setting in settings for word in ("-o", setting)]
    head = [folder / "drill.yaml", "--recipe", "demo", "--data", index_path, "--run", folder / "search", "--checkpoint-steps", 2]
    where = ["--concurrent", concurrent, *(["--address", address] if address else [])]
    return Command(folder, *head, *where, *overrides, **given)


def trials(folder: Path) -> list[Path]:
    return sorted((folder / "search" / "trials").glob("*"), key=lambda path: path.stat().st_ctime)


def state(trial: Path) -> str:
    try:
        return json.loads((trial / "trial.json").read_text())["state"]
    except (OSError, ValueError):
        return ""


def half_trained(folder: Path, number: int) -> list[Path]:
    """Return the trial of this number if its training has written a checkpoint and is not at its end."""
    found = trials(folder)[number : number + 1]
    return [
        trial
        for trial in found
        if any((trial / "classifier" / "checkpoints").glob("*.pt")) and not (trial / "classifier/weights.pt").exists()
    ]


def rows(folder: Path) -> list[dict]:
    root = Folder(folder / "search")
    return trial_rows(root, open_searches(root))


def assert_all_done_once(folder: Path) -> None:
    found = rows(folder)
    assert [(row["state"], row["reason"]) for row in found] == [("done", "")] * 2
    assert len({row["trial"] for row in found}) == 2
    assert len(trials(folder)) == 2


def test_a_search_whose_driver_is_killed_resumes_from_its_checkpoint(index_path, tmp_path, ray_folder):
    command = started(tmp_path, index_path)
    command.until(lambda: half_trained(tmp_path, 1))
    finished, unfinished = trials(tmp_path)
    assert state(finished) == "done"
    before = {path: path.read_bytes() for path in (finished / "trial.json", finished / "classifier" / "weights.pt")}
    written = (finished / "classifier" / "weights.pt").stat().st_mtime_ns
    os.kill(command.process.pid, signal.SIGKILL)
    command.end()
    checkpoint = max(int(path.stem.partition("-")[2]) for path in (unfinished / "classifier" / "checkpoints").glob("*.pt"))
    lines = (unfinished / "classifier" / "metrics.jsonl").read_text().splitlines()
    again = Command(tmp_path, "--resume", tmp_path / "search")
    assert again.end() == 0, again.log.read_text()
    assert_all_done_once(tmp_path)
    assert {path: path.read_bytes() for path in before} == before
    assert (finished / "classifier" / "weights.pt").stat().st_mtime_ns == written
    kept = [line for line in lines if json.loads(line)["step"] <= checkpoint]
    assert (unfinished / "classifier" / "metrics.jsonl").read_text().splitlines()[: len(kept)] == kept


def test_a_search_that_is_interrupted_saves_and_resumes(index_path, tmp_path, ray_folder):
    command = started(tmp_path, index_path)
    command.until(lambda: half_trained(tmp_path, 0))
    os.kill(command.process.pid, signal.SIGINT)
    assert command.end(300) == 130, command.log.read_text()
    assert "finished work is saved" in command.log.read_text()
    assert "Traceback" not in command.log.read_text()
    again = Command(tmp_path, "--resume", tmp_path / "search")
    assert again.end() == 0, again.log.read_text()
    assert_all_done_once(tmp_path)


@pytest.mark.parametrize("victim", ["ray::RayTrainWorker", "ray::ListedTask"])
def test_a_search_survives_the_death_of_a_worker_and_of_a_trials_own_process(index_path, tmp_path, ray_folder, victim):
    command = started(tmp_path, index_path)
    command.until(lambda: half_trained(tmp_path, 0))
    (process,) = command.until(lambda: command.named(victim))
    began = time.monotonic()
    os.kill(process, signal.SIGKILL)
    assert command.end() == 0, command.log.read_text()
    print(f"\n{victim} killed: the search of 2 trials ended {time.monotonic() - began:.0f} s later")
    assert_all_done_once(tmp_path)


def test_a_search_survives_the_death_of_a_node(index_path, tmp_path, ray_folder):
    with NodeProcesses() as cluster:
        nodes = [cluster.add_node(cpus=1) for _ in range(2)]
        command = started(tmp_path, index_path, 2, cluster.gcs, environment=cluster.driver_environment())
        command.until(lambda: half_trained(tmp_path, 0) and half_trained(tmp_path, 1))
        lost = len([process for process in processes_of(nodes[1].pid) if "ray::RayTrainWorker" in command_line(process)])
        began = time.monotonic()
        cluster.kill(nodes[1])
        assert command.end() == 0, command.log.read_text()
    assert lost == 1
    print(f"\na node with a trial's worker killed: the search of 2 trials ended {time.monotonic() - began:.0f} s later")
    assert_all_done_once(tmp_path)


def test_a_trial_of_two_workers_has_the_scores_of_one_in_this_process(index_path, tmp_path, ray_folder):
    search = Search.plan(space(values=[4]), tiny_recipe(), read_index(index_path), index_path, num_seeds=1)
    here, there = Folder(tmp_path / "here"), Folder(tmp_path / "there")
    run_here(search, here)
    with tune.tune_session(None, cpus=2):
        run_search(search, there, TuneResources(Layout(workers=2)), View(), print, lambda: None)
    (ours,), (theirs,) = (trial_rows(root, [search]) for root in (there, here))
    assert ours["state"] == theirs["state"] == "done"
    assert ours["val_miou"] == pytest.approx(theirs["val_miou"], abs=0.1)


def placement_groups() -> list[str]:
    """Return the placement groups that hold resources."""
    return [group.placement_group_id for group in list_placement_groups() if group.state != "REMOVED"]


def test_trials_that_are_stopped_early_release_their_placement_groups(tmp_path, ray_folder):
    samples = 6
    domains = {"classifier.optimiser.learning_rate": {"low": 1e-5, "high": 3e-2, "log": True}}
    fields = {"parameter": None, "values": [], "strategy": "search", "search": domains, "samples": samples}
    drawn = space(name="drawn", **fields, early_stopping={"grace_epochs": 1, "keep": 0.4})
    recipe = tiny_recipe(f"classifier.epochs={EPOCHS}")
    # Enough classes and held-out scenes for trials to differ in their first epoch.
    index, _ = prepare_scenes(tmp_path / "scenes", 8, 16, heights=(64, 80), widths=(72, 96), num_classes=5)
    index_path = str(tmp_path / "index.parquet")
    write_index(index, index_path)
    search = Search.plan(drawn, recipe, index, index_path, num_seeds=1)
    root, view = Folder(tmp_path / "search"), View()
    with tune.tune_session(None, cpus=2):
        run_search(search, root, TuneResources(Layout()), view, print, lambda: None)
        deadline = time.monotonic() + 60
        while (held := placement_groups()) and time.monotonic() < deadline:
            time.sleep(1)
        assert held == []
        again = open_searches(root)[0]
        run_search(again, root, TuneResources(Layout()), view, print, lambda: None)
    found = trial_rows(root, [again])
    assert len(found) == len({row["trial"] for row in found}) == len(again.samples) == samples
    assert {row["state"] for row in found} == {"done", "stopped"}
    stopped = [row for row in found if row["state"] == "stopped"]
    assert all(row["reason"].startswith("stopped early after epoch ") for row in stopped)
    assert all(0 < len(row["epochs"]) < EPOCHS for row in stopped)
    assert view.shown == {row["trial"]: row["state"] for row in found}
    assert replace(again, samples=()) == search
