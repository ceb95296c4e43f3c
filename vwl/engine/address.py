"""Check the address of a Ray cluster before Ray connects to it, and say in one line what is wrong: dead address, token, version.

Ray itself waits for minutes at a dead address, and at some it ends the process. Ray's authentication is known to this module only:
`RAY_AUTH_MODE`, and the token in `RAY_AUTH_TOKEN`, `RAY_AUTH_TOKEN_PATH` or `~/.ray/auth_token`.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import ray
import requests
from ray.exceptions import AuthenticationError, RayError

from vwl.engine.ray_private import connect_to_gcs, submission_address, token_headers
from vwl.errors import VwlError

LOCAL_JOBS = "http://127.0.0.1:8265"
"""Where a cluster's head takes submissions, on the head itself."""
_ADDRESSES = ("RAY_API_SERVER_ADDRESS", "RAY_ADDRESS")
_TIMEOUT = 5.0
_HTTP_TIMEOUT = 10.0


def check_driver_address(address: str) -> None:
    """Check that a driver can connect to `address`, host:port or `auto`.

    Raises:
        VwlError: it is an address for submissions, nothing answers there, or the cluster refuses the token.
    """
    if address.startswith(("http://", "https://")):
        raise VwlError(
            f"{address} takes submissions only: vwl submit --address {address} -- COMMAND; to run the driver here, name HEAD:6379"
        )
    host, _, port = address.rpartition(":")
    if "://" in address or not host or not port.isdigit():
        return  # auto, local and the like, which Ray resolves itself
    _knock(host, int(port), address)
    with _connection_errors(address):
        connect_to_gcs(address)


def jobs_url(address: str | None) -> str:
    """Return the URL that takes submissions for an address: a URL, host:port of dashboard or cluster, or `auto`.

    Without an address it is taken from RAY_API_SERVER_ADDRESS or RAY_ADDRESS, else it is this machine's.

    Raises:
        VwlError: nothing answers there, or the cluster refuses the token.
    """
    address = address or next((os.environ[key] for key in _ADDRESSES if os.environ.get(key)), LOCAL_JOBS)
    if address.startswith(("http://", "https://")):
        return address.rstrip("/")
    if "://" in address:
        raise VwlError(f"the address {address} takes no submissions; name the cluster's dashboard: http://HEAD:8265")
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdigit():
            raise VwlError(f"the address {address} has no port; name the cluster's dashboard: http://HEAD:8265")
        _knock(host, int(port), address)
        if _speaks_http(address):
            return f"http://{address}"
        check_driver_address(address)
    with without_addresses(), _connection_errors(address):
        return submission_address(address)


def check_jobs_url(url: str) -> None:
    """Check that the cluster at `url` answers, takes our token and runs our minor version of Ray.

    Raises:
        VwlError: one of these fails; the message says which, and what to do.
    """
    parts = urlsplit(url)
    try:
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError:
        raise VwlError(f"the address {url} has no valid port; name the cluster's dashboard: http://HEAD:8265") from None
    _knock(parts.hostname or "", port, url)
    with _connection_errors(url):
        headers = token_headers()
    try:
        answer = requests.get(f"{url}/api/version", headers=headers, timeout=_HTTP_TIMEOUT)
    except requests.exceptions.RequestException as error:
        raise VwlError(
            f"no Ray cluster answers at {url} ({type(error).__name__}); is it the dashboard's address, http://HEAD:8265?"
        ) from None
    if answer.status_code in {401, 403}:
        raise VwlError(token_advice(url, missing=answer.status_code == 401))
    try:
        theirs = str(answer.json()["ray_version"])
    except (ValueError, KeyError, TypeError):
        raise VwlError(f"{url} is not a Ray dashboard (status {answer.status_code}); its address is http://HEAD:8265") from None
    if theirs.split(".")[:2] != ray.__version__.split(".")[:2]:
        raise VwlError(
            f"the cluster at {url} runs Ray {theirs} and vwl needs {ray.__version__}; install ray=={ray.__version__} on its nodes "
            "(deploy/ has an image), or submit from a vwl of that Ray"
        )


def token_advice(address: str, missing: bool) -> str:
    """Return the error message for a token that is missing or refused."""
    if missing:
        return (
            f"the cluster at {address} needs a token: set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the cluster's"
        )
    return f"the cluster at {address} refuses the token: set RAY_AUTH_TOKEN (or RAY_AUTH_TOKEN_PATH) to the cluster's"


@contextmanager
def without_addresses() -> Iterator[None]:
    """Hide the environment's addresses, which Ray's submission client prefers to the one that it is given."""
    kept = {key: os.environ.pop(key) for key in _ADDRESSES if key in os.environ}
    try:
        yield
    finally:
        os.environ.update(kept)


@contextmanager
def _connection_errors(address: str) -> Iterator[None]:
    try:
        yield
    except AuthenticationError:
        enabled = os.environ.get("RAY_AUTH_MODE", "").lower() == "token"
        has_token = enabled and any(os.environ.get(key) for key in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
        raise VwlError(token_advice(address, missing=not has_token)) from None
    except (ConnectionError, RuntimeError, RayError) as error:
        raise VwlError(f"no Ray cluster answers at {address} ({str(error).splitlines()[0]})") from None


def _knock(host: str, port: int, address: str) -> None:
    try:
        socket.create_connection((host.strip("[]"), port), timeout=_TIMEOUT).close()
    except OSError as error:
        reason = error.strerror or str(error)
        raise VwlError(f"nothing answers at {address} ({reason.lower()}); is the cluster up, and the address right?") from None


def _speaks_http(address: str) -> bool:
    try:
        requests.get(f"http://{address}/api/version", timeout=_TIMEOUT)
    except requests.exceptions.RequestException:
        return False
    return True
