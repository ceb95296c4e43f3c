"""A real Prometheus on this machine, Debian's package."""

import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import requests
import yaml

from tests.ray_cluster import free_port

IS_INSTALLED = shutil.which("prometheus") is not None
HOW_TO_INSTALL = "needs Prometheus: apt-get install --no-install-recommends prometheus"


class Prometheus:
    """A server that scrapes every three seconds; use as a context."""

    def __init__(self, folder: Path, scrape: dict[str, Any]) -> None:
        """Prepare files in `folder`; `scrape` says what to scrape, as an entry of `scrape_configs` does."""
        self._url = f"127.0.0.1:{free_port()}"
        entry = {"job_name": "ray", "scrape_interval": "3s", "scrape_timeout": "3s", **scrape}
        (folder / "prometheus.yml").write_text(yaml.safe_dump({"scrape_configs": [entry]}))
        self._log = folder / "prometheus.log"
        files = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb"]
        self._command = ["prometheus", *files, f"--web.listen-address={self._url}"]

    def __enter__(self) -> "Prometheus":
        with self._log.open("w") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.terminate()
        self._process.wait()

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Return the series that an expression has now: `metric`, its labels, and `value`, a time and a number as text."""
        assert self._process.poll() is None, self._log.read_text()
        try:
            answer = requests.get(f"http://{self._url}/api/v1/query", {"query": expression}, timeout=10).json()
        except requests.exceptions.ConnectionError:  # it has not started yet
            return []
        if answer["status"] != "success" and answer.get("errorType") == "unavailable":  # it is still starting
            return []
        assert answer["status"] == "success", answer
        return list(answer["data"]["result"])

    def wait_for(self, expression: str, seconds: float = 60) -> list[dict[str, Any]]:
        """Return the series of an expression as soon as it has some."""
        deadline = time.monotonic() + seconds
        while not (found := self.query(expression)):
            assert time.monotonic() < deadline, f"{expression} has no data; {self._log.read_text()}"
            time.sleep(0.5)
        return found
