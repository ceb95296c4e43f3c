"""Retries for remote storage: calls that fail because a server or the network is down are repeated, up to a time limit.

pyarrow's own retries end after 6 seconds where connections are refused and after 100 where nothing answers; restarting a server takes
longer. Errors that retrying does not cure (no permission, no such bucket, disk full) are raised at once.
"""

import errno
import re
from collections.abc import Callable
from typing import TypeVar

from tenacity import Retrying, retry_if_exception, wait_exponential

Result = TypeVar("Result")
RETRY_SECONDS = 90.0
"""From the first call to the last retry: with pyarrow's own retries less than the timeout of a training's collective operations."""
_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 8.0
_TRANSIENT_NUMBERS = frozenset(
    {errno.ETIMEDOUT, errno.ECONNREFUSED, errno.ECONNRESET, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH}
)
_TRANSIENT_TEXTS = re.compile(
    r"AWS Error (NETWORK_CONNECTION|REQUEST_TIMEOUT|SLOW_DOWN|SERVICE_UNAVAILABLE|INTERNAL_FAILURE|THROTTLING)"
    r"|AWS Error UNKNOWN \(HTTP status (429|5\d\d)\)"
    r"|google::cloud::Status\((UNAVAILABLE|DEADLINE_EXCEEDED|RESOURCE_EXHAUSTED|INTERNAL|ABORTED)"
)
"""pyarrow's wording for S3 and Google Cloud Storage, whose errors have no number."""


def is_transient(error: BaseException) -> bool:
    """Return whether a file system's error may disappear when the call is repeated later."""
    if not isinstance(error, OSError):
        return False
    return error.errno in _TRANSIENT_NUMBERS if error.errno is not None else _TRANSIENT_TEXTS.search(str(error)) is not None


def retry(call: Callable[[], Result], seconds: float | None = None) -> Result:
    """Return a call's result; while it raises a transient error, repeat it after pauses that double from 0.25 to 8 seconds.

    Args:
        call: may run several times.
        seconds: no retry starts later than this after the first call (default: `RETRY_SECONDS`).

    Raises:
        OSError: the call's own, if it is not transient or the time is over.
    """
    limit = RETRY_SECONDS if seconds is None else seconds
    pause = wait_exponential(multiplier=_FIRST_PAUSE, max=_LONGEST_PAUSE)
    attempts = Retrying(
        retry=retry_if_exception(is_transient),
        wait=pause,
        stop=lambda state: (state.seconds_since_start or 0) + pause(state) > limit,
        reraise=True,
    )
    return attempts(call)
