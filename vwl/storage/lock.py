"""File locks: one command at a time works on a stage or search. The kernel releases a lock when its process ends, even if killed."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vwl.errors import VwlError
from vwl.storage.folder import Folder, storage_error

_SECONDS = 0.3
"""Time to wait for a lock, longer than `is_locked` holds it."""
_WITHOUT_LOCKS = {errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK}


@contextmanager
def exclusive_lock(folder: Folder, work: str) -> Iterator[None]:
    """Hold the lock `.<work>.lock` in a folder while the block runs.

    On object stores and file systems without locks nothing is locked.

    Args:
        folder: a run folder or a search folder.
        work: name of the stage, or `search`.

    Raises:
        VwlError: another process holds the lock, or the folder cannot be written.
    """
    if not folder.is_local:
        yield
        return
    path = _path(folder, work)
    lock = FileLock(path, timeout=_SECONDS, fallback_to_soft=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise VwlError(f"another vwl command is running {work} in {folder}; wait until it ends, or use another --run folder") from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise storage_error(f"cannot write {path}", error) from None
    try:
        yield
    finally:
        lock.release()


def is_locked(folder: Folder, work: str) -> bool | None:
    """Return whether a process holds the lock; none where nothing can be locked (object stores, some file systems).

    Raises:
        VwlError: the lock file cannot be read.
    """
    if not folder.is_local:
        return None
    path = _path(folder, work)
    try:
        with path.open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except BlockingIOError:
        return True
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise storage_error(f"cannot read {path}", error) from None
        return None
    return False


def _path(folder: Folder, work: str) -> Path:
    return Path(folder.path) / f".{work}.lock"
