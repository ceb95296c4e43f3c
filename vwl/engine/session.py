"""One Ray session for a command: a local Ray is started when no address is given, and stopped at the end."""

import logging
import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from vwl.engine.address import check_driver_address
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
"""Quiet logs and progress (ours is shown; Ray Data warns of its own actors), quick polls, workers that stay in the driver's folder and
have its priority."""
_OBJECT_STORE = 512 * 2**20


@contextmanager
def session(address: str | None, cpus: int | None = None, dashboard: bool = False) -> Iterator[None]:
    """Connect to the cluster at `address` (or RAY_ADDRESS), or start a local Ray with `cpus` CPUs for the block.

    A local Ray has a `dashboard`, and with it Ray's State API, only when asked for: it takes some seconds and processes.

    Raises:
        VwlError: there is no cluster at the address, or it is not for us (token, version).
    """
    for key, value in _SETTINGS.items():
        os.environ.setdefault(key, value)
    address = address or os.environ.get("RAY_ADDRESS")
    if ray.is_initialized():
        yield
        return
    try:
        with _quiet_stderr():
            if address:
                check_driver_address(address)
            _connect(address, cpus, dashboard)
    except (ConnectionError, RuntimeError) as error:
        where = f"cannot connect to the Ray cluster at {address}" if address else "a local Ray could not be started"
        raise VwlError(f"{where} ({' '.join(str(error).split())[:300]})") from None  # a mismatch of versions has several lines
    for name in ("ray.data", "ray.train"):
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def _connect(address: str | None, cpus: int | None, dashboard: bool) -> None:
    if address:
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
        return
    # A local Ray is reached from this machine only; a token file left in the home folder would confuse later clusters.
    os.environ.setdefault("RAY_AUTH_MODE", "disabled")
    ray.init(
        num_cpus=cpus or os.cpu_count(),
        include_dashboard=dashboard,
        dashboard_port=0,
        object_store_memory=_OBJECT_STORE,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )


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


def cluster_cpus() -> int:
    """Return the CPUs of the connected cluster."""
    return int(ray.cluster_resources().get("CPU", 0))


def cluster_gpus() -> int:
    """Return the GPUs of the connected cluster."""
    return int(ray.cluster_resources().get("GPU", 0))
