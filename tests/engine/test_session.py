"""Sessions: Ray is started by them and by nothing else."""

import os
import subprocess
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest
import ray

from tests.ray_cluster import processes_below, without_ray
from vwl.engine.local_ray import private_local_ray
from vwl.engine.session import session

ROOT = Path(__file__).parents[2]


def test_what_asks_ray_for_something_outside_a_session_starts_none():
    code = "import vwl.engine.session, ray; ray.put(1)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Started a local Ray instance" not in done.stderr
    assert "has not been started yet" in done.stderr.strip().splitlines()[-1]


STRANGER = """
import os, sys
os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # or Ray looks for its own node at another address
import ray
ray.init(address=sys.argv[1], log_to_driver=False)
print("connected")
"""


@pytest.fixture(scope="module")
def local_ray() -> Iterator[str]:
    """A local session with the State API; the address of its GCS."""
    with session(None, cpus=2, dashboard=True):
        assert ray.get(ray.remote(lambda: 42).remote()) == 42
        yield ray.get_runtime_context().gcs_address


@pytest.mark.ray
class TestPrivateRay:
    def test_a_client_without_the_token_is_refused(self, local_ray):
        for token in ({}, {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64}, {"RAY_AUTH_MODE": "disabled"}):
            done = subprocess.run(
                [sys.executable, "-c", STRANGER, local_ray],
                env=without_ray() | token | {"RAY_NUM_REDIS_GET_RETRIES": "2"},
                capture_output=True,
                text=True,
                check=False,
                timeout=100,
            )
            assert done.returncode != 0
            assert "connected" not in done.stdout

    def test_a_client_with_the_token_is_not(self, local_ray):
        token = {key: os.environ[key] for key in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
        done = subprocess.run(
            [sys.executable, "-c", STRANGER, local_ray], env=without_ray() | token, capture_output=True, text=True, check=False
        )
        assert done.stdout == "connected\n", done.stderr

    def test_its_processes_listen_on_the_loopback_interface_only(self, local_ray):
        processes = processes_below(os.getpid())
        addresses = listening(processes)
        assert len(addresses) > 5
        assert [address for address in addresses if not (getattr(address, "ipv4_mapped", None) or address).is_loopback] == []

    def test_the_home_folder_gets_no_token(self, local_ray):
        assert not Path("~/.ray/auth_token").expanduser().exists()


def test_the_environment_is_as_before_when_a_session_has_ended():
    before = dict(os.environ)
    with private_local_ray():
        assert os.environ["RAY_AUTH_MODE"] == "token"
        first = os.environ["RAY_AUTH_TOKEN"]
    assert dict(os.environ) == before
    with private_local_ray():
        assert os.environ["RAY_AUTH_TOKEN"] != first


def listening(processes: list[int], port: int | None = None) -> list[IPv4Address | IPv6Address]:
    """The addresses at which these processes accept TCP connections, at one port or any."""
    sockets = {os.readlink(file) for pid in processes for file in Path(f"/proc/{pid}/fd").iterdir() if file.is_symlink()}
    found = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                host, _, number = fields[1].partition(":")
                if port not in {None, int(number, 16)}:
                    continue
                words = bytes.fromhex(host)
                address = b"".join(words[i : i + 4][::-1] for i in range(0, len(words), 4))  # words of 32 bits in the machine's order
                found.append(ip_address(address))
    return found
