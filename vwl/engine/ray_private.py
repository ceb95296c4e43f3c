"""The parts of Ray that are not public, in one module, so that a new Ray is tried here first (`make test-ray`).

No other module imports a name of Ray that starts with an underscore, or from `ray.dashboard`; `tests/test_layering.py` checks it.
"""

from collections.abc import Mapping

import ray._raylet
from ray._private import ray_constants, state
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from ray.dashboard.utils import get_address_for_submission_client

LOOPBACK_ONLY = {ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR: "0"}
"""Environment of a Ray that binds to the loopback interface only: its switch for systems where it supports no clusters."""


def available_resources() -> dict[str, dict[str, float]]:
    """Return the free resources of each node of the connected cluster by node id; nodes that are about to leave have none."""
    leaving = draining_nodes()
    return {node: dict(free) for node, free in state.available_resources_per_node().items() if node not in leaving}


def draining_nodes() -> dict[str, int]:
    """Return the nodes that are about to leave: the time when they are taken, milliseconds since 1970 (0: unknown), by node id."""
    return dict(state.state.get_draining_nodes())


def connect_to_gcs(address: str) -> None:
    """Connect to a cluster's control store at host:port, and disconnect; raises what Ray raises if it does not answer or refuses us."""
    ray._raylet.GcsClient(address=address)


def token_headers() -> Mapping[str, str]:
    """Return the HTTP headers with Ray's token; empty without authentication."""
    return dict(get_auth_headers_if_auth_enabled({}))


def submission_address(address: str) -> str:
    """Return the URL that takes submissions of the cluster at host:port or `auto`."""
    return str(get_address_for_submission_client(address))


def clusters_enabled() -> bool:
    """Return whether a Ray that this process starts listens to other machines."""
    return bool(ray_constants.ENABLE_RAY_CLUSTER)


def reread_environment(enable_clusters: bool) -> None:
    """Let Ray take its settings and its token from the environment again, which it has read when it was imported."""
    ray_constants.ENABLE_RAY_CLUSTER = enable_clusters
    ray._raylet.Config.initialize("")
    ray._raylet.AuthenticationTokenLoader.instance().reset_cache()
