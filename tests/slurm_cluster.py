"""A real Slurm cluster on this machine: a controller and compute nodes, each with its own network, host name, /tmp/ray and processes.

The machines are Linux namespaces, joined by a bridge that leads nowhere else. All daemons are Debian's (slurmctld, slurmd, munge).
"""

import os
import secrets
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PROGRAMS = ("slurmctld", "slurmd", "sbatch", "munged", "unshare", "nsenter", "ip")
HOW_TO_INSTALL = "needs root and Slurm: apt-get install --no-install-recommends slurmctld slurmd slurm-client munge iproute2"
_NETWORK = "10.77.0"
_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def is_installed() -> bool:
    """Return whether this machine has Slurm and may start machines."""
    return os.geteuid() == 0 and all(shutil.which(name, path=_PATH) for name in PROGRAMS)


class SlurmCluster:
    """A controller and nodes `node1`, `node2`...; use as a context.

    Attributes:
        folder: short path, seen by all machines: configuration, logs and state of the daemons.
        ray: folder for Ray's files; each machine has its own under this path.
    """

    def __init__(self, num_nodes: int = 2, cpus: int = 1, memory: int = 6000) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="s", dir="/tmp"))
        self.folder.chmod(0o755)  # munge's socket is for everybody
        self.ray = self.folder / "ray"
        self.ray.mkdir()
        self.nodes = [f"node{number}" for number in range(1, num_nodes + 1)]
        self._machines: dict[str, subprocess.Popen[bytes]] = {}
        self._write_configuration(cpus, memory)

    def __enter__(self) -> "SlurmCluster":
        try:
            self._start_machine("controller", 1)
            self._run("munged", "--force", *self._munge())
            self._in_background("controller", "slurmctld", "-D", "-c")
            for name in self.nodes:
                self.start_node(name)
            wait_until(lambda: self.states() == dict.fromkeys(self.nodes, "idle"), 90, self.diagnosis)
        except BaseException:
            self.end()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def start_node(self, name: str) -> None:
        """Start a node's machine and its slurmd."""
        self._start_machine(name, 10 + int(name.removeprefix("node")))
        self._in_background(name, "slurmd", "-D")

    def kill_node(self, name: str) -> None:
        """End a machine at once, with all its processes, as one that loses power."""
        machine = self._machines.pop(name)
        machine.kill()
        machine.wait()

    def end(self) -> None:
        """End all machines and delete the daemons' files."""
        for name in list(self._machines):
            self.kill_node(name)
        shutil.rmtree(self.folder, ignore_errors=True)

    def sbatch(self, script: Path, *arguments: str, **environment: str) -> int:
        """Submit a batch script from its folder; return the job's number."""
        printed = self._run("sbatch", "--parsable", f"--chdir={script.parent}", str(script), *arguments, **environment)
        return int(printed.partition(";")[0])

    def job(self, number: int) -> dict[str, str]:
        """Return what `scontrol show job` says of a job."""
        printed = self._run("scontrol", "--oneliner", "show", "job", str(number))
        return dict(word.split("=", 1) for word in printed.split() if "=" in word)

    def update(self, number: int, **values: str) -> None:
        """Change a job."""
        self._run("scontrol", "update", f"JobId={number}", *(f"{key}={value}" for key, value in values.items()))

    def signal_batch_script(self, number: int, name: str) -> None:
        """Send a signal to a job's script, as Slurm does before the time limit."""
        self._run("scancel", "--batch", f"--signal={name}", str(number))

    def cancel(self, number: int) -> None:
        """End a job."""
        self._run("scancel", str(number))

    def states(self) -> dict[str, str]:
        """Return the state of each node."""
        printed = self._run("sinfo", "--Node", "--noheader", "--format=%N %t")
        return dict(line.split() for line in printed.splitlines())

    def processes(self, name: str) -> list[str]:
        """Return the command lines of a machine's processes."""
        entries = self._run("sh", "-c", "cd /proc; for p in [0-9]*; do tr '\\0' ' ' < $p/cmdline; echo; done", machine=name)
        return [line for line in entries.splitlines() if line]

    def diagnosis(self) -> str:
        """Return the ends of all logs."""
        return "\n".join(f"== {path.name}\n{path.read_text(errors='replace')[-3000:]}" for path in sorted(self.folder.glob("*.log")))

    def _run(self, *command: str, machine: str = "controller", **environment: str) -> str:
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "SLURM_"))}
        done = subprocess.run(
            [*self._inside(machine), *command],
            env=kept | {"SLURM_CONF": str(self.folder / "slurm.conf")} | environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr}")
        return done.stdout

    def _inside(self, machine: str) -> list[str]:
        return ["nsenter", "--target", self._first_process(machine), "--net", "--uts", "--mount", "--pid"]

    def _first_process(self, machine: str) -> str:
        leader = self._machines[machine].pid
        return Path(f"/proc/{leader}/task/{leader}/children").read_text().split()[0]

    def _in_background(self, machine: str, *command: str) -> None:
        """Start a daemon; it ends with its machine."""
        with (self.folder / f"{machine}-{command[0]}.log").open("ab") as log:
            subprocess.Popen(
                [*self._inside(machine), *command],
                stdout=log,
                stderr=log,
                env={"PATH": _PATH, "SLURM_CONF": str(self.folder / "slurm.conf")},
            )

    def _start_machine(self, name: str, number: int) -> None:
        hosts = self.folder / f"hosts-{name}"
        # Debian's installer gives a machine's own name a loopback address
        own = {name: "127.0.1.1"}
        others = {"controller": f"{_NETWORK}.1"} | {node: f"{_NETWORK}.{10 + int(node.removeprefix('node'))}" for node in self.nodes}
        hosts.write_text("".join(f"{address} {host}\n" for host, address in ({"localhost": "127.0.0.1"} | others | own).items()))
        ready = self.folder / f"ready-{name}"
        ready.unlink(missing_ok=True)
        steps = [
            f"hostname {name}",
            "ip link set lo up",
            f"mount --bind {hosts} /etc/hosts",
            f"mount -t tmpfs ray {self.ray}",
            "mount -t tmpfs shm /dev/shm",
            f"touch {ready}",
            "while :; do sleep 1000 & wait; done",  # a shell, since the first process must reap the others
        ]
        new = ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
        with (self.folder / f"machine-{name}.log").open("ab") as log:
            self._machines[name] = subprocess.Popen([*new, "bash", "-ec", "\n".join(steps)], stdout=log, stderr=log)
        wait_until(ready.exists, 20, self.diagnosis)
        if name == "controller":
            self._ip("controller", "link add cluster type bridge")
            device = "cluster"
        else:
            self._ip("controller", f"link add to-{name} type veth peer name eth0 netns {self._first_process(name)}")
            self._ip("controller", f"link set to-{name} master cluster up")
            device = "eth0"
        self._ip(name, f"addr add {_NETWORK}.{number}/24 dev {device}")
        self._ip(name, f"link set {device} up")

    def _ip(self, machine: str, words: str) -> None:
        """Configure a machine's network, from this machine's processes, whose numbers name the machines."""
        subprocess.run(["nsenter", "--target", self._first_process(machine), "--net", "ip", *words.split()], check=True)

    def _munge(self) -> list[str]:
        key = self.folder / "munge.key"
        key.write_bytes(secrets.token_bytes(128))
        key.chmod(0o600)
        files = {"key-file": key, "socket": self.folder / "munge.socket", "pid-file": self.folder / "munge.pid"}
        files |= {"log-file": self.folder / "munge.log", "seed-file": self.folder / "munge.seed"}
        return [f"--{option}={path}" for option, path in files.items()]

    def _write_configuration(self, cpus: int, memory: int) -> None:
        settings = {
            "ClusterName": "drill",
            "SlurmctldHost": f"controller({_NETWORK}.1)",
            "SlurmUser": "root",
            "AuthType": "auth/munge",
            "AuthInfo": f"socket={self.folder}/munge.socket",
            "StateSaveLocation": self.folder / "state",
            "SlurmdSpoolDir": self.folder / "spool-%n",
            "SlurmctldPidFile": self.folder / "slurmctld.pid",
            "SlurmdPidFile": self.folder / "slurmd-%n.pid",
            "ProctrackType": "proctrack/linuxproc",
            "TaskPlugin": "task/none",
            "SelectType": "select/cons_tres",
            "SelectTypeParameters": "CR_CPU_Memory",
            "SlurmdParameters": "config_overrides",
            "SlurmdTimeout": 30,
            "ReturnToService": 2,
            "MpiDefault": "none",
        }
        lines = [f"{key}={value}" for key, value in settings.items()]
        nodes = f"node[1-{len(self.nodes)}]"
        lines.append(f"NodeName={nodes} CPUs={cpus} RealMemory={memory}")
        lines.append(f"PartitionName=all Nodes={nodes} Default=YES MaxTime=INFINITE State=UP")
        (self.folder / "slurm.conf").write_text("\n".join(lines) + "\n")


def wait_until(condition: Callable[[], bool], seconds: float, diagnosis: Callable[[], str]) -> None:
    """Wait for a condition."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(diagnosis())
        time.sleep(0.5)
