"""Finds YAML files of recipes and search spaces: those of the package by name, the user's own by path."""

import stat
from importlib import resources
from pathlib import Path

from vwl.errors import VwlError, did_you_mean, shortened

_LARGEST = 2**20


def names_in(package: str) -> list[str]:
    """Return the names of a package's YAML files, sorted."""
    return sorted(entry.name[:-5] for entry in resources.files(package).iterdir() if entry.name.endswith(".yaml"))


def is_path(name_or_path: str) -> bool:
    """Return whether this is a path (ends in .yaml or .yml) rather than a name."""
    return Path(name_or_path).suffix in {".yaml", ".yml"}


def read_named(name_or_path: str, kind: str, package: str, listing: str) -> str:
    """Return the text of a built-in file or of a user's file.

    Args:
        name_or_path: a name in `package`, or the path of a user's file.
        kind: what the file holds, for messages: `recipe` or `space`.
        package: import path of the built-in files.
        listing: the command that lists the built-in files.

    Raises:
        VwlError: there is no such file, or it is not text.
    """
    if not is_path(name_or_path):
        known = names_in(package)
        if name_or_path not in known:
            raise VwlError(f"no {kind} named '{shortened(name_or_path)}'{did_you_mean(name_or_path, known)} ({listing})")
        return resources.files(package).joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")
    try:
        return read_text(Path(name_or_path))
    except FileNotFoundError:
        raise VwlError(f"{kind} file {name_or_path} does not exist") from None
    except (OSError, ValueError) as error:  # UnicodeDecodeError is a ValueError
        raise VwlError(f"{kind} file {shortened(name_or_path)} cannot be read: {error}") from None


def read_text(path: Path) -> str:
    """Return the text of a small UTF-8 file.

    Raises:
        OSError: it cannot be read; a pipe, a device or a folder is refused, because reading it might never end.
        ValueError: it is not text, or larger than 1 MiB.
    """
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError("it is not a regular file")
    if found.st_size > _LARGEST:
        raise ValueError(f"it is larger than {_LARGEST // 2**20} MiB")
    return path.read_text(encoding="utf-8")
