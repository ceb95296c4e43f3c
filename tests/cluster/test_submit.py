"""What a submission says before there is a job, without a cluster: what would be sent, and in one line why it cannot be."""

import json
import re
import shutil
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.ray_cluster import ROOT, VWL, free_port, without_ray
from vwl.cluster.job import Job, Request, advice

pytestmark = pytest.mark.ray


def vwl(*arguments: str, cwd: Path = ROOT, code: Path = ROOT, **more: str) -> subprocess.CompletedProcess:
    """Run a command with the code of a checkout."""
    environment = without_ray() | {"PYTHONPATH": str(code), "RAY_AUTH_MODE": "disabled"} | more
    return subprocess.run([*VWL, *arguments], cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("address", ["127.0.0.1:{}", "http://127.0.0.1:{}"])
def test_an_address_that_does_not_answer_is_said_at_once(address):
    address = address.format(free_port())
    done = vwl("jobs", "list", "--address", address)
    assert done.returncode == 1
    assert done.stderr == f"error: nothing answers at {address} (connection refused); is the cluster up, and the address right?\n"


class OlderDashboard(BaseHTTPRequestHandler):
    """Answers as the dashboard of another Ray does."""

    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"version": "4", "ray_version": "2.58.1", "ray_commit": "x", "session_name": "s"}')

    def log_message(self, *_):
        pass


def test_a_cluster_with_another_ray_is_refused():
    server = HTTPServer(("127.0.0.1", 0), OlderDashboard)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    done = vwl("submit", "--address", f"http://127.0.0.1:{server.server_port}", "--", "recipe", "list")
    server.shutdown()
    assert done.returncode == 1
    assert re.search(r"error: the cluster at http://\S+ runs Ray 2\.58\.1 and vwl needs 2\.60\.0; ", done.stderr)


def test_a_dry_run_shows_what_would_be_sent_and_no_secret(tmp_path):
    (tmp_path / "tiny.yaml").write_text("base: demo\n")
    arguments = ["--", "run", "--data", "index.parquet", "--recipe", "tiny.yaml", "--run", "s3://b/r"]
    done = vwl("submit", "--dry-run", "--env", "KEY=secret", "--packages", *arguments, cwd=tmp_path, RAY_ADDRESS="nowhere")
    assert done.returncode == 0, done.stderr
    shown = json.loads(done.stdout)
    assert shown["command"].startswith("exec python -m vwl.cli.in_job run --data /")
    assert "submitted-tiny.yaml" in shown["files"]
    assert "KEY" in shown["env_vars"]
    assert "secret" not in done.stdout
    assert any(line.startswith("torch==") for line in shown["uv"])


def test_code_over_the_limit_is_not_sent(tmp_path):
    for part in ("vwl", "cli", "tune_spaces"):
        shutil.copytree(ROOT / part, tmp_path / part)
    with (tmp_path / "vwl/data/table.csv").open("wb") as file:
        file.truncate(30 * 2**20)
    done = vwl("submit", "--address", "http://127.0.0.1:1", "--", "recipe", "list", cwd=tmp_path, code=tmp_path)
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: the code to send is 32\.\d MiB, over the limit of 20 MiB; move files that are not code out of \S+: "
        r"vwl/data/table\.csv \(30\.0 MiB\), .*\n",
        done.stderr,
    )


def job(**changes: object) -> Job:
    fields = {"job": "j", "state": "failed", "command": "vwl run", "submitted": None, "seconds": None, "exit_code": 1, "message": "why"}
    return Job(**(fields | changes))


@pytest.mark.parametrize(
    ("state", "code", "expected"),
    [("succeeded", 0, 0), ("failed", 3, 3), ("failed", None, 1), ("failed", -9, 137), ("stopped", None, 130)],
)
def test_a_waiting_terminal_ends_with_the_code_of_the_job(state, code, expected):
    assert job(state=state, exit_code=code).as_exit_code() == expected


def test_advice_is_given_only_for_failures_of_the_cluster():
    assert advice(job(), "error: a mistake") == ""
    assert "--python PATH" in advice(job(exit_code=127), "sh: 1: exec: python: not found")
    assert advice(job(exit_code=None), "") == "the job ended before its command started: why"


def test_the_shell_on_the_head_gets_words_with_spaces_whole():
    request = Request(("run", "--run", "/my runs/a", "-o", "evaluation.classes=[cat,dog]"), python="/opt/my env/bin/python")
    assert request.entrypoint() == (
        "exec '/opt/my env/bin/python' -m vwl.cli.in_job run --run '/my runs/a' -o 'evaluation.classes=[cat,dog]'"
    )


def test_a_request_does_not_show_its_environment():
    assert "secret" not in repr(Request(("run",), env={"KEY": "secret"}))
