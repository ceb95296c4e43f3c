"""Commands as jobs of a real cluster with a token: a head and two worker nodes; equal numbers, exit codes, one line where it cannot be."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest

from tests.drills import results
from tests.ray_cluster import VWL, NodeProcesses
from vwl.config.files import to_yaml
from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import score_table

pytestmark = [pytest.mark.ray, pytest.mark.drill, pytest.mark.timeout(1800)]
ENDLESS = ("-o", "classifier.epochs=100000", "--checkpoint-steps", "2", "--backend", "local", "--cpus-per-worker", "1")


class Terminal:
    """Where a user works: a folder of their own, and a token."""

    def __init__(self, cluster: NodeProcesses, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        self.environment = cluster.driver_environment(RAY_ADDRESS=cluster.jobs)

    def start(self, *arguments: object, **more: str) -> subprocess.Popen:
        return subprocess.Popen(
            [*VWL, *map(str, arguments)],
            cwd=self.folder,
            env=self.environment | more,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def vwl(self, *arguments: object, **more: str) -> subprocess.CompletedProcess:
        process = self.start(*arguments, **more)
        out, err = process.communicate(timeout=1500)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)

    def submit(self, *arguments: object) -> subprocess.CompletedProcess:
        return self.vwl("submit", "--python", sys.executable, *arguments)

    def job(self, name: str) -> dict:
        return json.loads(self.vwl("jobs", "status", name, "--json").stdout)

    def wait_for(self, name: str, text: str, seconds: float = 240) -> str:
        """Wait until a job has printed a text; return all that it has printed."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            printed = self.vwl("jobs", "logs", name).stdout
            if re.search(text, printed):
                return printed
            time.sleep(1)
        raise TimeoutError(printed)


@pytest.fixture(scope="module")
def cluster() -> Iterator[NodeProcesses]:
    """A head without CPUs, and two nodes with one each."""
    with NodeProcesses() as cluster:
        cluster.add_node()
        cluster.add_node()
        yield cluster


@pytest.fixture(scope="module")
def terminal(cluster, tiny_run, tmp_path_factory) -> Terminal:
    folder = tmp_path_factory.mktemp("terminal")
    (folder / "index.parquet").symlink_to(tiny_run.index_path)
    (folder / "tiny.yaml").write_text(to_yaml(tiny_run.recipe))
    return Terminal(cluster, folder)


RUN = ("run", "--data", "index.parquet", "--recipe", "tiny.yaml")


