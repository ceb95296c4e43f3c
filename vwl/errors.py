"""Exceptions. The command line prints a `VwlError` as one line and exits with 1; any other exception is a bug and keeps its traceback."""

import difflib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

_LONGEST = 100
"""Characters of a user's text that a message repeats."""


class VwlError(Exception):
    """A user's mistake. The message names the file or key and says what to do."""


class Unreachable(VwlError):
    """The storage cannot be reached; reading other files from it would fail as well."""


class Damaged(VwlError):
    """A file that vwl has written is damaged. Work that does not read it can go on."""


class Interrupted(Exception):
    """Work was stopped on request (Ctrl-C, SIGTERM) and saved; the same command resumes it."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word[:_LONGEST], list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""


@contextmanager
def interrupts_in_c() -> Iterator[None]:
    """Turn a SystemError that C code (e.g. numba's) raises on Ctrl-C back into the interrupt."""
    try:
        yield
    except SystemError as error:
        cause: BaseException | None = error
        while cause is not None:
            if isinstance(cause, KeyboardInterrupt):
                raise cause from None
            cause = cause.__cause__ or cause.__context__
        raise


def shortened(text: str) -> str:
    """Return a user's text for a message, with the middle left out where it is long."""
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]}...{text[-_LONGEST // 4 :]}"
