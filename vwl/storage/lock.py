"""File locks: one command at a time works on a stage or search. The kernel releases a lock when its process ends, even if killed."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from vwl.errors import VwlError
from vwl.storage.folder import Folder, storage_error

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
    path = Path(folder.path) / f".{work}.lock"
    lock = FileLock(path, timeout=0, fallback_to_soft=False)
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
