"""`vwl report`, and the report that `vwl run` writes at its end."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers import copy_run
from vwl.cli.main import app
from vwl.report.html import report
from vwl.storage.folder import Folder


@pytest.fixture
def copied(tiny_run, tmp_path):
    return copy_run(tiny_run, tmp_path)


def vwl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_run_gets_its_report_in_its_folder(copied):
    result = vwl("report", "--run", copied.folder, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    (line,) = json.loads(result.stdout)
    content = Path(copied.folder.path, "report.html").read_bytes()
    assert line == {"report": f"{copied.folder}/report.html", "megabytes": round(len(content) / 1e6, 2)}
    assert content.startswith(b"<!doctype html>")


def test_a_search_gets_its_report_where_it_is_wanted(done_search, tmp_path):
    result = vwl("report", "--run", done_search[0], "--out", tmp_path / "new" / "search.html")
    assert result.exit_code == 0
    assert b'<p class="kind">Search</p>' in (tmp_path / "new" / "search.html").read_bytes()


def test_open_shows_the_file_in_the_browser(copied, tmp_path, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", lambda address: bool(opened.append(address)) or True)
    result = vwl("report", "--run", copied.folder, "--out", tmp_path / "a b.html", "--images", "0", "--open")
    assert (result.exit_code, opened) == (0, [(tmp_path / "a b.html").as_uri()])


def test_a_machine_without_a_browser_says_where_the_file_is(copied, monkeypatch):
    monkeypatch.setattr("webbrowser.open", lambda address: False)
    result = vwl("report", "--run", copied.folder, "--images", "0", "--open")
    assert (result.exit_code, result.stderr) == (0, f"no browser was found; open {copied.folder}/report.html yourself\n")


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("--run", "{tmp}"), 1, "neither a run folder (it has no run.json) nor a search folder"),
        (("--run", "{run}", "--out", "{tmp}/"), 1, "cannot write"),
        (("--run", "{run}", "--images", "-1"), 2, "it should be greater than or equal to 0"),
        (("{run}",), 2, "name the run with --run: vwl report --run"),
        ((), 2, "missing option '--run'"),
    ],
)
def test_mistakes_end_in_one_line(tiny_run, tmp_path, arguments, code, line):
    result = vwl("report", *(argument.format(run=tiny_run.folder, tmp=tmp_path) for argument in arguments))
    assert result.exit_code == code
    assert result.stderr.count("\n") == 1
    assert line in result.stderr


def test_open_needs_a_file_on_this_machine(tiny_run, monkeypatch):
    monkeypatch.setattr(Folder, "is_local", False)
    result = vwl("report", "--run", tiny_run.folder, "--open")
    assert (result.exit_code, result.stderr.partition(",")[0]) == (1, "error: --open needs a file on this machine")


def test_a_run_ends_with_its_report(copied):
    result = vwl("run", "--run", copied.folder, "--backend", "local")
    assert result.exit_code == 0
    assert f"report: {copied.folder}/report.html (open it in a browser)" in result.stderr.splitlines()
    assert copied.folder.exists("report.html")


def test_a_run_whose_report_fails_ends_as_it_would_without(copied, monkeypatch):
    def broken(run):
        raise RuntimeError("two\nlines")

    monkeypatch.setattr(report, "run_report", broken)
    result = vwl("run", "--run", copied.folder, "--backend", "local")
    assert result.exit_code == 0
    last = f"no report was written (RuntimeError: two lines); try again with: vwl report --run {copied.folder}"
    assert last in result.stderr.splitlines()
    assert not copied.folder.exists("report.html")
