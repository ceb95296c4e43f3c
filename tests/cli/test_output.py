"""Output that cannot be written or encoded ends in one line, never in a traceback."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

VWL = [sys.executable, "-m", "vwl.cli.main"]
COMMANDS = (["recipe", "list"], ["recipe", "list", "--json"], ["recipe", "show", "demo"], ["--help"], ["recipe", "keys"])


def vwl(*arguments: str, encoding: str = "utf-8", **options) -> subprocess.CompletedProcess[bytes]:
    code = f"import os, sys; os.environ['PYTHONIOENCODING'] = {encoding!r}; os.execv(sys.executable, {[*VWL, *arguments]!r})"
    return subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False, **options)


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_full_disk_gives_one_line(arguments):
    with Path("/dev/full").open("w") as full:
        done = vwl(*arguments, stdout=full)
    assert done.returncode == 1
    assert done.stderr.decode() == "error: cannot write the output: No space left on device\n"


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_a_closed_pipe_ends_the_command_quietly(arguments):
    code = f"import os, sys; r, w = os.pipe(); os.close(r); os.dup2(w, 1); os.execv(sys.executable, {[*VWL, *arguments]!r})"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (1, b"")


def test_without_standard_output_a_command_works():
    code = f"import os, sys; os.close(1); os.execv(sys.executable, {[*VWL, 'recipe', 'list']!r})"
    done = subprocess.run([sys.executable, "-c", code], stderr=subprocess.PIPE, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


@pytest.mark.parametrize("arguments", [["recipe", "show", "demo", "-o", "name=größe·✓"], ["recipe", "list"], ["--help"]], ids=" ".join)
def test_an_ascii_terminal_shows_other_characters_escaped(arguments):
    done = vwl(*arguments, encoding="ascii", stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (0, b"")
    done.stdout.decode("ascii")


def test_json_on_an_ascii_terminal_is_json(tmp_path):
    done = vwl("recipe", "show", "demo", "-o", "name=größe", "--json", encoding="ascii", stdout=subprocess.PIPE)
    assert json.loads(done.stdout)["name"] == "größe"


def test_an_error_with_other_characters_is_one_line_on_an_ascii_terminal():
    done = vwl("recipe", "show", "größe\x1b[31m.yaml", encoding="ascii", stdout=subprocess.PIPE)
    assert done.returncode == 1
    assert done.stderr == b"error: recipe file gr\\xf6\\xdfe\\x1b[31m.yaml does not exist\n"


def test_a_name_that_is_not_utf_8_is_printed():
    done = vwl("recipe", "show", "a\udcff.yaml", stdout=subprocess.PIPE)
    assert (done.returncode, done.stderr) == (1, b"error: recipe file a\\udcff.yaml does not exist\n")


ODD_METADATA = """
import warnings
from vwl.cli import main
main.app = lambda **_: warnings.warn_explicit("odd", UserWarning, "x", 1, module="PIL.TiffImagePlugin")
main.main()
"""


def test_remarks_on_odd_metadata_of_images_are_not_printed():
    done = subprocess.run([sys.executable, "-c", ODD_METADATA], capture_output=True, text=True, check=True)
    assert done.stderr == ""
