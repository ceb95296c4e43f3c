"""Prepares a command line to run on a cluster: parses it, resolves its recipe and makes its paths absolute.

A recipe file is on the submitter's disk, so its text is sent along. Other paths are the cluster's; relative ones start at the submitter's
working folder, as they would without `vwl submit`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from vwl.errors import VwlError

NOT_SUBMITTED = ("submit", "jobs", "deploy")
"""Commands that run only on the user's machine."""
PATHS = frozenset("run data index out root sbd labels images masks classes folder storage from_run start_from".split())  # noqa: SIM905
"""Parameters of commands that hold a path."""


@dataclass
class Forwarded:
    """A command that can run in another folder.

    Attributes:
        command: arguments of `vwl`.
        files: text files by name that its working folder must contain.
        moved: relative paths and their absolute forms.
    """

    command: list[str]
    files: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)


def forwarded(arguments: Sequence[str]) -> Forwarded:
    """Check a command line and make it independent of the working folder.

    Raises:
        VwlError: it is not a command that can be submitted, or its recipe is wrong.
        typer exceptions: the arguments are not a command line of `vwl`.
    """
    from vwl.config.files import load_recipe, to_yaml

    command = list(arguments[1:] if arguments[:1] == ["vwl"] else arguments)
    if not command or command[0] in NOT_SUBMITTED:
        raise VwlError(f"vwl submit cannot submit '{' '.join(command)}'; submit e.g.: vwl submit -- run --run /shared/runs/voc")
    params, options = _parsed(command)
    result = Forwarded(command)
    recipe, overrides = params.get("recipe"), params.get("override") or ()
    if recipe:
        load_recipe(recipe, overrides)
    for name, value in params.items():
        for text in value if isinstance(value, list | tuple) else [value]:
            if not isinstance(text, str | Path):
                continue
            old = str(text)
            if _is_file_to_send(old):
                new = f"submitted-{Path(old).name}"
                result.files[new] = to_yaml(load_recipe(old)) if name == "recipe" else Path(old).read_text(encoding="utf-8")
            elif name in PATHS and "://" not in old and not Path(old).is_absolute():
                new = str(Path.cwd() / old)
                result.moved[old] = new
            elif name == "override" and (new := _absolute_value(old)) != old:
                result.moved[old.partition("=")[2]] = new.partition("=")[2]
            else:
                continue
            result.command = _replaced(result.command, options[name], old, new)
    return result


def _parsed(arguments: list[str]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return a command's parameters, and the options by which each is given (none for arguments)."""
    from vwl.cli.main import app

    command: Any = typer.main.get_command(app)
    ctx = typer.Context(command, info_name="vwl")
    rest = arguments
    while hasattr(command, "resolve_command"):
        if not rest:
            raise VwlError(f"vwl {' '.join(arguments)} is not a complete command; see vwl {' '.join(arguments)} --help")
        name, command, rest = command.resolve_command(ctx, rest)
        ctx = typer.Context(command, parent=ctx, info_name=name)
    made = command.make_context(ctx.info_name, rest, parent=ctx.parent)
    options = {param.name: list(param.opts) if param.param_type_name == "option" else [] for param in command.params}
    # parameters that are not given keep their defaults
    given = {name: value for name, value in made.params.items() if made.get_parameter_source(name).name == "COMMANDLINE"}
    return given, options


def _is_file_to_send(text: str) -> bool:
    path = Path(text)
    return path.suffix in {".yaml", ".yml"} and path.is_file()


def _absolute_value(override: str) -> str:
    """Make the value of KEY=VALUE absolute if it names a file here (weights)."""
    key, equals, value = override.partition("=")
    path = Path(value)
    return f"{key}{equals}{Path.cwd() / path}" if value and not path.is_absolute() and path.is_file() else override


def _replaced(arguments: list[str], options: list[str], old: str, new: str) -> list[str]:
    """Return the arguments with a parameter's value replaced: after its option, joined to it by =, or as a positional argument."""
    replaced = []
    for position, argument in enumerate(arguments):
        before = arguments[position - 1] if position else ""
        if argument == old and (before in options if options else not before.startswith("-")):
            replaced.append(new)
        elif argument in {f"{option}={old}" for option in options}:
            replaced.append(argument.replace(f"={old}", f"={new}", 1))
        else:
            replaced.append(argument)
    return replaced
