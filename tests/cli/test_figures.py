"""`vwl figures`."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vwl.cli.main import app


def vwl(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.mark.parametrize("kind", ["maps", "segmentations", "words", "similarity"])
def test_a_figure_is_a_png_and_an_svg(tiny_run, tmp_path, kind):
    result = vwl("figures", kind, "--run", tiny_run.folder, "--number", "2", "--out", tmp_path, "--json")
    assert (result.exit_code, result.stderr) == (0, "")
    written = [Path(line["figure"]) for line in json.loads(result.stdout)]
    assert written == [tmp_path / f"{kind}.png", tmp_path / f"{kind}.svg"]
    assert written[0].read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in written[1].read_bytes()


@pytest.mark.parametrize(
    ("arguments", "code", "line"),
    [
        (("maps", "--run", "{run}", "--label", "a", "--label", "b"), 1, "there are 1 --run and 2 --label; give one label for each run"),
        (("words", "--run", "{run}", "--run", "{run}"), 1, "words shows one run, and there are 2"),
        (("words", "--run", "{run}", "--word", "99"), 1, "has no word 99; its words are 0 to 7"),
        (("maps", "--run", "{run}", "--image", "none"), 1, "the data set has no image 'none'"),
        (("maps", "--run", "{tmp}"), 1, "is not a run folder"),
        (("maps",), 2, "missing option '--run'"),
        (("tables", "--run", "{run}"), 2, "'tables' is not one of"),
    ],
)
def test_mistakes_end_in_one_line(tiny_run, tmp_path, arguments, code, line):
    result = vwl("figures", *(argument.format(run=tiny_run.folder, tmp=tmp_path) for argument in arguments))
    assert result.exit_code == code
    assert result.stderr.count("\n") == 1
    assert line in result.stderr
