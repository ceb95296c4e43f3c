"""Patience with storage beyond this machine: what fails because server or network is away is tried again, up to a bound.

pyarrow's own retries end after 6 seconds where connections are refused and after 100 where nothing answers; a server that is started
anew takes longer. What will not pass (no permission, no such bucket, disk full) is raised at once.
"""

import errno
import re
import time
from collections.abc import Callable
from typing import TypeVar

Answer = TypeVar("Answer")
PATIENCE = 90.0
"""Seconds from the first failure to the last try: with pyarrow's own retries less than a training's collective operation waits."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_PASSING_NUMBERS = frozenset(
    {errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH}
)
_PASSING_WORDS = re.compile(
    r"AWS Error (NETWORK_CONNECTION|REQUEST_TIMEOUT|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING)"
    r"|AWS Error UNKNOWN \(HTTP status (429|5\d\d)\)"
    r"|google::cloud::Status\((UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|ABORTED)"
)
"""pyarrow's wording for S3 and Google Cloud Storage, whose errors have no number."""


def is_transient(error: BaseException) -> bool:
    """Return whether an error of a file system is one that may be gone in a while."""
    if not isinstance(error, OSError):
        return False
    return error.errno in _PASSING_NUMBERS if error.errno is not None else _PASSING_WORDS.search(str(error)) is not None


def retry(question: Callable[[], Answer], patience: float | None = None) -> Answer:
    """Return a question's answer; while it fails with an error that passes, ask again with pauses that double.

    Args:
        question: what may be asked several times.
        patience: seconds from the first failure after which the error is raised (default: `PATIENCE`).

    Raises:
        OSError: the question's own, if it does not pass or has not passed in time.
    """
    patience = PATIENCE if patience is None else patience
    first_failure, pause = None, _FIRST_PAUSE
    while True:
        began = time.monotonic()
        try:
            return question()
        except OSError as error:
            first_failure = began if first_failure is None else first_failure
            if not is_transient(error) or time.monotonic() + pause > first_failure + patience:
                raise
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)
