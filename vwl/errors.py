"""The one exception for users' mistakes: the command line prints it as a single line and exits non-zero.

Everything else that is raised is a bug of ours and keeps its traceback.
"""

import difflib
from collections.abc import Iterable


class VwlError(Exception):
    """A mistake in what the user gave: the message names the file or key and the way out."""


class Unreachable(VwlError):
    """Storage that does not answer any more: not the fault of the one file that was asked for."""


class Interrupted(Exception):
    """Work was stopped on request (Ctrl-C, SIGTERM) after it was saved; starting the same command again goes on."""


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name nearest to `word`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.5)
    return f"; did you mean '{near[0]}'?" if near else ""
