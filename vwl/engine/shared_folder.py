"""Check that all nodes of a cluster share a run's folder, before work starts: what a node writes to a disk of its own would be lost."""

import contextlib
import time
import uuid
from pathlib import Path

import ray
from ray.exceptions import GetTimeoutError, RayError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from vwl.errors import VwlError
from vwl.storage.folder import Folder

_TIMEOUT = 60.0
"""Seconds in which the nodes must answer; one that does not is left to Ray."""


def check_shared(folder: Folder) -> None:
    """Check that every node of the connected cluster sees a run's folder; a URI, and a cluster of one node, need no check.

    Raises:
        VwlError: a node sees another folder, or the folder cannot be written.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if not folder.is_local or len(nodes) < 2:
        return
    name, token = f".vwl-shared-{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
    folder.write(name, token)
    try:
        asked = {_on(node).remote(str(Path(folder.path, name))): address for node, address in nodes.items()}
        deadline = time.monotonic() + _TIMEOUT
        unshared = [address for answer, address in asked.items() if _answer(answer, deadline) not in {token, None}]
    finally:
        folder.delete(name)
    if unshared:
        shown = ", ".join(unshared[:3]) + (f" and {len(unshared) - 3} more" if len(unshared) > 3 else "")
        raise VwlError(
            f"the folder {folder} is not the same on all {len(nodes)} nodes of the cluster ({len(unshared)} see another: {shown}); "
            "mount one folder on all of them under this path (NFS), or use --run s3://... or gs://..."
        )


def _on(node: str) -> "ray.remote_function.RemoteFunction":
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return _read.options(scheduling_strategy=there)


@ray.remote(num_cpus=0, max_retries=0)
def _read(path: str) -> bytes:
    """Return the bytes of a small file, empty if it does not exist; tries for some seconds, because NFS caches folders."""
    for pause in (0.5, 1.0, 2.0, 0.0):
        with contextlib.suppress(OSError):
            return Path(path).read_bytes()
        time.sleep(pause)
    return b""


def _answer(answer: "ray.ObjectRef[bytes]", deadline: float) -> bytes | None:
    """Return the bytes that a node has read, or None if it does not answer: Ray reports that later."""
    try:
        return bytes(ray.get(answer, timeout=max(0.0, deadline - time.monotonic())))
    except (GetTimeoutError, RayError):
        return None
