"""Where results live: folders on any pyarrow file system.

Every write goes to a temporary name and is renamed, so a reader sees a whole file or none. Paths may be local or URIs
(``s3://bucket/run``); names that come from data files cannot leave their folder.
"""

import json
import re
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import pyarrow as pa
from pyarrow import fs

from vwl.errors import Unreachable, VwlError
from vwl.storage.retry import Answer, is_transient, retry


class Folder:
    """A folder on a pyarrow file system; picklable, so that it can be sent to workers.

    Where a server or the network is away, every method waits for it (`vwl/storage/retry.py`) and then raises Unreachable.
    """

    def __init__(self, uri: str | Path) -> None:
        """Open `uri`, a local path (made absolute) or a URI; nothing is created yet.

        pyarrow reads options of S3 behind a question mark: ``s3://bucket/run?endpoint_override=minio.example:9000&scheme=http``.
        """
        text = str(uri)
        if "://" in text:
            self.uri = text.rstrip("/")
        else:
            self.uri = str(Path(text).expanduser().absolute())
        self._connect()

    def _connect(self) -> None:
        try:
            found = retry(lambda: fs.FileSystem.from_uri(self.uri)) if "://" in self.uri else (fs.LocalFileSystem(), self.uri)
        except (pa.ArrowInvalid, OSError) as error:
            raise storage_error(f"cannot open {self.uri}", error) from None
        self.filesystem: fs.FileSystem = found[0]
        self.path: str = found[1]

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.uri = state["uri"]
        self._connect()

    def __truediv__(self, name: str) -> "Folder":
        if "://" not in self.uri:
            return Folder(Path(self.uri, _inside(name)))
        below = Folder.__new__(Folder)  # shares the connection
        below.uri, below.filesystem, below.path = self.uri_of(name), self.filesystem, self._full(name)
        return below

    def __str__(self) -> str:
        return self.uri

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk of this machine, or is mounted like one."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def uri_of(self, name: str) -> str:
        """Return the path or URI of a file in it."""
        base, question, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        return f"{base}/{quote(_inside(name)) if '://' in self.uri else _inside(name)}{question}{query}"

    def _full(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{_inside(name)}"

    def exists(self, name: str = "") -> bool:
        """Return whether the folder, or the file `name` in it, is there."""
        return self._info(name).type != fs.FileType.NotFound

    def size_and_mtime(self, name: str) -> tuple[int, int]:
        """Return what changes with a file: its size (bytes), and when it was written (nanoseconds since 1970).

        Raises:
            VwlError: it is not there.
        """
        info = self._info(name)
        if info.type == fs.FileType.NotFound:
            raise VwlError(f"cannot read {self.uri_of(name)}: No such file or directory")
        return int(info.size or 0), int(info.mtime_ns or 0)

    def _info(self, name: str) -> fs.FileInfo:
        path = self._full(name) if name else self.path
        return self._ask(f"look at {self.uri_of(name) if name else self.uri}", lambda: self.filesystem.get_file_info(path))

    def names(self, suffix: str = "") -> list[str]:
        """Return the sorted names of the finished files directly in this folder that end in `suffix`; none if it is not there.

        Raises:
            VwlError: it cannot be listed (no permission, or a file).
        """
        selector = fs.FileSelector(self.path, allow_not_found=True)
        infos = self._ask(f"list {self.uri}", lambda: self.filesystem.get_file_info(selector))
        return sorted(i.base_name for i in infos if i.is_file and i.base_name.endswith(suffix) and not i.base_name.startswith(".part-"))

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            VwlError: it is not there or cannot be read.
        """

        def read() -> bytes:
            with self.filesystem.open_input_stream(path) as stream:
                return bytes(stream.read())

        path = self._full(name)
        return self._ask(f"read {self.uri_of(name)}", read)

    def open(self, name: str) -> pa.NativeFile:
        """Return a file open for reading at any place.

        Raises:
            VwlError: it is not there or cannot be read.
        """
        path = self._full(name)
        return self._ask(f"read {self.uri_of(name)}", lambda: self.filesystem.open_input_file(path))

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically, making its folder.

        Raises:
            VwlError: it cannot be written (no permission, disk full); what was there before is untouched.
        """
        target = self._full(name)
        self._ask(f"write {self.uri_of(name)}", lambda: self._write(target, data), "; free space or choose another folder")

    def _write(self, target: str, data: bytes) -> None:
        parent, _, base = target.rpartition("/")
        temporary = f"{parent}/.part-{uuid.uuid4().hex}-{base}"
        try:
            if self.filesystem.type_name != "s3":  # a bucket has no folders; looking for them costs requests
                self.filesystem.create_dir(parent, recursive=True)
            with self.filesystem.open_output_stream(temporary) as stream:
                stream.write(data)
            self.filesystem.move(temporary, target)
        except BaseException as error:
            if not is_transient(error):  # a server that is away deletes nothing; `sweep` will
                with suppress(OSError):
                    self.filesystem.delete_file(temporary)
            raise

    def append(self, name: str, text: str) -> None:
        """Add text at the end of a log file (whole-file rewrite where the file system cannot append)."""
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
        """Delete a file if it is there."""

        def delete() -> None:
            with suppress(FileNotFoundError):
                self.filesystem.delete_file(path)

        path = self._full(name)
        if self.exists(name):
            self._ask(f"delete {self.uri_of(name)}", delete)

    def sweep(self) -> None:
        """Delete the temporary files that a writer killed in the middle of `write` has left in this folder and below."""
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=True)
        for info in self._ask(f"list {self.uri}", lambda: self.filesystem.get_file_info(selector)):
            if info.is_file and info.base_name.startswith(".part-"):
                self.delete(info.path.removeprefix(f"{self.path.rstrip('/')}/"))

    def clear(self) -> None:
        """Delete everything in the folder.

        Raises:
            VwlError: it cannot be deleted (no permission, or a file).
        """
        self._ask(f"clear {self.uri}", lambda: self.filesystem.delete_dir_contents(self.path, missing_dir_ok=True))

    def read_json(self, name: str) -> Any:
        """Return a JSON file's value.

        Raises:
            VwlError: it is not there or no JSON.
        """
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise VwlError(f"{self.uri_of(name)} is not valid JSON: {error}") from None

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON, atomically."""
        self.write(name, (json.dumps(value, indent=2) + "\n").encode())

    def _ask(self, what: str, question: Callable[[], Answer], advice: str = "") -> Answer:
        """Ask the file system, with patience; its errors become one line: cannot do `what`, why, and `advice`."""
        try:
            return retry(question)
        except OSError as error:
            raise storage_error(f"cannot {what}", error, advice) from None


def split_path(path: str | Path) -> tuple[Folder, str]:
    """Return the folder of a file's path or URI, and the file's name."""
    if "://" not in str(path):
        return Folder(Path(path).parent), Path(path).name
    base, question, query = str(path).partition("?")
    parent, _, name = base.rpartition("/")
    return Folder(f"{parent}{question}{query}"), name


def storage_error(what: str, error: Exception, advice: str = "") -> VwlError:
    """Return storage's error as one line: what failed, why, and `advice`; Unreachable where it may pass."""
    if is_transient(error):
        return Unreachable(f"{what}: {_reason(error)}; asked again and again: is the storage up? The same command goes on")
    return VwlError(f"{what}: {_reason(error)}{advice}")


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise VwlError(f"the name '{name}' would leave its folder")
    return str(path)


def _reason(error: Exception) -> str:
    """Return the system's own words where pyarrow wraps them."""
    text = getattr(error, "strerror", None) or str(error)
    detail = re.search(r"\[errno \d+\] ([^.\n]+)", text)
    return detail.group(1) if detail else " ".join(text.split())
