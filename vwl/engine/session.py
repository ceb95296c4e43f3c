"""Connect a command to Ray: to the cluster at an address, or to a local Ray that is started for the command and stopped after it."""

import logging
import os
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import ray

from vwl.config.node_labels import Selector
from vwl.engine.address import check_driver_address
from vwl.engine.local_ray import private_local_ray
from vwl.engine.nodes import ANYWHERE, total
from vwl.errors import VwlError

_SETTINGS = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_TRAIN_ENABLE_PRINT_PATCH": "0",
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.5",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_worker_niceness": "0",
    "RAY_BACKEND_LOG_LEVEL": "fatal",
}
"""Silence Ray's logs and progress (vwl shows its own), poll often, keep workers in the driver's folder and at its priority."""
SAME_VERSIONS = "install the same Ray and Python on its nodes and here (deploy/ has an image)"
_OBJECT_STORE = 512 * 2**20
_API_SERVER = "RAY_API_SERVER_ADDRESS"
METRICS_PORT = "VWL_METRICS_PORT"
"""Environment variable: the loopback port at which a local Ray exports metrics for Prometheus; without it a random one."""


@contextmanager
def session(address: str | None, cpus: int | None = None, dashboard: bool = False) -> Iterator[None]:
    """Connect to the cluster at `address` (or RAY_ADDRESS), or start a local Ray with `cpus` CPUs for the block.

    A local Ray has a `dashboard`, and with it Ray's State API, only when asked for: it takes some seconds and processes.

    Raises:
        VwlError: no cluster answers at the address, or it refuses the token, or runs another version of Ray.
    """
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    address = address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        yield
        return
    with nullcontext() if address else private_local_ray(), _dashboard_port(wanted=dashboard and not address) as port:
        try:
            with _quiet_stderr():
                if address:
                    check_driver_address(address)
                with _own_sigterm():
                    _connect(address, cpus, port)
        except VwlError:
            raise
        except Exception as error:  # Ray's own are of many kinds; a dashboard that does not come up is a plain one
            where = f"cannot connect to the Ray cluster at {address}" if address else "a local Ray could not be started"
            why = " ".join(str(error).split())[:300]  # a mismatch of versions has several lines
            way_out = f"; {SAME_VERSIONS}" if "ersion mismatch" in why else ""
            raise VwlError(f"{where} ({why}){way_out}") from None
        for name in ("ray.data", "ray.train"):
            logging.getLogger(name).setLevel(logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


@contextmanager
def _dashboard_port(wanted: bool) -> Iterator[int | None]:
    """Choose a free port and pass it to Ray's processes, which fail to find it when a second Ray runs on the machine."""
    if not wanted:
        yield None
        return
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = int(found.getsockname()[1])
    before = os.environ.get(_API_SERVER)
    os.environ[_API_SERVER] = f"http://127.0.0.1:{port}"
    try:
        yield port
    finally:
        if before is None:
            del os.environ[_API_SERVER]
        else:
            os.environ[_API_SERVER] = before


def _connect(address: str | None, cpus: int | None, dashboard_port: int | None) -> None:
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        return
    ray.init(
        num_cpus=cpus or os.cpu_count(),
        include_dashboard=dashboard_port is not None,
        dashboard_port=dashboard_port,
        object_store_memory=_OBJECT_STORE,
        _metrics_export_port=_metrics_port(),
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


def _metrics_port() -> int | None:
    text = os.environ.get(METRICS_PORT)
    if text is None:
        return None
    if not text.isdigit() or not 1024 <= int(text) <= 65535:
        raise VwlError(f"{METRICS_PORT} is {text!r}; set it to a port from 1024 to 65535, or unset it")
    return int(text)


@contextmanager
def _own_sigterm() -> Iterator[None]:
    """Restore the command's SIGTERM handler, which Ray replaces by an exit that saves nothing."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _quiet_stderr() -> Iterator[None]:
    """Keep Ray's native start-up lines, which no Python setting silences, off the terminal; failures still raise."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as sink:
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def cluster_cpus(on: Selector = ANYWHERE) -> int:
    """Return the CPUs of the connected cluster, or of its nodes with these labels."""
    return int(total("CPU", on))


def cluster_gpus(on: Selector = ANYWHERE) -> int:
    """Return the GPUs of the connected cluster, or of its nodes with these labels."""
    return int(total("GPU", on))


def cluster_memory() -> float:
    """Return the memory of the connected cluster that is for workers, bytes."""
    return total("memory")
