"""A folder's work is one command's at a time; the kernel ends the hold with its process, so that nothing stale is left."""

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
    """Hold a folder's `work` (a stage, the search) for this process.

    Object stores and file systems without locks cannot tell: there nothing is held.

    Raises:
        VwlError: another process holds it, or the folder cannot be written.
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
        raise VwlError(f"another vwl works on {work} in {folder}; wait for its end, or use another --run folder") from None
    except OSError as error:
        if error.errno not in _WITHOUT_LOCKS:
            raise storage_error(f"cannot write {path}", error) from None
    try:
        yield
    finally:
        lock.release()
