"""Makes the local Ray of a command private: it listens on the loopback interface only and answers nobody without its token.

Ray binds to all interfaces unless the node's address is the loopback address, which it gives to a node only where it supports no clusters
(its switch for macOS and Windows). The token is random, is passed to Ray's processes in their environment and is written to no file.
"""

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from vwl.engine.ray_private import LOOPBACK_ONLY, clusters_enabled, reread_environment

_LOOPBACK = LOOPBACK_ONLY | {"GLOO_SOCKET_IFNAME": "lo"}
_TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": None}


@contextmanager
def private_local_ray() -> Iterator[None]:
    """Let the Ray that is started in the block be private; afterwards the process can connect to a cluster with the cluster's token."""
    settings = _LOOPBACK | _TOKEN | {"RAY_AUTH_TOKEN": secrets.token_hex(32)}
    before = {key: os.environ.get(key) for key in settings}
    enable_clusters = clusters_enabled()
    _set(settings, enable_clusters=False)
    try:
        yield
    finally:
        _set(before, enable_clusters)


def _set(values: Mapping[str, str | None], enable_clusters: bool) -> None:
    """Set environment variables, and what Ray has read from them before."""
    for key, value in values.items():
        if value is None:
            os.environ.pop(key, None)
        else:
            os.environ[key] = value
    reread_environment(enable_clusters)
