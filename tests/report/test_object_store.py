"""Reports and figures of a run in an object store: read there, written there, and the same as those of the run on disk."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.s3 import copy_tree, serving
from vwl.cli.main import app
from vwl.report.figures.comparison import comparison
from vwl.report.figures.grid import draw_grid, render
from vwl.storage.folder import Folder


@pytest.fixture(scope="module")
def uri(tiny_run, tmp_path_factory):
    """Returns the URI of a path in a bucket that holds the finished run as `run`."""
    with serving(tmp_path_factory.mktemp("s3")) as server:
        copy_tree(Path(tiny_run.folder.path), Folder(server.uri("run")))
        yield server.uri


def vwl(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_a_run_gets_its_report_there(uri):
    (line,) = vwl("report", "--run", uri("run"), "--images", "0", "--json")
    assert line["report"].startswith("s3://bucket/run/report.html")
    page = Folder(uri("run")).read("report.html")
    assert line["megabytes"] == round(len(page) / 1e6, 2)
    assert b"<title>run" in page


def test_a_run_on_disk_gets_its_report_there(tiny_run, uri):
    vwl("report", "--run", tiny_run.folder, "--images", "0", "--out", uri("reports/a.html"), "--json")
    assert Folder(uri("reports")).read("a.html").startswith(b"<!doctype html>")


def test_figures_are_those_of_the_run_on_disk(tiny_run, uri):
    vwl("figures", "maps", "--run", uri("run"), "--label", "run", "--number", "2", "--out", uri("figures"), "--json")
    expected = render(draw_grid(comparison([tiny_run], ["run"], "cam", num_images=2)), "png")
    assert Folder(uri("figures")).read("maps.png") == expected
