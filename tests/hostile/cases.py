"""A corpus of hostile inputs: each case makes its input, runs one command in this process, and states the exit code and the line printed."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from typer.testing import CliRunner

from vwl.cli.main import app


@dataclass(frozen=True)
class Case:
    """One hostile input.

    Attributes:
        name: of the test.
        make: writes the input into an empty folder and returns the command line without `vwl`.
        code: the exit code: 0 accepted, 1 an error of the user, 2 a wrong option.
        parts: what the command's one error line (codes 1 and 2) or its whole output (code 0) contains.
    """

    name: str
    make: Callable[[Path], Sequence[str | Path]]
    code: int
    parts: tuple[str, ...]


def check(case: Case, folder: Path) -> None:
    """Run a case and compare its exit code and its line; a traceback or a second error line is a failure."""
    result = CliRunner().invoke(app, [str(argument) for argument in case.make(folder)])
    printed = f"{result.stdout}\n{result.stderr}"
    assert result.exit_code == case.code, printed
    assert "Traceback" not in printed
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    if case.code == 1:
        assert len(errors) == 1, printed
    searched = errors[0] if case.code == 1 else " ".join(printed.split())
    for part in case.parts:
        assert part in searched, printed
