"""Photographs and masks from storage elsewhere, kept on this node so that every epoch but the first reads them from its own disk.

All processes of a node share one folder below the system's temporary one. `VWL_CACHE_GIB` bounds it (10; 0: nothing is kept); what was
not used for longest goes first. A file has size and time of its origin in its name, so that a photograph that was replaced is read anew;
each process looks once at that, and then trusts its own disk.
"""

import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from contextlib import suppress
from functools import cache
from pathlib import Path

from vwl.errors import VwlError
from vwl.storage.folder import Folder

LIMIT = "VWL_CACHE_GIB"
_DEFAULT_GIB = 10.0
_FREE_SHARE = 0.1
"""Of the disk, that is left free whatever the bound."""
_LEFT_SHARE = 0.9
"""Of the bound, that stays when room is made."""
_COUNT_SHARE = 0.01
"""Of the bound, that a process adds before it counts again: others add too."""


class Cache:
    """Files below a folder, at most `limit` bytes of them (and one per cent a process)."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Use `folder`, which is made when something is kept."""
        self.folder, self.limit = folder, limit
        self._names: dict[tuple[str, str], tuple[str, int]] = {}
        self._added: int | None = None

    def read(self, origin: Folder, name: str) -> bytes:
        """Return a file's bytes: those kept here, or the origin's, which are then kept.

        Raises:
            VwlError: the origin's, where it is asked.
        """
        key = (origin.uri, name)
        if key not in self._names:
            size, when = origin.size_and_mtime(name)
            text = f"{origin.uri_of(name)}\0{size}\0{when}"
            self._names[key] = (hashlib.sha256(text.encode()).hexdigest(), size)
        kept_name, size = self._names[key]
        with suppress(OSError):
            data = (self.folder / kept_name).read_bytes() if self._is_ours() else b""
            if len(data) == size:
                os.utime(self.folder / kept_name)  # used now: goes last
                return data
        data = origin.read(name)
        if len(data) == size:
            with suppress(OSError):  # a full disk keeps nothing and stops nobody
                self._keep(kept_name, data)
        return data

    def _keep(self, name: str, data: bytes) -> None:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not self._is_ours():
            return
        if self._added is None or self._added + len(data) > self.limit * _COUNT_SHARE:
            self._make_room(len(data))
            self._added = 0
        usage = shutil.disk_usage(self.folder)
        if len(data) > self.limit or usage.free - len(data) < usage.total * _FREE_SHARE:
            return
        temporary = self.folder / f".part-{uuid.uuid4().hex}"
        try:
            temporary.write_bytes(data)
            temporary.replace(self.folder / name)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._added += len(data)

    def _is_ours(self) -> bool:
        """Return whether nobody else can have put files there: anybody may make a folder below the temporary one."""
        about = self.folder.lstat()
        return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o022

    def _make_room(self, wanted: int) -> None:
        """Delete what was not used for longest if all is over the bound."""
        files = []
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):  # another process makes room too
                about = entry.stat()
                files.append((about.st_mtime_ns, about.st_size, entry.path))
        total = sum(size for _, size, _ in files) + wanted
        if total <= self.limit:
            return
        for _, size, path in sorted(files):
            if total <= self.limit * _LEFT_SHARE:
                return
            Path(path).unlink(missing_ok=True)
            total -= size


def read_cached(origin: Folder, name: str) -> bytes:
    """Return a file's bytes, from this node's cache where the origin is not a disk of this machine.

    Raises:
        VwlError: it is not there or cannot be read; or VWL_CACHE_GIB is no number.
    """
    if origin.is_local:
        return origin.read(name)
    kept = _of_this_node(os.environ.get(LIMIT, ""), tempfile.gettempdir())
    return origin.read(name) if kept.limit <= 0 else kept.read(origin, name)


@cache
def _of_this_node(limit: str, temporary: str) -> Cache:
    try:
        gib = float(limit) if limit else _DEFAULT_GIB
    except ValueError:
        raise VwlError(f"{LIMIT}={limit} is no number of GiB") from None
    return Cache(Path(temporary, f"vwl-cache-{os.getuid()}"), int(gib * 2**30))
