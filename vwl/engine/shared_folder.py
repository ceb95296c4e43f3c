"""Checks that all nodes of a cluster see the same folder, before a stage starts."""

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
"""Seconds to wait for the nodes' answers; a node that does not answer is left to Ray."""


def check_shared(folder: Folder) -> None:
    """Check that every node of the connected cluster sees a run's folder; URIs and clusters of one node are not checked.

    Raises:
        VwlError: a node does not see it, or the folder cannot be written.
    """
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    if not folder.is_local or len(nodes) < 2:
        return
    name, token = f".vwl-shared-{uuid.uuid4().hex}", uuid.uuid4().hex.encode()
    folder.write(name, token)
    try:
        asked = {_on(node).remote(str(Path(folder.path, name))): address for node, address in nodes.items()}
        deadline = time.monotonic() + _TIMEOUT
        differing = [address for answer, address in asked.items() if _answer(answer, deadline) not in {token, None}]
    finally:
        folder.delete(name)
    if differing:
        shown = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
        raise VwlError(
            f"the folder {folder} is not the same on all {len(nodes)} nodes of the cluster ({len(differing)} see another: {shown}); "
            "mount one folder on all of them under this path (NFS), or use --run s3://... or gs://..."
        )


def _on(node: str) -> "ray.remote_function.RemoteFunction":
    there = NodeAffinitySchedulingStrategy(node, soft=False)
    return _read.options(scheduling_strategy=there)


@ray.remote(num_cpus=0, max_retries=0)
def _read(path: str) -> bytes:
    """Return a small file's bytes, empty if it does not exist; NFS may be some seconds behind."""
    for pause in (0.5, 1.0, 2.0, 0.0):
        with contextlib.suppress(OSError):
            return Path(path).read_bytes()
        time.sleep(pause)
    return b""


def _answer(answer: "ray.ObjectRef[bytes]", deadline: float) -> bytes | None:
    """Return what a node has read; none if it has failed or does not answer, which Ray finds out later."""
    try:
        return bytes(ray.get(answer, timeout=max(0.0, deadline - time.monotonic())))
    except (GetTimeoutError, RayError):
        return None
