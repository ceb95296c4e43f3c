"""A server for S3 on this machine, in a process of its own that can be made to answer no more for a while."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import requests

from tests.ray_cluster import free_port
from vwl.storage.folder import Folder

CREDENTIALS = {"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_EC2_METADATA_DISABLED": "true"}
"""What drivers and nodes need in their environment; the server takes any."""


class S3Server:
    """moto's server with one bucket, kept in its memory; use as a context."""

    def __init__(self, log: Path) -> None:
        self.port = free_port()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        with log.open("w") as sink:
            self._process = subprocess.Popen(command, env=os.environ | CREDENTIALS, stdout=sink, stderr=sink)
        deadline = time.monotonic() + 120
        while True:
            try:
                requests.put(f"http://127.0.0.1:{self.port}/bucket", timeout=10).raise_for_status()
                return
            except requests.exceptions.ConnectionError:
                if self._process.poll() is not None or time.monotonic() > deadline:
                    self.end()
                    raise RuntimeError(log.read_text()) from None
                time.sleep(0.2)

    def uri(self, path: str) -> str:
        """Return the URI of what is in the bucket."""
        return f"s3://bucket/{path}?endpoint_override=127.0.0.1:{self.port}&scheme=http&region=us-east-1"

    def uploads(self) -> str:
        """Return what there is to know of files that are being written now."""
        return requests.get(f"http://127.0.0.1:{self.port}/bucket?uploads", timeout=10).text

    @contextmanager
    def away(self) -> Iterator[None]:
        """Answer nothing during the block, as a machine that hangs: connections are taken and stay silent."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()

    def __enter__(self) -> "S3Server":
        return self

    def __exit__(self, *_: object) -> None:
        self.end()


@contextmanager
def serving(folder: Path) -> Iterator[S3Server]:
    """Run a server, its log in `folder`, with its credentials in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in CREDENTIALS.items():
            patch.setenv(key, value)
        with S3Server(folder / "server.log") as server:
            yield server


def copy_tree(folder: Path, there: Folder) -> None:
    """Copy all files of a folder."""
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            there.write(path.relative_to(folder).as_posix(), path.read_bytes())
