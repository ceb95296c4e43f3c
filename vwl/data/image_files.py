"""The image files of a data set's folder: found by the names that label files give them; and the folders that hold images and masks."""

import os
from collections import Counter
from pathlib import Path, PurePosixPath

from vwl.errors import VwlError
from vwl.storage.folder import Folder

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
"""Extensions of the image files that are read."""


class ImageFiles:
    """The image files in a folder.

    Attributes:
        folder: that holds them.
        names: paths relative to it; with them, where only one file has it, each path without extension, and each bare file name.
        paths: of all files, sorted.
    """

    def __init__(self, folder: Folder, recursive: bool = True, without: Folder | None = None) -> None:
        """List a folder, with its subfolders if `recursive`, but not the folder `without` (of masks).

        Raises:
            VwlError: it holds no image.
        """
        self.folder = folder
        left_out = f"{without.path.rstrip('/')}/" if without is not None else None
        paths = [path for path in (folder.paths() if recursive else folder.names()) if is_image(path)]
        if left_out is not None:
            paths = [path for path in paths if not f"{folder.path.rstrip('/')}/{path}".startswith(left_out)]
        if not paths:
            raise VwlError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
        self.paths = paths
        shorter = [(name, path) for path in paths for name in {_stem(path), PurePosixPath(path).name, PurePosixPath(path).stem}]
        counts = Counter(name for name, _ in shorter)
        self.names = {name: path for name, path in shorter if counts[name] == 1} | {path: path for path in paths}

    def find(self, name: str) -> str | None:
        """Return the path of an image, relative to the folder; none if there is no such image, or more than one."""
        plain = name.replace("\\", "/").removeprefix("./")
        return self.names.get(name) or self.names.get(plain)


def is_image(path: str) -> bool:
    """Return whether a path has the extension of an image and no hidden part."""
    parts = PurePosixPath(path)
    return parts.suffix.lower() in IMAGE_SUFFIXES and not any(part.startswith(".") for part in parts.parts)


def image_id_of(path: str) -> str:
    """Return the image id of a path: without extension, and with `_` between folders and name."""
    return _stem(path).replace("/", "_")


def without_links(folder: Folder) -> Folder:
    """Return a folder that the user has named under its real path, so that no link lies between it and a root above it."""
    return Folder(os.path.realpath(folder.path)) if folder.is_local else folder


def common_root(*folders: Folder) -> Folder:
    """Return the deepest folder that holds all of the given folders.

    Raises:
        VwlError: they are on different file systems or in different buckets.
    """
    bases = [folder.uri.partition("?") for folder in folders]
    shared = []
    for level in zip(*(base.split("/") for base, _, _ in bases), strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    num_fixed = 3 if "://" in bases[0][0] else 1  # "s3:", "" and the bucket are not folders
    if len(shared) < num_fixed or len({query for _, _, query in bases}) > 1:
        raise VwlError(f"{' and '.join(map(str, folders))} have no folder in common; put them on one file system")
    return Folder(("/".join(shared) or "/") + "".join(bases[0][1:]))


def below(root: Folder, folder: Folder) -> str:
    """Return the path from `root` to `folder`, empty or with a slash at its end."""
    path = folder.path.removeprefix(root.path).strip("/")
    return f"{path}/" if path else ""


def _stem(name: str) -> str:
    return name.rpartition(".")[0]


def as_folder(folder: str | Path | Folder) -> Folder:
    """Return a folder that may be given by its path."""
    return folder if isinstance(folder, Folder) else Folder(folder)
