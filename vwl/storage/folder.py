"""Folders on any pyarrow file system; vwl reads and writes all its files through them.

A file is written under a temporary name and then renamed, so a reader sees a whole file or none. Paths may be local or URIs
(``s3://bucket/run``). Names, which may come from data files, cannot lead out of their folder.
"""

import json
import os
import re
import stat
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from vwl.errors import Unreachable, VwlError
from vwl.storage.retry import Result, is_transient, retry


class Folder:
    """A folder on a pyarrow file system; picklable, so that it can be sent to workers.

    While a server or the network is down, methods retry (`vwl.storage.retry`) and then raise `Unreachable`.
    """

    def __init__(self, uri: str | Path) -> None:
        """Open `uri`, a local path (made absolute) or a URI; nothing is created.

        Options of S3 follow a question mark: ``s3://bucket/run?endpoint_override=minio.example:9000&scheme=http``.
        """
        text = str(uri)
        if "://" in text:
            self.uri = text.rstrip("/")
        else:
            try:
                self.uri = str(Path(text).expanduser().absolute())
            except RuntimeError as error:  # ~name of a user who does not exist
                raise storage_error(f"cannot open {text}", error) from None
        self._connect()

    def _connect(self) -> None:
        try:
            filesystem, path = retry(lambda: fs.FileSystem.from_uri(self.uri)) if "://" in self.uri else (fs.LocalFileSystem(), self.uri)
        except (pa.ArrowInvalid, OSError) as error:
            raise storage_error(f"cannot open {self.uri}", error) from None
        self.filesystem: fs.FileSystem = filesystem
        self.path: str = path

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.uri = state["uri"]
        self._connect()

    def __truediv__(self, name: str) -> "Folder":
        if "://" not in self.uri:
            return Folder(Path(self.uri, _inside(name)))
        child = Folder.__new__(Folder)  # shares the connection
        child.uri, child.filesystem, child.path = self.uri_of(name), self.filesystem, self._full(name)
        return child

    def __str__(self) -> str:
        return self.uri

    @property
    def is_local(self) -> bool:
        """Whether the folder is on a local or mounted disk."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def uri_of(self, name: str) -> str:
        """Return the path or URI of a file in this folder."""
        base, question, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        return f"{base}/{quote(_inside(name)) if '://' in self.uri else _inside(name)}{question}{query}"

    def _full(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{_inside(name)}"

    def exists(self, name: str = "") -> bool:
        """Return whether the folder, or the file `name` in it, exists."""
        return self._info(name).type != fs.FileType.NotFound

    def size_and_mtime(self, name: str) -> tuple[int, int]:
        """Return a file's size (bytes) and modification time (nanoseconds since 1970).

        Raises:
            VwlError: it does not exist.
        """
        info = self._info(name)
        if info.type == fs.FileType.NotFound:
            raise VwlError(f"cannot read {self.uri_of(name)}: No such file or directory")
        return int(info.size or 0), int(info.mtime_ns or 0)

    def _info(self, name: str) -> fs.FileInfo:
        path = self._full(name) if name else self.path
        return self._call(f"find {self.uri_of(name) if name else self.uri}", lambda: self.filesystem.get_file_info(path))

    def names(self, suffix: str = "") -> list[str]:
        """Return the sorted names of the complete files directly in this folder that end in `suffix`; none if the folder does not exist.

        Raises:
            VwlError: it cannot be listed (no permission, a file, or a name in it that is not UTF-8).
        """
        return sorted(name for name in self.sizes_and_mtimes() if name.endswith(suffix))

    def each_name(self, suffix: str = "") -> Iterator[str]:
        """Yield the names of `names` in any order; of a local folder, without ever holding all of them.

        Raises:
            VwlError: as `names`.
        """
        if not self.is_local or not self.exists():
            yield from self.names(suffix)
            return
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if entry.name.endswith(suffix) and not entry.name.startswith(".part-") and entry.is_file():
                        yield entry.name
        except OSError as error:
            raise storage_error(f"cannot list {self.uri}", error) from None

    def sizes_and_mtimes(self) -> dict[str, tuple[int, int]]:
        """Return size (bytes) and modification time (nanoseconds since 1970) by name, as `names` lists files; one request for all.

        Raises:
            VwlError: as `names`.
        """

        def files() -> dict[str, tuple[int, int]]:
            infos = self.filesystem.get_file_info(selector)
            return {info.base_name: (int(info.size or 0), int(info.mtime_ns or 0)) for info in infos if info.is_file}

        selector = fs.FileSelector(self.path, allow_not_found=True)
        return {name: found for name, found in self._call(f"list {self.uri}", files).items() if not name.startswith(".part-")}

    def sizes_and_mtimes_of(self, names: Sequence[str]) -> dict[str, tuple[int, int]]:
        """Return size (bytes) and modification time (nanoseconds since 1970) by name of those files that exist; a request for each."""
        paths = [self._full(name) for name in names]
        infos = self._call(f"find files in {self.uri}", lambda: self.filesystem.get_file_info(paths))
        return {name: (int(info.size or 0), int(info.mtime_ns or 0)) for name, info in zip(names, infos, strict=True) if info.is_file}

    def paths(self) -> list[str]:
        """Return the sorted paths, relative to this folder, of all files in it and its subfolders; links to folders are not followed."""
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=True)
        infos = self._call(f"list {self.uri}", lambda: self.filesystem.get_file_info(selector))
        return sorted(info.path.removeprefix(f"{self.path.rstrip('/')}/") for info in infos if info.is_file)

    def require_inside(self, name: str) -> None:
        """Check that the name of a file, which comes from a data file, names no link out of this folder and nothing but a file.

        A file that does not exist passes: reading it says so. Object stores have no links.

        Raises:
            VwlError: links lead out of the folder, in a circle, or to something that is not a file.
        """
        if not self.is_local:
            return
        full = self._full(name)
        try:
            real, root = os.path.realpath(full), os.path.realpath(self.path)
            mode = os.stat(full).st_mode
        except FileNotFoundError:
            return
        except OSError as error:
            raise storage_error(f"cannot read {full}", error) from None
        if os.path.commonpath([real, root]) != root:
            raise VwlError(f"{full} is a link that leads out of {self.uri}, to {real}; put the file itself below the folder")
        if not stat.S_ISREG(mode):
            raise VwlError(f"{full} is a folder, pipe or device and not a file; put a file in its place")

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            VwlError: it does not exist or cannot be read, or is a pipe or device, whose end might never come.
        """

        def read() -> bytes:
            if self.is_local and self.filesystem.get_file_info(path).type == fs.FileType.Unknown:
                raise VwlError(f"cannot read {self.uri_of(name)}: it is not a regular file")
            with self.filesystem.open_input_stream(path) as stream:
                return bytes(stream.read())

        path = self._full(name)
        return self._call(f"read {self.uri_of(name)}", read)

    def open(self, name: str) -> pa.NativeFile:
        """Return a file opened for random access.

        Raises:
            VwlError: it does not exist or cannot be read.
        """
        path = self._full(name)
        return self._call(f"read {self.uri_of(name)}", lambda: self.filesystem.open_input_file(path))

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically and create its folder.

        Raises:
            VwlError: it cannot be written (no permission, disk full), or the name is a folder's, pipe's or device's; an earlier version of
                the file is kept.
        """
        target = self._full(name)
        # Renaming a file onto a device would replace the device.
        if self.is_local and os.path.exists(target) and not os.path.isfile(target):
            raise VwlError(f"cannot write {self.uri_of(name)}: it is a folder, pipe or device; name a file")
        self._call(f"write {self.uri_of(name)}", lambda: self._write(target, data), "; free space or choose another folder")

    def _write(self, target: str, data: bytes) -> None:
        parent, _, base = target.rpartition("/")
        temporary = f"{parent}/.part-{uuid.uuid4().hex}-{base}"
        try:
            if self.filesystem.type_name != "s3":  # a bucket has no folders, and looking for them costs requests
                self.filesystem.create_dir(parent, recursive=True)
            with self.filesystem.open_output_stream(temporary) as stream:
                stream.write(data)
            self.filesystem.move(temporary, target)
        except BaseException as error:
            if not is_transient(error):  # an unreachable server cannot delete it; `sweep` does later
                with suppress(OSError):
                    self.filesystem.delete_file(temporary)
            raise

    def append(self, name: str, text: str) -> None:
        """Append text to a log file; the file is rewritten where the file system cannot append."""
        if self.is_local:
            path = Path(self._full(name))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a") as stream:
                    stream.write(text)
            except OSError as error:
                raise storage_error(f"cannot write {path}", error, "; free space or choose another folder") from None
        else:
            before = self.read(name) if self.exists(name) else b""
            self.write(name, before + text.encode())

    def delete(self, name: str) -> None:
        """Delete a file if it exists."""

        def delete() -> None:
            with suppress(FileNotFoundError):
                self.filesystem.delete_file(path)

        path = self._full(name)
        if self.exists(name):
            self._call(f"delete {self.uri_of(name)}", delete)

    def sweep(self) -> None:
        """Delete the temporary files that a process killed during `write` left in this folder and its subfolders."""
        for path in self.paths():
            if path.rpartition("/")[2].startswith(".part-"):
                self.delete(path)

    def clear(self) -> None:
        """Delete everything in the folder.

        Raises:
            VwlError: it cannot be deleted (no permission, or a file).
        """
        self._call(f"clear {self.uri}", lambda: self.filesystem.delete_dir_contents(self.path, missing_dir_ok=True))

    def read_json(self, name: str) -> Any:
        """Return a JSON file's value.

        Raises:
            VwlError: it does not exist or is not JSON.
        """
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise VwlError(f"{self.uri_of(name)} is not valid JSON: {error}") from None

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON, atomically."""
        self.write(name, (json.dumps(value, indent=2) + "\n").encode())

    def _call(self, what: str, call: Callable[[], Result], advice: str = "") -> Result:
        """Call the file system with retries; an error becomes a `VwlError` "cannot <what>: <reason><advice>"."""
        try:
            return retry(call)
        except (OSError, pa.ArrowInvalid, UnicodeError) as error:  # the last two: names that the file system cannot have
            raise storage_error(f"cannot {what}", error, advice) from None


def split_path(path: str | Path) -> tuple[Folder, str]:
    """Split a file's path or URI into its folder and its name."""
    if "://" not in str(path):
        return Folder(Path(path).parent), Path(path).name
    base, question, query = str(path).partition("?")
    parent, _, name = base.rpartition("/")
    return Folder(f"{parent}{question}{query}"), name


def storage_error(what: str, error: Exception, advice: str = "") -> VwlError:
    """Return a file system's error with a message of one line: what failed, the reason, and `advice`; `Unreachable` if it is transient."""
    if is_transient(error):
        return Unreachable(f"{what}: {_reason(error)}; retries failed too; check the storage, then run the same command again")
    return VwlError(f"{what}: {_reason(error)}{advice}")


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise VwlError(f"the file name '{name}' leads out of its folder; use a relative name without ..")
    return str(path)


def _reason(error: Exception) -> str:
    """Return the operating system's message, which pyarrow wraps in its own message."""
    if isinstance(error, UnicodeError):
        return "a file name is not UTF-8; rename the file"
    text = getattr(error, "strerror", None) or str(error)
    detail = re.search(r"\[errno \d+\] ([^.\n]+)", text)
    return detail.group(1) if detail else " ".join(text.split())
