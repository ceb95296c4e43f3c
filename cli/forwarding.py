"""A command line that is to run elsewhere: parsed by the real one, its recipe resolved, its paths made absolute.

A recipe file lies on the submitter's disk, so its text goes along. Other paths are those of the cluster; relative ones are taken from the
submitter's working folder, as they would be without `vwl submit`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import typer

from vwl.errors import VwlError

NOT_ELSEWHERE = ("submit", "jobs", "deploy")
"""Commands that make sense only where the user is."""
PATHS = frozenset("run data index out root sbd labels images masks classes folder storage from_run start_from".split())  # noqa: SIM905
"""Parameters of commands that hold a path."""


@dataclass
class Forwarded:
    """A command that can run in another folder.

    Attributes:
        command: arguments of `vwl`.
        files: texts by name, which must lie in its working folder.
        moved: relative paths and what they became.
    """

    command: list[str]
    files: dict[str, str] = field(default_factory=dict)
    moved: dict[str, str] = field(default_factory=dict)


def forwarded(words: Sequence[str]) -> Forwarded:
    """Check a command line and make it independent of the working folder.

    Raises:
        VwlError: it is none that can run elsewhere, or its recipe is wrong.
        typer exceptions: the words are not a command line of `vwl`.
    """
    from vwl.config.files import load_recipe, to_yaml

    words = list(words[1:] if words[:1] == ["vwl"] else words)
    if not words or words[0] in NOT_ELSEWHERE:
        raise VwlError(f"vwl submit takes a command that works, e.g. vwl submit -- run --run /shared/runs/voc; not '{' '.join(words)}'")
    params, options = _parsed(words)
    found = Forwarded(words)
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
            elif name in PATHS and "://" not in old and not Path(old).is_absolute():
                new = str(Path.cwd() / old)
                found.moved[old] = new
            elif name == "override" and (new := _absolute_value(old)) != old:
                found.moved[old.partition("=")[2]] = new.partition("=")[2]
            else:
                continue
            found.command = _replaced(found.command, options[name], old, new)
    return found


def _parsed(words: list[str]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Return a command's parameters, and the options by which each is given (none for arguments)."""
    from vwl.cli.main import app

    command: Any = typer.main.get_command(app)
    ctx = typer.Context(command, info_name="vwl")
    rest = words
    while hasattr(command, "resolve_command"):
        if not rest:
            raise VwlError(f"vwl {' '.join(words)} is no whole command; see vwl {' '.join(words)} --help")
        name, command, rest = command.resolve_command(ctx, rest)
        ctx = typer.Context(command, parent=ctx, info_name=name)
    made = command.make_context(ctx.info_name, rest, parent=ctx.parent)
    options = {param.name: list(param.opts) if param.param_type_name == "option" else [] for param in command.params}
    # what was not given keeps its default, which is the command's own affair
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


def _replaced(words: list[str], options: list[str], old: str, new: str) -> list[str]:
    """Return the words with a parameter's value replaced, wherever it stands: after its option, joined to it, or as an argument."""
    found = []
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        if word == old and (before in options if options else not before.startswith("-")):
            found.append(new)
        elif word in {f"{option}={old}" for option in options}:
            found.append(word.replace(f"={old}", f"={new}", 1))
        else:
            found.append(word)
    return found
