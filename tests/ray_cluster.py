"""A real Ray cluster of node processes on this machine: a head and workers, each in its own process group, ended by us."""

import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

ROOT = Path(__file__).parents[1]
RAY = str(Path(sys.executable).with_name("ray"))
VWL = (sys.executable, "-m", "vwl.cli.main")


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def without_ray() -> dict[str, str]:
    """Return the environment without what tells a process of a cluster."""
    return {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}


class NodeProcesses:
    """`ray start` processes; use as a context, or call `end`.

    Attributes:
        gcs: address for drivers, host:port.
        jobs: address for submissions, http://host:port.
        token: the secret, or none without authentication.
        environment: what drivers and nodes need to be of this cluster.
    """

    def __init__(self, token: bool = True, head_cpus: int = 0, dashboard: bool = True, **settings: str) -> None:
        """Start the head; `settings` are environment variables of all nodes and drivers."""
        # Ray's sockets need a short path.
        self.folder = Path(tempfile.mkdtemp(prefix="r", dir="/tmp"))
        self.token = secrets.token_hex(16) if token else None
        self._port, self._dashboard = free_port(), free_port()
        self.gcs, self.jobs = f"127.0.0.1:{self._port}", f"http://127.0.0.1:{self._dashboard}"
        self.environment = {
            "RAY_TMPDIR": str(self.folder),
            "RAY_AUTH_MODE": "token" if token else "disabled",
            "RAY_USAGE_STATS_ENABLED": "0",
            "RAY_worker_niceness": "0",  # else a busy machine starves them
            "RAY_memory_monitor_refresh_ms": "0",  # else Ray ends processes for the memory that other programs of this machine take
            "RAY_raylet_start_wait_time_s": "300",
            "OMP_NUM_THREADS": "1",
        } | ({"RAY_AUTH_TOKEN": self.token} if self.token else {})
        self.environment |= settings
        self.nodes: list[subprocess.Popen] = []
        head = ["--head", "--port", str(self._port), "--dashboard-host", "127.0.0.1", "--dashboard-port", str(self._dashboard)]
        head += [] if dashboard else ["--include-dashboard", "false"]  # a dozen processes, which jobs and the State API need
        self._start([*head, "--ray-client-server-port", str(free_port()), "--num-cpus", str(head_cpus)])

    def add_node(self, cpus: int = 1, within: Sequence[str] = (), labels: str = "") -> subprocess.Popen:
        """Start a worker node; `within` is a command that runs another (unshare), `labels` are key=value with commas."""
        return self._start(["--address", self.gcs, "--num-cpus", str(cpus), *(["--labels", labels] if labels else [])], within)

    def driver_environment(self, **more: str) -> dict[str, str]:
        """Return the environment of a command that is to find the cluster's token, and the code of this checkout."""
        return without_ray() | self.environment | {"PYTHONPATH": os.environ.get("PYTHONPATH", str(ROOT))} | more

    def vwl(self, *words: object, **more: str) -> subprocess.CompletedProcess:
        """Run a command to its end."""
        command = [*VWL, *map(str, words)]
        return subprocess.run(command, cwd=ROOT, env=self.driver_environment(**more), capture_output=True, text=True, check=False)

    def kill(self, node: subprocess.Popen) -> None:
        """Kill a node with all its processes at once, as a machine that loses power."""
        for process in processes_of(node.pid):
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        node.wait()

    def end(self) -> None:
        for node in reversed(self.nodes):
            self.kill(node)
        shutil.rmtree(self.folder, ignore_errors=True)

    def __enter__(self) -> "NodeProcesses":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def _start(self, words: list[str], within: Sequence[str] = ()) -> subprocess.Popen:
        """Start a node and wait until it is of the cluster: Ray's nodes on one machine must not choose their ports at the same time."""
        path = self.folder / f"node-{len(self.nodes)}.log"
        fixed = "--object-store-memory 100000000 --num-gpus 0 --block --disable-usage-stats --dashboard-agent-listen-port"
        command = [*within, RAY, "start", *words, *fixed.split(), str(free_port())]
        with path.open("w") as log:
            node = subprocess.Popen(command, env=self.driver_environment(), stdout=log, stderr=log, start_new_session=True)
        self.nodes.append(node)
        deadline = time.monotonic() + 300
        while "Ray runtime started" not in path.read_text():
            if node.poll() is not None or time.monotonic() > deadline:
                said = path.read_text()
                self.end()
                raise RuntimeError(said)
            time.sleep(0.2)
        return node


def processes_of(leader: int) -> list[int]:
    """Every process of a session, also those that have their own process group."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            session = int((entry / "stat").read_text().rpartition(")")[2].split()[3])
        except OSError:
            continue
        if session == leader:
            found.append(int(entry.name))
    return found


def processes_below(ancestor: int) -> list[int]:
    """Every living process that descends from a process, and the process itself."""
    parents = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            parents[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])

    def is_below(process: int) -> bool:
        while process and process != ancestor:
            process = parents.get(process, 0)
        return process == ancestor

    return [process for process in parents if is_below(process)]
