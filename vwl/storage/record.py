"""The record of a finished stage: `record.json` in its folder, with size, digest and modification time of each file of its result.

Whether a stage is still complete is then known from one listing per folder: sizes are compared always, content only where size or time
have changed. The record also holds a copy of the manifest, from which a lost or damaged one is restored.
"""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any

from vwl.errors import Damaged
from vwl.storage.checked import digest, read_checked, write_checked
from vwl.storage.folder import Folder

NAME = "record.json"
_THREADS = 8
"""Files that are read at the same time."""


@dataclass(frozen=True)
class StoredFile:
    """A file of a result.

    Attributes:
        size: bytes.
        digest: of its content; empty if it is unknown, because an earlier version wrote the file.
        mtime_ns: modification time when the content was last known to be right.
    """

    size: int
    digest: str
    mtime_ns: int = 0


@dataclass(frozen=True)
class Record:
    """What a stage has written.

    Attributes:
        manifest: copy of the manifest at the stage's last start or end.
        files: by name, relative to the stage's folder; empty until the stage has ended.
    """

    manifest: dict[str, Any]
    files: dict[str, StoredFile] = field(default_factory=dict)


def read_record(folder: Folder) -> Record | None:
    """Return the record in a stage's folder; none if there is none, or it is damaged (it can be made again)."""
    if not folder.exists(NAME):
        return None
    try:
        stored = read_checked(folder, NAME)
        files = {name: StoredFile(size, content, mtime_ns) for name, (size, content, mtime_ns) in stored["files"].items()}
        return Record(dict(stored["manifest"]), files)
    except (Damaged, KeyError, TypeError, ValueError, AttributeError):
        return None


def write_record(folder: Folder, record: Record) -> None:
    """Write a stage's record, atomically."""
    files = {name: [file.size, file.digest, file.mtime_ns] for name, file in sorted(record.files.items())}
    write_checked(folder, NAME, {"manifest": record.manifest, "files": files})


def faults(folder: Folder, files: Mapping[str, StoredFile]) -> tuple[dict[str, str], dict[str, StoredFile]]:
    """Return what is wrong by name of each file that is missing or damaged, and the others with their modification times of now.

    A file whose size fits and whose modification time has changed is read.
    """
    there = listing(folder, {name.rpartition("/")[0] for name in files})
    found = {name: _size_fault(file, there.get(name)) for name, file in files.items()}
    touched = [name for name, file in files.items() if not found[name] and file.digest and there[name][1] != file.mtime_ns]
    with ThreadPoolExecutor(_THREADS) as pool:
        found |= zip(touched, pool.map(lambda name: content_fault(folder, name, files[name]), touched), strict=True)
    wrong = {name: fault for name, fault in found.items() if fault}
    return wrong, {name: replace(file, mtime_ns=there[name][1]) for name, file in files.items() if name not in wrong}


def listing(folder: Folder, subfolders: set[str]) -> dict[str, tuple[int, int]]:
    """Return size and modification time of the files in some subfolders (the folder itself is ``""``), by name relative to the folder."""
    found: dict[str, tuple[int, int]] = {}
    for subfolder in subfolders:
        listed = (folder / subfolder if subfolder else folder).sizes_and_mtimes()
        found |= {f"{subfolder}/{name}" if subfolder else name: info for name, info in listed.items()}
    return found


def _size_fault(file: StoredFile, info: tuple[int, int] | None) -> str:
    if info is None:
        return "is missing"
    return "" if info[0] == file.size else f"is damaged: it has {info[0]} bytes instead of {file.size}"


def content_fault(folder: Folder, name: str, file: StoredFile) -> str:
    """Return what is wrong with the content of a file that is there; empty if nothing is.

    Raises:
        VwlError: it cannot be read.
    """
    return "" if digest(folder.read(name)) == file.digest else "is damaged: its content has changed since it was written"


def stored_file(folder: Folder, name: str) -> StoredFile:
    """Return size, digest and modification time of a file.

    Raises:
        VwlError: it cannot be read.
    """
    data = folder.read(name)
    return StoredFile(len(data), digest(data), folder.size_and_mtime(name)[1])


def remake(folder: Folder) -> str:
    """Return how to make a damaged file in a stage's folder again, for messages."""
    return f"delete it and run its stage again (vwl infer {folder.path.rstrip('/').rpartition('/')[2]})"
