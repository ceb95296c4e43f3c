"""Prepare a command line for `vwl submit`: check it with the real parser, resolve its recipe, make its paths absolute.

A recipe file is on the submitter's disk, so its text is sent with the command. Other paths are paths on the cluster; relative ones are
taken from the submitter's working folder, as without `vwl submit`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from vwl.errors import VwlError

LOCAL_COMMANDS = ("submit", "jobs", "deploy")
"""Commands that cannot be submitted: they act on the user's machine or on the jobs themselves."""
PATHS = frozenset("run data index out root sbd labels images masks classes folder storage from_run start_from html reuse".split())  # noqa: SIM905
"""Parameters of commands whose value is a path."""


@dataclass
class Forwarded:
    """A command that does not depend on the working folder.

    Attributes:
        command: arguments of `vwl`.
        files: text files that its working folder must hold, by name.
        moved: relative paths, and the absolute paths that replace them.
    """

    command: list[str]
    files: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)


def forwarded(arguments: Sequence[str]) -> Forwarded:
    """Check a command line and make it independent of the working folder.

    Args:
        arguments: the command, with or without a leading `vwl`.

    Raises:
        VwlError: the command cannot be submitted, or its recipe is wrong.
        typer exceptions: the arguments are not a command line of `vwl`.
    """
    from vwl.config.files import load_recipe, to_yaml

    command = list(arguments[1:] if arguments[:1] == ["vwl"] else arguments)
    if not command or command[0] in LOCAL_COMMANDS:
        raise VwlError(
            f"vwl submit cannot send '{' '.join(command)}'; name a command that does work, e.g. vwl submit -- run --run /shared/runs/voc"
        )
    params, options = _parsed(command)
    found = Forwarded(command)
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
                found.files[new] = to_yaml(load_recipe(old)) if name == "recipe" else Path(old).read_text(encoding="utf-8")
            elif _is_path(name, old) and "://" not in old and not Path(old).is_absolute():
                new = str(Path.cwd() / old)
                found.moved[old] = new
            elif name == "override" and (new := _absolute_value(old)) != old:
                found.moved[old.partition("=")[2]] = new.partition("=")[2]
            else:
                continue
            found.command = _replaced(found.command, options[name], old, new)
    return found


def _parsed(arguments: list[str]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return a command's parameters, and the options by which each is given (an empty list for positional arguments)."""
    from vwl.cli.main import app

    command: Any = typer.main.get_command(app)
    ctx = typer.Context(command, info_name="vwl")
    rest = arguments
    while hasattr(command, "resolve_command"):
        if not rest:
            raise VwlError(f"vwl {' '.join(arguments)} is not complete; see vwl {' '.join(arguments)} --help")
        name, command, rest = command.resolve_command(ctx, rest)
        ctx = typer.Context(command, parent=ctx, info_name=name)
    made = command.make_context(ctx.info_name, rest, parent=ctx.parent)
    options = {param.name: list(param.opts) if param.param_type_name == "option" else [] for param in command.params}
    # parameters that were not given keep the command's defaults
    given = {name: value for name, value in made.params.items() if made.get_parameter_source(name).name == "COMMANDLINE"}
    return given, options


def _is_path(parameter: str, text: str) -> bool:
    """Return whether the value of a parameter is a path; a model may also be OWNER/NAME of the Hugging Face Hub."""
    return parameter in PATHS or (parameter == "model" and text.endswith(".safetensors"))


def _is_file_to_send(text: str) -> bool:
    path = Path(text)
    return path.suffix in {".yaml", ".yml"} and path.is_file()


def _absolute_value(override: str) -> str:
    """Return KEY=VALUE with an absolute path if the value is a file on this machine, such as weights."""
    key, equals, value = override.partition("=")
    path = Path(value)
    return f"{key}{equals}{Path.cwd() / path}" if value and not path.is_absolute() and path.is_file() else override


def _replaced(arguments: list[str], options: list[str], old: str, new: str) -> list[str]:
    """Return the arguments with a parameter's value replaced: after its option, joined to it by `=`, or positional."""
    found = []
    for number, argument in enumerate(arguments):
        before = arguments[number - 1] if number else ""
        if argument == old and (before in options if options else not before.startswith("-")):
            found.append(new)
        elif argument in {f"{option}={old}" for option in options}:
            found.append(argument.replace(f"={old}", f"={new}", 1))
        else:
            found.append(argument)
    return found
