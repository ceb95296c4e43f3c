"""The standard streams of a command: characters that a terminal lacks are escaped, and a failed write ends the command in one line."""

import errno
import io
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class _Output(io.TextIOWrapper):
    """A standard stream that remembers why it could not be written."""

    failure: OSError | None = None

    def write(self, text: str) -> int:
        try:
            return super().write(text)
        except OSError as error:
            self.failure = error
            raise

    def flush(self) -> None:
        try:
            super().flush()
        except OSError as error:
            self.failure = error
            raise


@contextmanager
def guarded_output() -> Iterator[None]:
    """Escape what stdout and stderr cannot encode, and end with exit code 1 where stdout cannot be written.

    A full disk gives one line. A pipe that its reader has closed (`vwl recipe list | head -1`) is left quietly.

    Raises:
        SystemExit: as the block, or 1 after a failed write.
    """
    with suppress(AttributeError):  # closed
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    if sys.stdout is None:
        yield
        return
    before = sys.stdout
    output = _Output(before.buffer, before.encoding, "backslashreplace", line_buffering=before.isatty())
    sys.stdout = output
    try:
        try:
            yield
        finally:
            output.flush()
    except (SystemExit, OSError):
        if output.failure is None:
            raise
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # the interpreter flushes once more at its end
        if output.failure.errno != errno.EPIPE:
            print(f"error: cannot write the output: {output.failure.strerror}", file=sys.stderr)
        raise SystemExit(1) from None


class _Shown(logging.Handler):
    """Prints the messages of the library on stderr."""

    def emit(self, record: logging.LogRecord) -> None:
        from vwl.cli.console import say  # rich takes time to import

        say(record.getMessage())


@contextmanager
def shown_log() -> Iterator[None]:
    """Show what the library logs while the block runs, through the console that also draws the progress."""
    logger, handler = logging.getLogger("vwl"), _Shown()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False  # packages that set up the root logger would print it twice
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def printable(text: str) -> str:
    """Return text on one line, with control characters escaped: those in a user's file could change the terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in " ".join(text.split()))
