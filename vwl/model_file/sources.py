"""What users name as images to be segmented (files, folders, patterns, videos), as a list of files with the names of their results.

A result is named after its image: without folder for a file that was named itself, with the folders below the named one for a file that was
found in it. Where two would have one name, all are named by their paths below the deepest folder that holds all of them.
"""

import glob
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vwl.data.image_files import IMAGE_SUFFIXES
from vwl.errors import VwlError
from vwl.model_file.video import SUFFIXES as VIDEO_SUFFIXES
from vwl.model_file.video import frames, is_video


@dataclass(frozen=True)
class Source:
    """An image file or a video.

    Attributes:
        path: the file.
        name: of its results: a relative path without ending, with slashes.
    """

    path: str
    name: str

    @property
    def is_video(self) -> bool:
        """Whether it is a video, which has results for each frame."""
        return is_video(self.path)

    @property
    def frames_name(self) -> str:
        """Folder of the results of a video's frames."""
        return f"{self.name}_frames"


@dataclass(frozen=True)
class _Found:
    """A file, absolute or not, and the folder that its result is named below."""

    path: str
    base: str


def find_sources(named: Sequence[str | Path], recursive: bool = True, out: str | Path | None = None) -> list[Source]:
    """Return the files that are meant, each once, in the order in which they are named, those of a folder or pattern sorted.

    Files that do not exist are in the list: reading them says so.

    Args:
        named: files, folders and patterns (`*`, `?`, `[...]`, `**`); a `Path`, and a string that names an existing file, is no pattern.
        recursive: whether folders below a folder are searched; hidden ones and hidden files are not.
        out: folder of the results, which is left out where it is inside a folder that is searched.

    Raises:
        VwlError: a folder holds no images, a pattern matches no file, `out` is a folder that is searched, or two files cannot have
            different names.
    """
    results = None if out is None or "://" in str(out) else os.path.realpath(out)
    found: dict[str, _Found] = {}
    for one in named:
        for file in _files(one, recursive, results):
            found.setdefault(_absolute(file.path), file)
    return _named(list(found.values()))


def frames_of(video: Source, every: int = 1) -> Iterator[tuple[str, np.ndarray]]:
    """Yield the name of the results and the pixels (H, W, 3) uint8 of a video's frames; only each of `every` frames.

    Raises:
        VwlError: as `vwl.model_file.video.frames`.
    """
    for number, pixels in frames(video.path, every):
        yield f"{video.frames_name}/{number:06d}", pixels


def paths_in_list(data: bytes) -> list[Path]:
    """Return the paths in a list, as `find` prints it: one a line, or separated by NUL characters (`find -print0`)."""
    text = os.fsdecode(data)
    lines = text.split("\0") if "\0" in text else text.splitlines()
    return [Path(line) for line in lines if line.strip()]


def _files(named: str | Path, recursive: bool, out: str | None) -> Iterator[_Found]:
    text = str(named)
    if text and _is_folder(text):
        yield from _in_folder(text, recursive, out)
    elif isinstance(named, str) and "://" not in text and "\0" not in text and glob.has_magic(text) and not os.path.lexists(text):
        yield from _matches(text, out)
    else:
        yield _Found(text, os.path.dirname(text))


def _in_folder(folder: str, recursive: bool, out: str | None) -> Iterator[_Found]:
    if out == os.path.realpath(folder):
        raise VwlError(f"the results would be written into {folder}, and its images with them be segmented next time; choose another --out")
    paths = [path for path in _walk(folder, recursive, out, set()) if path.lower().endswith((*IMAGE_SUFFIXES, *VIDEO_SUFFIXES))]
    if not paths:
        more = "" if recursive else "; with --recursive the folders below it are searched as well"
        raise VwlError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)}) and no videos{more}")
    yield from (_Found(path, folder) for path in paths)


def _walk(folder: str, recursive: bool, out: str | None, above: set[str]) -> Iterator[str]:
    """Yield the files in a folder and those below it, sorted; links to folders above, which have no end, are not followed."""
    real = os.path.realpath(folder)
    if real in above or real == out:
        return
    try:
        names = sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except OSError as error:
        raise VwlError(f"cannot list {folder}: {error.strerror}") from None
    paths = [os.path.join(folder, name) for name in names]
    folders = {path for path in paths if os.path.isdir(path)}
    yield from (path for path in paths if path not in folders)
    for path in paths if recursive else ():
        if path in folders:
            yield from _walk(path, recursive, out, above | {real})


def _matches(pattern: str, out: str | None) -> Iterator[_Found]:
    base = pattern
    while glob.has_magic(base):
        base = os.path.dirname(base)
    paths = [path for path in sorted(glob.glob(pattern, recursive=True)) if not os.path.isdir(path)]
    if os.path.realpath(base) != out:
        paths = [path for path in paths if not f"{os.path.realpath(os.path.dirname(path))}/".startswith(f"{out}/")]
    if not paths:
        raise VwlError(f"no file matches {pattern}")
    yield from (_Found(path, base) for path in paths)


def _named(files: Sequence[_Found]) -> list[Source]:
    """Return the files with names that differ, as the module says."""
    names = [_relative(file.path, file.base) for file in files]
    if len(set(names)) < len(names):
        there = [os.path.dirname(_absolute(file.path)) for file in files if os.path.lexists(file.path)]
        root = os.path.commonpath(there) if there else os.curdir
        names = [_relative(file.path, root) for file in files]
    counts = Counter(names)
    ended = [name if counts[name] == 1 else f"{name}{os.path.splitext(file.path)[1]}" for name, file in zip(names, files, strict=True)]
    sources = [Source(file.path, name) for name, file in zip(ended, files, strict=True)]
    _require_different(sources)
    return sources


def _require_different(sources: Sequence[Source]) -> None:
    seen: dict[str, Source] = {}
    for source in sources:
        other = seen.setdefault(source.name, source)
        if other is not source:
            raise VwlError(
                f"{other.path} and {source.path} would have results of one name, {source.name}; predict them with different --out folders"
            )
    frames = {source.frames_name: source for source in sources if source.is_video}
    for source in sources:
        if other_video := frames.get(os.path.dirname(source.name)):
            raise VwlError(f"{source.path} and frames of {other_video.path} would have results in one folder; use different --out folders")


def _relative(path: str, base: str) -> str:
    """Return a file's path below a folder, without its ending; of a file outside it, without folders."""
    stem = os.path.splitext(path)[0]
    relative = os.path.relpath(_absolute(stem), _absolute(base)) if stem and "\0" not in stem else "image"
    return os.path.basename(stem) or "image" if relative.startswith(os.pardir) else relative.replace(os.sep, "/")


def _absolute(path: str) -> str:
    return os.path.abspath(path or os.curdir)


def _is_folder(path: str) -> bool:
    try:
        return os.path.isdir(path)
    except ValueError:  # a NUL
        return False
