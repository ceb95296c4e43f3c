"""The command line: it starts at once, its examples are right, and errors end as promised."""

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from vwl.cli.main import COMMANDS, Command, app
from vwl.errors import VwlError

COMMANDS_THAT_FAIL = """
import typer
from vwl.errors import Interrupted, VwlError

def mistake():
    raise VwlError("the file x is wrong;\\n  write it again")

def bug():
    raise ZeroDivisionError("of ours")

def stop():
    raise Interrupted("stopped at step 7")

def ctrl_c():
    raise KeyboardInterrupt

def ctrl_c_in_c():  # as an extension module fails whose C code has not seen that the key was pressed
    try:
        raise KeyboardInterrupt
    except KeyboardInterrupt as pressed:
        raise SystemError("<function unpickle> returned a result with an exception set") from pressed

def bug_in_c():
    raise SystemError("bad argument to internal function")

def greet(name: str):
    typer.echo(f"hello {name}")
"""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Run a command line; beside the real commands there are those above."""
    (tmp_path / "commands_that_fail.py").write_text(COMMANDS_THAT_FAIL)
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("mistake", "bug", "stop", "ctrl_c", "ctrl_c_in_c", "bug_in_c", "greet"):
        monkeypatch.setitem(COMMANDS, name, Command("commands_that_fail", name, "For this test."))
    monkeypatch.delitem(sys.modules, "commands_that_fail", raising=False)
    return lambda *args: CliRunner().invoke(app, args)


def leaves(command: Any, ctx: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command that does something, with its words."""
    if not hasattr(command, "list_commands"):
        yield path, command
        return
    for name in command.list_commands(ctx):
        _, below, _ = command.resolve_command(ctx, [name])
        yield from leaves(below, typer.Context(below, parent=ctx, info_name=name), (*path, name))


def all_commands() -> dict[str, Any]:
    root = typer.main.get_command(app)
    return {" ".join(path): command for path, command in leaves(root, typer.Context(root, info_name="vwl"))}


def examples(help_text: str) -> list[str]:
    return [line.strip() for line in help_text.partition("Examples:")[2].splitlines() if line.strip()]


def test_a_mistake_is_one_line_and_exit_code_1(run):
    result = run("mistake")
    assert result.exit_code == 1
    assert result.stderr == "error: the file x is wrong; write it again\n"
    assert result.stdout == ""


def test_debug_shows_the_traceback_of_a_mistake(run):
    result = run("--debug", "mistake")
    assert isinstance(result.exception, VwlError)
    assert result.exit_code == 1


def test_a_bug_keeps_its_traceback(run):
    assert isinstance(run("bug").exception, ZeroDivisionError)
    assert isinstance(run("bug_in_c").exception, SystemError)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("stop", "stopped at step 7; finished work is saved; run the same command to resume"),
        ("ctrl_c", "stopped"),
        ("ctrl_c_in_c", "stopped"),
    ],
)
def test_an_interrupt_says_whether_work_is_saved_and_exits_with_130(run, command, message):
    result = run(command)
    assert (result.exit_code, result.stderr) == (130, f"{message}\n")


def test_a_function_is_a_command(run):
    assert run("greet", "you").stdout == "hello you\n"


def test_the_error_for_an_unknown_command_names_the_nearest(run):
    result = run("rcipe")
    assert result.exit_code == 2
    assert "'recipe'" in result.stderr


def test_a_wrong_option_is_one_line_and_exit_code_2(run):
    result = run("greet", "you", "--loudly")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: no such option: --loudly")
    assert result.stderr.endswith("; see vwl greet --help\n")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("command", ["status", "evaluate", "voc-submission", "train irnet", "infer cam", "tune table", "tune best"])
def test_a_run_that_is_named_without_its_option_is_refused_with_the_right_line(run, command):
    result = run(*command.split(), "runs/voc", "--json")
    assert result.exit_code == 2
    assert f"name the run with --run: vwl {command} --run runs/voc --json" in result.stderr


def test_a_command_without_its_sub_command_shows_its_help(run):
    assert "recipe [OPTIONS] COMMAND" in run("recipe").output


@pytest.mark.parametrize("name", all_commands())
def test_no_help_text_is_cut_at_80_columns(run, name, monkeypatch):
    monkeypatch.setattr("typer.rich_utils.MAX_WIDTH", 80)
    shown = run(*name.split(), "--help").stdout
    assert "…" not in shown
    if not name.startswith("data prepare"):  # their paths are long
        assert [line for line in examples(all_commands()[name].help) if f"   {line}\n" not in re.sub(" +\n", "\n", shown)] == []


@pytest.mark.parametrize("name", [name for name in all_commands() if name.split()[0] not in {"data", "evaluate"}])
def test_every_option_shows_its_choices_or_what_it_takes(run, name):
    assert re.findall(r" --\w.*<(?:str|int|float|path|list)\b.*?>", run(*name.split(), "--help").stdout) == []


def test_the_version_is_that_of_the_package(run):
    assert run("--version").stdout == f"vwl {metadata.version('vwl')}\n"


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_lists_every_command_with_its_line(run, flag):
    text = run(flag).stdout
    for name in COMMANDS:
        assert re.search(rf"^│ {name} ", text, re.MULTILINE)


@pytest.mark.parametrize("name", all_commands())
def test_no_help_text_holds_square_brackets_which_would_be_taken_for_markup_and_vanish(name):
    command = all_commands()[name]
    assert [text for text in (command.help, *(param.help for param in command.params)) if text and "[" in text] == []


@pytest.mark.parametrize("name", all_commands())
def test_the_help_of_a_command_has_two_examples_that_can_be_typed(name):
    lines = examples(all_commands()[name].help)
    assert len(lines) >= 2
    for line in lines:
        words = shlex.split(line)
        assert words[: 1 + len(name.split())] == ["vwl", *name.split()]
        all_commands()[name].make_context(name, words[1 + len(name.split()) :])  # refuses what it does not know


@pytest.mark.parametrize(
    ("args", "heavy"), [("--help", "numpy pyarrow pydantic yaml"), ("recipe list", "pyarrow"), ("data --help", "pyarrow")]
)
def test_what_needs_no_model_does_not_wait_for_one(args, heavy):
    code = (
        "import sys\nfrom vwl.cli.main import app\n"
        f"try: app({args.split()!r})\n"
        "except SystemExit: pass\n"
        "print('loaded:', *sys.modules, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    loaded = set(done.stderr.rpartition("loaded:")[2].split())
    assert "vwl.cli.main" in loaded
    assert loaded & {"torch", "ray", "torchvision", "timm", *heavy.split()} == set()
