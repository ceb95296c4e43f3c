"""Failure drills of trainings on several nodes: workers, nodes and drivers are killed, and the weights are those of an undisturbed run.

`VWL_DRILLS=10` kills ten times in each drill; the figures (steps repeated, seconds to recover) are printed with `pytest -s`.
"""

import os
import queue
import random
import signal
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from tests.ray_cluster import NodeProcesses, processes_of
from tests.trainings import make_data, metrics, weights

pytestmark = [pytest.mark.ray, pytest.mark.drill, pytest.mark.timeout(1800)]
ROOT = Path(__file__).parents[2]
KILLS = int(os.environ.get("VWL_DRILLS", "2"))
CHECKPOINT_STEPS = 3
STEPS = 6 * (KILLS + 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("drills"), num_val=0)


@pytest.fixture
def cluster(monkeypatch) -> Iterator[NodeProcesses]:
    """A head without CPUs, and two nodes with one each."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with NodeProcesses(token=False) as cluster:
        cluster.add_node(cpus=1)
        cluster.add_node(cpus=1)
        yield cluster


class Driver:
    """A driver process whose steps can be waited for."""

    def __init__(
        self,
        cluster: NodeProcesses,
        data: Path,
        folder: Path,
        *more: int,
        steps: tuple[int, int] = (STEPS, CHECKPOINT_STEPS),
        **environment: str,
    ) -> None:
        words = [cluster.gcs, data, folder, *steps, *more]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.engine.driven", *map(str, words)],
            cwd=ROOT,
            env=cluster.driver_environment(**environment),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.lines: queue.Queue[tuple[float, str]] = queue.Queue()
        self.heard = time.monotonic()
        self.said: list[str] = []
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put((time.monotonic(), line.strip()))
        self.lines.put((time.monotonic(), "end"))

    def next_step(self, seconds: float = 300) -> int | None:
        """Return the next step that is done, or none at the end; `heard` is when it was message."""
        while True:
            self.heard, line = self.lines.get(timeout=seconds)
            self.said.append(line)
            if line == "end":
                self.lines.put((self.heard, line))
                return None
            if line.isdigit():
                return int(line)

    def kill(self) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def trained_undisturbed(cluster: NodeProcesses, data: Path, folder: Path) -> Path:
    driver = Driver(cluster, data, folder, 2)
    while driver.next_step() is not None:
        pass
    assert driver.process.wait() == 0, driver.said[-40:]
    return folder


def drill(driver: Driver, strike: Callable[[], None], name: str) -> None:
    """Strike at a random step of each sixth of the training and follow it to its end."""
    rng = random.Random(0)
    targets = [6 * number + rng.randint(1, 6) for number in range(1, KILLS + 1)]
    repeated, seconds = [], []
    last, message, struck = 0, time.monotonic(), None
    while (step := driver.next_step()) is not None:
        # steps that were on their way still come; then there is a pause of seconds, and no step is left out
        if struck is not None and (step <= last or driver.heard - max(message, struck) > 3):
            repeated.append(last - step + 1)
            seconds.append(driver.heard - struck)
            struck = None
        assert step <= last + 1, driver.said[-40:]
        last, message = step, driver.heard
        if struck is None and targets and step >= targets[0]:
            targets.pop(0)
            struck = time.monotonic()
            strike()
    assert driver.process.wait() == 0, driver.said[-40:]
    assert not targets
    if repeated:
        print(
            f"\n{name}: {KILLS} kills, steps repeated {repeated} (checkpoints each {CHECKPOINT_STEPS}), "
            f"seconds to the next step: median {statistics.median(seconds):.0f}, longest {max(seconds):.0f}"
        )


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def assert_same(folder: Path, undisturbed: Path) -> None:
    for name, value in weights(folder).items():
        assert torch.equal(value, weights(undisturbed)[name]), name
    assert metrics(folder) == metrics(undisturbed)


def test_killed_workers_are_replaced_and_nothing_is_lost(cluster, data, tmp_path):
    driver = Driver(cluster, data, tmp_path / "disturbed", 2)
    rng = random.Random(1)

    def kill_a_worker() -> None:
        processes = [pid for node in cluster.nodes[1:] for pid in processes_of(node.pid)]
        os.kill(rng.choice([pid for pid in processes if "RayTrainWorker" in command_of(pid)]), signal.SIGKILL)

    drill(driver, kill_a_worker, "worker")
    assert_same(tmp_path / "disturbed", trained_undisturbed(cluster, data, tmp_path / "undisturbed"))


def test_killed_nodes_are_replaced_and_nothing_is_lost(cluster, data, tmp_path):
    driver = Driver(cluster, data, tmp_path / "disturbed", 2)
    rng = random.Random(2)

    def kill_a_node() -> None:
        cluster.kill(cluster.nodes.pop(rng.choice([1, 2])))
        cluster.add_node(cpus=1)

    drill(driver, kill_a_node, "node")
    assert_same(tmp_path / "disturbed", trained_undisturbed(cluster, data, tmp_path / "undisturbed"))


def test_an_elastic_training_goes_on_with_the_node_that_is_left(cluster, data, tmp_path):
    driver = Driver(cluster, data, tmp_path / "disturbed", 2, 1)
    while (step := driver.next_step()) is not None:
        if step == 8:
            cluster.kill(cluster.nodes.pop())
            break
    while driver.next_step() is not None:
        pass
    assert driver.process.wait() == 0, driver.said[-40:]
    assert metrics(tmp_path / "disturbed")[-1]["step"] == STEPS
    undisturbed = weights(trained_undisturbed_by_itself(data, tmp_path / "undisturbed"))
    for name, value in weights(tmp_path / "disturbed").items():
        torch.testing.assert_close(value, undisturbed[name], rtol=1e-9, atol=1e-12)


def trained_undisturbed_by_itself(data: Path, folder: Path) -> Path:
    from tests.trainings import tiny_spec, train_to_end

    train_to_end(tiny_spec("classifier-M", data, folder, STEPS), log_every=10)
    return folder


def test_a_killed_driver_goes_on_when_it_is_started_again(cluster, data, tmp_path):
    rng = random.Random(3)
    first_steps = []
    for number in range(1, KILLS + 1):
        driver = Driver(cluster, data, tmp_path / "disturbed", 2)
        first_steps.append(driver.next_step())
        target = 6 * number + rng.randint(1, 6)
        while (step := driver.next_step()) is not None and step < target:
            pass
        driver.kill()
    driver = Driver(cluster, data, tmp_path / "disturbed", 2)
    first_steps.append(driver.next_step())
    while driver.next_step() is not None:
        pass
    assert driver.process.wait() == 0, driver.said[-40:]
    assert first_steps[0] == 1
    assert all(step is not None and step % CHECKPOINT_STEPS == 1 and step > 1 for step in first_steps[1:]), first_steps
    assert_same(tmp_path / "disturbed", trained_undisturbed(cluster, data, tmp_path / "undisturbed"))
