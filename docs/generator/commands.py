"""The reference of the command line, from the commands themselves."""

import re
from collections.abc import Iterator
from typing import Any

import typer

from vwl.cli.main import COMMANDS, app


def reference() -> str:
    """Return all commands: a table of them, then each with its help, examples, arguments and options."""
    group = typer.main.get_command(app)
    context = typer.Context(group, info_name="vwl")
    lines = [
        "| command | does |",
        "|---|---|",
        *(f"| [`vwl {name}`](#vwl-{name}) | {_cell(command.summary)} |" for name, command in COMMANDS.items()),
        "",
    ]
    for name in COMMANDS:
        _, command, _ = group.resolve_command(context, [name])  # type: ignore[attr-defined]
        lines += _section(f"vwl {name}", command, typer.Context(command, parent=context, info_name=name), level=2)
    return "\n".join(lines)


def _section(path: str, command: Any, context: Any, level: int) -> Iterator[str]:
    yield from (f"{'#' * level} {path} {{ #{path.replace(' ', '-')} }}", "")
    yield from (*_help(command.help or ""), "")
    inner = getattr(command, "commands", {})
    parameters = [row for parameter in command.params if (row := _parameter(parameter, context)) is not None]
    if parameters and not inner:
        yield from ("| option | meaning |", "|---|---|", *parameters, "")
    for name, subcommand in inner.items():
        yield from _section(f"{path} {name}", subcommand, typer.Context(subcommand, parent=context, info_name=name), min(level + 1, 4))


def _help(text: str) -> Iterator[str]:
    """Yield a help text; its examples become a code block."""
    prose, _, examples = text.replace("\b", "").partition("Examples:")
    for paragraph in re.split(r"\n\s*\n", prose.strip()):
        yield from (_escaped(" ".join(paragraph.split())), "")
    if examples.strip():
        yield from ("```bash", *(line.strip() for line in examples.strip().splitlines()), "```")


def _parameter(parameter: Any, context: Any) -> str | None:
    """Return the row of an option or argument; none if it is hidden or `--help`."""
    record = parameter.get_help_record(context)
    if record is None or "--help" in parameter.opts:
        return None
    names, about = record
    if parameter.required and "[required]" not in about:
        about = f"{about} [required]"
    return f"| `{names.strip().replace('|', chr(92) + '|')}` | {_cell(about)} |"


def _cell(text: str) -> str:
    return _escaped(" ".join(text.split())).replace("|", "\\|")


def _escaped(text: str) -> str:
    """Return text whose angle brackets and stars are not read as HTML or Markdown, outside inline code."""
    parts = text.split("`")
    parts[::2] = [re.sub(r"([*_\[])", r"\\\1", part).replace("<", "&lt;") for part in parts[::2]]
    return "`".join(parts)
