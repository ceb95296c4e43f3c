"""A real Prometheus scrapes a training and an inference stage on a cluster, and the local Ray of a command."""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY
from tests.engine.test_metrics import queries
from tests.engine.test_session import listening
from tests.helpers import tiny_scenes, truncate
from tests.prometheus import HOW_TO_INSTALL, IS_INSTALLED, Prometheus
from tests.ray_cluster import ROOT, VWL, NodeProcesses, free_port, processes_below, without_ray
from vwl.config.files import load_recipe, to_yaml
from vwl.data.index import Index, read_index, write_index
from vwl.engine.session import METRICS_PORT

pytestmark = [
    pytest.mark.ray,
    pytest.mark.drill,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(not IS_INSTALLED, reason=HOW_TO_INSTALL),
]
REPORT = {"RAY_metrics_report_interval_ms": "2000"}
"""Ray's processes hand their metrics on each ten seconds by default; the actors of these tiny stages hardly live so long."""


@pytest.fixture
def index(tmp_path: Path) -> Index:
    """Scenes, their index and a recipe for them in `tmp_path`."""
    write_index(tiny_scenes(tmp_path / "scenes", 24, 16), tmp_path / "index.parquet")
    (tmp_path / "tiny.yaml").write_text(to_yaml(load_recipe("demo", [*TINY, "classifier.epochs=10"])))
    return read_index(str(tmp_path / "index.parquet"))


def train_words(folder: Path, workers: int) -> list[str]:
    inputs = ["--data", str(folder / "index.parquet"), "--recipe", str(folder / "tiny.yaml"), "--run", str(folder / "run")]
    return ["train", "classifier", *inputs, "--workers", str(workers), "--cpus-per-worker", "1"]


def logged(folder: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (folder / "run/classifier/metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if "loss" in line]


def num_steps(folder: Path) -> int:
    return int(logged(folder)[-1]["num_steps"])


def rates(folder: Path) -> set[float]:
    return {line["images_per_second"] for line in logged(folder)}


def filled(query: str) -> str:
    """Return a query of the dashboard as Grafana sends it with all runs and stages chosen."""
    return query.replace("$run", ".*").replace("$stage", ".*").replace("$__rate_interval", "30s")


def value(prometheus: Prometheus, expression: str) -> float:
    (series,) = prometheus.query(expression)
    return float(series["value"][1])


def test_every_query_of_the_dashboard_has_data_while_a_cluster_trains_and_infers(index, tmp_path):
    with NodeProcesses(head_cpus=1, **REPORT) as cluster:
        cluster.add_node(cpus=1)
        discovery = {"file_sd_configs": [{"files": [str(cluster.folder / "ray/prom_metrics_service_discovery.json")]}]}
        with Prometheus(tmp_path, discovery) as prometheus:
            unseen = {filled(query) for query in queries()}

            def follow(*words: str, code: int = 0) -> None:
                """Run a command to its end, and note which queries have data meanwhile."""
                with (tmp_path / "out.log").open("w") as log:
                    command = [*VWL, *words, "--address", cluster.gcs]
                    process = subprocess.Popen(command, cwd=ROOT, env=cluster.driver_environment(), stdout=log, stderr=log)
                    while process.poll() is None:
                        unseen.difference_update([query for query in unseen if prometheus.query(query)])
                        time.sleep(0.5)
                assert process.returncode == code, (tmp_path / "out.log").read_text()

            follow(*train_words(tmp_path, workers=2))
            where = f"{{run='{tmp_path}/run', stage='classifier'}}"
            assert value(prometheus, f"max(last_over_time(ray_vwl_stage_total{where}[5m]))") == num_steps(tmp_path)
            assert value(prometheus, f"max(last_over_time(ray_vwl_training_images_per_second{where}[5m]))") in rates(tmp_path)
            assert value(prometheus, f"sum(last_over_time(ray_vwl_process_starts_total{where}[5m]))") == 2

            truncate(index, index.rows[0].image_id)
            follow("infer", "cam", "--run", str(tmp_path / "run"), code=1)  # an image has failed
            assert unseen == set()
            where = f"{{run='{tmp_path}/run', stage='cam'}}"
            assert value(prometheus, f"max(last_over_time(ray_vwl_stage_done{where}[5m]))") == len(index.rows)
            assert 0 < value(prometheus, f"sum(last_over_time(ray_vwl_images_total{where}[5m]))") <= len(index.rows)
            assert value(prometheus, f"sum(last_over_time(ray_vwl_images_failed_total{where}[5m]))") == 1


def test_the_metrics_of_a_local_ray_are_at_the_chosen_port_of_the_loopback_interface(index, tmp_path):
    port = free_port()
    environment = without_ray() | REPORT | {METRICS_PORT: str(port), "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    with (tmp_path / "out.log").open("w") as log:
        command = subprocess.Popen([*VWL, *train_words(tmp_path, workers=1)], cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        with Prometheus(tmp_path, {"static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}) as prometheus:
            found = prometheus.wait_for("ray_vwl_training_loss", 300)
            assert {series["metric"]["run"] for series in found} == {str(tmp_path / "run")}
            (address,) = listening(processes_below(command.pid), port)
            assert (getattr(address, "ipv4_mapped", None) or address).is_loopback
    finally:
        command.send_signal(signal.SIGINT)
        assert command.wait(timeout=120) == 130, (tmp_path / "out.log").read_text()
