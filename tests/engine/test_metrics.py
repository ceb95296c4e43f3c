"""Metrics for Prometheus: their names, and the Grafana dashboard that shows them. That they arrive: `test_metrics_drill.py`."""

import json
import re
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.test_deployment import DEPLOY
from vwl.engine.metrics import COUNTERS, PROGRESS_GAUGES, TRAINING_GAUGES, exported_names, run_of
from vwl.engine.session import METRICS_PORT, session
from vwl.errors import VwlError
from vwl.storage.folder import Folder

DASHBOARD: dict[str, Any] = json.loads((DEPLOY / "grafana/vwl.json").read_text())
OF_RAY = {"ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_mem_total"}
"""Ray's own metrics on the dashboard."""


def queries() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel["targets"]]


def metrics_in(query: str) -> set[str]:
    return set(re.findall(r"\bray_\w+", query))


@pytest.mark.parametrize("query", queries())
def test_a_query_of_the_dashboard_names_metrics_that_exist(query):
    assert metrics_in(query)
    assert metrics_in(query) <= exported_names() | OF_RAY


def test_the_dashboard_shows_every_metric():
    assert exported_names() <= set().union(*map(metrics_in, queries()))


def test_the_variables_of_the_dashboard_are_tags_of_a_metric_and_all_its_queries_use_them():
    variables = {entry["name"]: entry for entry in DASHBOARD["templating"]["list"]}
    assert variables.keys() == {"datasource", "run", "stage"}
    for name in ("run", "stage"):
        assert re.fullmatch(rf"label_values\((ray_vwl_\w+), {name}\)", variables[name]["query"]["query"])[1] in exported_names()
    ours = [query for query in queries() if "ray_vwl" in query]
    assert all(query.count("ray_vwl") == query.count('{run=~"$run", stage=~"$stage"}') for query in ours)


def test_panels_have_their_own_numbers_and_places_and_the_chosen_source():
    panels = DASHBOARD["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    assert len({(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels}) == len(panels)
    assert {part["datasource"]["uid"] for panel in panels for part in (panel, *panel["targets"])} == {"${datasource}"}


def test_gauges_and_counters_have_different_names():
    gauges = [name for name, _ in TRAINING_GAUGES.values()]
    assert len({*gauges, *PROGRESS_GAUGES, *COUNTERS}) == len(gauges) + len(PROGRESS_GAUGES) + len(COUNTERS)


def test_the_tag_of_a_run_is_the_path_of_its_folder(tmp_path):
    assert run_of(Folder(tmp_path / "runs/voc") / "classifier") == str(tmp_path / "runs/voc")


@pytest.mark.parametrize("value", ["", "http", "80", "65536", "-1"])
def test_a_metrics_port_that_is_none_is_refused_in_one_line(monkeypatch, value):
    monkeypatch.setenv(METRICS_PORT, value)
    with (
        pytest.raises(VwlError, match=rf"VWL_METRICS_PORT is '{re.escape(value)}'; set it to a port from 1024 to 65535, or unset it"),
        session(None),
    ):
        pass


def test_the_page_about_monitoring_names_every_metric():
    page = (Path(__file__).parents[2] / "docs/monitoring.md").read_text()
    assert exported_names() <= set(re.findall(r"`(ray_vwl_\w+)`", page))
