"""A cache of remote images and masks on the node's disk, so that only the first epoch reads them over the network, and of mapped indexes.

All processes of a node share one folder below the system's temporary folder. `VWL_CACHE_GIB` limits its size (default 10; 0 disables the
cache); the least recently used files are deleted first. A cached file's name is a hash of the URI, size and modification
time of its origin, so a changed image is read again. Each process looks these up once per file.
"""

import fcntl
import hashlib
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path

from vwl.errors import VwlError
from vwl.storage.folder import Folder

LIMIT = "VWL_CACHE_GIB"
_DEFAULT_GIB = 10.0
_FREE_SHARE = 0.1
"""Part of the disk that is always left free."""
_LEFT_SHARE = 0.9
"""Deleting files brings the cache down to this part of the limit."""
_COUNT_SHARE = 0.01
"""A process measures the folder again after it has added this part of the limit, because other processes add files too."""


class Cache:
    """A folder of cached files, of at most `limit` bytes (each process may exceed it by 1 %)."""

    def __init__(self, folder: Path, limit: int) -> None:
        """Use `folder`, which is created when the first file is cached."""
        self.folder, self.limit = folder, limit
        self._names: dict[tuple[str, str], tuple[str, int]] = {}
        self._added: int | None = None

    def read(self, origin: Folder, name: str) -> bytes:
        """Return a file's bytes from the cache, or from its origin, and cache them.

        Raises:
            VwlError: the origin cannot be read.
        """
        key = (origin.uri, name)
        if key not in self._names:
            size, modified = origin.size_and_mtime(name)
            text = f"{origin.uri_of(name)}\0{size}\0{modified}"
            self._names[key] = (hashlib.sha256(text.encode()).hexdigest(), size)
        cached_name, size = self._names[key]
        with suppress(OSError):
            data = (self.folder / cached_name).read_bytes() if self._is_ours() else b""
            if len(data) == size:
                os.utime(self.folder / cached_name)  # least recently used files are deleted first
                return data
        data = origin.read(name)
        if len(data) == size:
            with suppress(OSError):  # a full disk only means that nothing is cached
                self._add(cached_name, data)
        return data

    def make(self, names: Sequence[str], write: Callable[[Sequence[Path], Callable[[], None]], None]) -> list[Path] | None:
        """Return files of the cache that processes share, made once by whoever comes first; None where there is no room for them.

        Args:
            names: of the files, whose content follows from them.
            write: writes files at the paths that it is given, and calls its second argument often: that ends it with an OSError where the
                disk gets full.

        Raises:
            whatever `write` raises but an OSError.
        """
        try:
            if self.limit <= 0:
                return None
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            if not self._is_ours():
                return None
            paths = [self.folder / name for name in names]
            with self._only_one(f".lock-{names[0]}"):
                if not all(path.is_file() for path in paths):
                    self._make(paths, write)
            for path in paths:
                os.utime(path)
        except OSError:
            return None
        return paths

    def _make(self, paths: Sequence[Path], write: Callable[[Sequence[Path], Callable[[], None]], None]) -> None:
        temporary = [self.folder / f".part-{uuid.uuid4().hex}" for _ in paths]

        def check_room() -> None:
            usage, size = shutil.disk_usage(self.folder), sum(path.stat().st_size for path in temporary if path.exists())
            if size > self.limit or usage.free < usage.total * _FREE_SHARE:
                raise OSError("no room in the cache")

        try:
            write(temporary, check_room)
            check_room()
            for part in temporary:
                with part.open("rb") as file:
                    os.fsync(file.fileno())  # a crash of the machine must not leave a whole name with half a content
            self._make_room(0)
            for part, path in zip(temporary, paths, strict=True):
                part.replace(path)
        finally:
            for part in temporary:
                part.unlink(missing_ok=True)

    @contextmanager
    def _only_one(self, name: str) -> Iterator[None]:
        """Wait until no other process is in a block of this name; the kernel ends the wait when that process ends."""
        with (self.folder / name).open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _add(self, name: str, data: bytes) -> None:
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
        """Return whether the folder is this user's and nobody else can write to it: any user may create it in the temporary folder."""
        info = self.folder.lstat()
        return stat.S_ISDIR(info.st_mode) and info.st_uid == os.getuid() and not info.st_mode & 0o022

    def _make_room(self, num_bytes: int) -> None:
        """Delete the least recently used files if `num_bytes` more would exceed the limit."""
        files = []
        for entry in os.scandir(self.folder):
            with suppress(FileNotFoundError):  # another process deletes files too
                info = entry.stat()
                files.append((info.st_mtime_ns, info.st_size, entry.path))
        total = sum(size for _, size, _ in files) + num_bytes
        if total <= self.limit:
            return
        for _, size, path in sorted(files):
            if total <= self.limit * _LEFT_SHARE:
                return
            Path(path).unlink(missing_ok=True)
            total -= size


def read_cached(origin: Folder, name: str) -> bytes:
    """Return a file's bytes, through this node's cache if the origin is not local.

    Raises:
        VwlError: it does not exist or cannot be read, or VWL_CACHE_GIB is not a number.
    """
    if origin.is_local:
        return origin.read(name)
    node_cache = cache_of_this_node()
    return origin.read(name) if node_cache.limit <= 0 else node_cache.read(origin, name)


def cache_of_this_node() -> Cache:
    """Return the cache that all processes of this node share.

    Raises:
        VwlError: VWL_CACHE_GIB is not a number.
    """
    return _of_this_node(os.environ.get(LIMIT, ""), tempfile.gettempdir())


@cache
def _of_this_node(limit: str, temporary: str) -> Cache:
    try:
        gib = float(limit) if limit else _DEFAULT_GIB
    except ValueError:
        raise VwlError(f"{LIMIT}={limit} is not a number of GiB; set it to a number such as 10, or to 0 for no cache") from None
    return Cache(Path(temporary, f"vwl-cache-{os.getuid()}"), int(gib * 2**30))
