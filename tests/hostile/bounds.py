"""The bounds of a command on any input: it works, or ends in one line with exit code 1 or 2, soon, in little memory, leaving nothing."""

import contextlib
import resource
import signal
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from typer.testing import CliRunner

from vwl.cli.main import app

SECONDS = 10
"""The most processor time of a command; the clock also runs for what else the machine does."""
WAITING = 60
"""Seconds after which a command counts as hanging."""
KIB = 2**20
"""The most that a command may add to the process's memory: 1 GiB, in the units of `ru_maxrss`."""


def check_bounds(words: Sequence[str], folder: Path, messages: bool = False) -> int:
    """Run a command in this process and return its exit code; what breaks a bound fails, and so does an exception that is no exit.

    With `messages`, the command may say more on stderr than its error.
    """
    before = sorted(folder.rglob("*"))
    with bounded():
        result = CliRunner().invoke(app, list(words))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code in {0, 1, 2}
    assert "Traceback" not in result.output
    if result.exit_code and not messages:
        assert [line for line in result.stderr.splitlines() if line.startswith("error: ")] == result.stderr.splitlines()[-1:]
        assert result.stderr.count("\n") == 1, result.stderr
        assert len(result.stderr) < 10_000
    assert sorted(folder.rglob("*")) == before
    return result.exit_code


@contextlib.contextmanager
def bounded() -> Iterator[None]:
    """Fail if the block computes for too long, hangs, or takes too much memory."""

    def ring(*_: object) -> None:
        raise TimeoutError(f"not done after {WAITING} s")

    memory, start, handler = _memory(), time.process_time(), signal.signal(signal.SIGALRM, ring)
    signal.alarm(WAITING)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, handler)
    assert time.process_time() - start < SECONDS
    assert _memory() - memory < KIB


def _memory() -> int:
    """Return the most memory that this process has had, KiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