@pytest.mark.parametrize("backend", ["local", "ray"])
def test_a_submitted_run_gives_the_numbers_of_one_here(terminal, tiny_run, backend):
    name = f"whole-{backend}"
    done = terminal.submit("--name", name, "--", *RUN, "--run", name, "--backend", backend, "--cpus-per-worker", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    there = Run.open(str(terminal.folder / name))
    ours, theirs = results(Path(there.folder.path)), results(Path(tiny_run.folder.path))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    # What is seen is the same too: lines of progress, and the table.
    assert re.search(r"^segment 12/12 100% in ", done.stdout, re.MULTILINE)
    seen = [line.split()[:4] for line in done.stdout.splitlines() if re.match(r"(cam|segment) +(train|val) ", line)]
    expected = [asdict(line) for line in score_table(tiny_run) if line.stage in {"cam", "segment"}]
    assert seen == [[line["stage"], line["split"], str(line["images"]), f"{line['miou']:.4g}"] for line in expected]
    assert re.search(r"^sending \d+ files, 0\.\d\d MiB of code to http://", done.stderr, re.MULTILINE)
    assert f"index.parquet becomes {terminal.folder}/index.parquet" in done.stderr
    assert f"{name} succeeded after " in done.stderr
    # The job has no checkout, and its manifests name the commit all the same.
    assert there.manifest("cam").versions == tiny_run.manifest("cam").versions


def test_the_job_is_listed_and_shown_and_its_output_kept(terminal):
    terminal.submit("--name", "quick", "--detach", "--", "recipe", "show", "demo")
    terminal.wait_for("quick", "batch_size")
    listed = json.loads(terminal.vwl("jobs", "list", "--json").stdout)
    quick = next(job for job in listed if job["job"] == "quick")
    assert quick["command"] == "vwl recipe show demo"
    shown = terminal.job("quick")
    assert {key: shown[key] for key in ("job", "command", "submitted")} == {key: quick[key] for key in ("job", "command", "submitted")}
    assert "quick" in terminal.vwl("jobs", "list").stdout
    followed = terminal.vwl("jobs", "logs", "quick", "--follow")
    assert followed.returncode == 0
    assert followed.stdout == terminal.vwl("jobs", "logs", "quick").stdout
    assert terminal.job("quick")["exit_code"] == 0
    again = terminal.submit("--name", "quick", "--", "recipe", "list")
    assert again.returncode == 1
    assert "the cluster already has a job named quick; choose another --name" in again.stderr
    unknown = terminal.vwl("jobs", "status", "quic")
    assert "has no job quic; did you mean 'quick'? (vwl jobs list)" in unknown.stderr


def test_the_exit_code_is_that_of_the_driver(terminal, tmp_path):
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho about to fail\nexit 3\n")
    python.chmod(0o755)
    done = terminal.vwl("submit", "--python", python, "--name", "three", "--", "recipe", "list")
    assert done.returncode == 3
    assert "about to fail" in done.stdout
    assert "three failed" in done.stderr
    assert terminal.job("three")["exit_code"] == 3


def test_an_interpreter_that_is_not_there_is_named_with_the_way_out(terminal):
    done = terminal.vwl("submit", "--python", "/nowhere/python", "--", "recipe", "list")
    assert done.returncode == 127
    assert "the cluster's head does not have this interpreter; name one that it has: vwl submit --python PATH" in done.stderr


def test_a_stopped_job_saves_and_is_resumed(terminal):
    command = ("train", "classifier", "--data", "index.parquet", "--recipe", "tiny.yaml", "--run", "endless", *ENDLESS)
    terminal.submit("--name", "endless", "--env", "HELLO=there", "--detach", "--", *command)
    terminal.wait_for("endless", r"classifier \d+/")
    stopped = terminal.vwl("jobs", "stop", "endless")
    assert stopped.returncode == 0, stopped.stderr
    assert "endless stopped; resume it with: vwl jobs resume endless" in stopped.stderr
    printed = terminal.vwl("jobs", "logs", "endless").stdout
    assert "classifier stopped; finished work is saved" in printed
    assert "Traceback" not in printed
    assert "the job endless has already ended (stopped)" in terminal.vwl("jobs", "stop", "endless").stderr
    steps = max(int(path.stem.split("-")[1]) for path in (terminal.folder / "endless/classifier/checkpoints").glob("step-*.pt"))
    resumed = terminal.vwl("jobs", "resume", "endless", "--detach")
    assert "submitted as endless-again" in resumed.stderr
    printed = terminal.wait_for("endless-again", r"classifier \d+/")
    assert int(re.search(r"classifier (\d+)/", printed).group(1)) >= steps
    assert "the job endless-again is running; follow it" in terminal.vwl("jobs", "resume", "endless-again").stderr
    assert terminal.vwl("jobs", "stop", "endless-again").returncode == 0


def test_a_token_that_is_wrong_or_missing_is_said_in_one_line(terminal):
    wrong = terminal.vwl("jobs", "list", RAY_AUTH_TOKEN="wrong")
    assert wrong.returncode == 1
    assert re.fullmatch(r"error: the cluster at http://\S+ refuses the token: set RAY_AUTH_TOKEN .*\n", wrong.stderr)
    for more in ({"RAY_AUTH_MODE": "disabled"}, {"RAY_AUTH_TOKEN": "", "HOME": str(terminal.folder)}):
        missing = terminal.vwl("submit", "--", "recipe", "list", **more)
        assert missing.returncode == 1
        assert missing.stderr.splitlines()[-1].startswith("error: the cluster at http://")
        assert "needs a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN" in missing.stderr


def test_a_driver_here_is_told_of_its_token_at_once(terminal, tiny_run):
    began = time.monotonic()
    wrong = terminal.vwl("infer", "cam", "--run", tiny_run.folder, "--address", terminal.cluster.gcs, RAY_AUTH_TOKEN="wrong")
    assert wrong.returncode == 1
    assert re.fullmatch(r"error: the cluster at \S+ refuses the token: set .*\n", wrong.stderr)
    assert time.monotonic() - began < 60


def test_no_gpu_in_the_cluster_is_said_in_one_line(terminal):
    done = terminal.submit("--", "train", "classifier", *RUN[1:], "--run", "gpu", "--gpus-per-worker", "1", "--cpus-per-worker", "1")
    assert done.returncode == 1
    assert re.search(
        r"^error: the training needs 1 worker with 1 CPU and 1 GPU each and the cluster has slots for 0", done.stdout, re.MULTILINE
    )


def test_a_job_outlives_the_terminal_that_submitted_it(terminal):
    process = terminal.start(
        "submit", "--python", sys.executable, "--name", "outlives", "--", *RUN, "--run", "outlives", "--backend", "local"
    )
    terminal.wait_for("outlives", r"classifier \d+/")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    followed = terminal.vwl("jobs", "logs", "outlives", "--follow")
    assert followed.returncode == 0, followed.stderr
    assert "Running entrypoint for job outlives" in followed.stdout  # from its start
    assert re.search(r"^segment 12/12 100% in ", followed.stdout, re.MULTILINE)


def test_ctrl_c_without_a_terminal_leaves_the_job_and_says_how_to_follow_it(terminal):
    command = ("train", "classifier", "--data", "index.parquet", "--recipe", "tiny.yaml", "--run", "left", *ENDLESS)
    process = terminal.start("submit", "--python", sys.executable, "--name", "left", "--", *command)
    terminal.wait_for("left", r"classifier \d+/")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert re.search(r"^left keeps running; follow it with: vwl jobs logs left --follow --address http://", err, re.MULTILINE)
    assert terminal.job("left")["state"] == "running"
    assert terminal.vwl("jobs", "stop", "left").returncode == 0


@pytest.mark.parametrize(
    ("answer", "state", "message"), [("s", "stopped", "resume it with: vwl jobs resume"), ("d", "running", "follow it with")]
)
def test_ctrl_c_on_a_terminal_asks(terminal, answer, state, message):
    name = f"asked-{answer}"
    command = ("train", "classifier", "--data", "index.parquet", "--recipe", "tiny.yaml", "--run", name, *ENDLESS)
    controller, line = pty.openpty()
    command = [*VWL, "submit", "--python", sys.executable, "--name", name, "--", *command]
    process = subprocess.Popen(command, cwd=terminal.folder, env=terminal.environment, stdin=line, stdout=line, stderr=line, close_fds=True)
    os.close(line)
    seen: list[str] = []

    def listen() -> None:
        while True:
            try:
                seen.append(os.read(controller, 4096).decode(errors="replace"))
            except OSError:
                return

    threading.Thread(target=listen, daemon=True).start()
    terminal.wait_for(name, r"classifier \d+/")
    process.send_signal(signal.SIGINT)
    deadline = time.monotonic() + 60
    while "s to stop it, d to detach" not in "".join(seen):
        assert time.monotonic() < deadline, "".join(seen)
        time.sleep(0.2)
    os.write(controller, f"{answer}\n".encode())
    assert process.wait(timeout=240) == 130
    assert terminal.job(name)["state"] == state
    assert message in "".join(seen)
    if state == "running":
        terminal.vwl("jobs", "stop", name)


def test_a_node_that_is_lost_in_the_middle_costs_the_job_nothing(terminal, cluster):
    lost = cluster.nodes[-1]
    command = [*RUN, "--run", "lossy", "--workers", "2", "--cpus-per-worker", "1", "--checkpoint-steps", "2", "-o", "classifier.epochs=30"]
    process = terminal.start("submit", "--python", sys.executable, "--name", "lossy", "--", *command)
    terminal.wait_for("lossy", r"classifier [1-9]\d*/")
    cluster.kill(lost)
    cluster.add_node()
    out, err = process.communicate(timeout=1200)
    assert process.returncode == 0, out + err
    assert re.search(r"^segment 12/12 100% in ", out, re.MULTILINE)
