"""YAML files that come with the package and are called by name, beside the user's own, which are called by path."""

from importlib import resources
from pathlib import Path

from vwl.errors import VwlError, did_you_mean


def names_in(package: str) -> list[str]:
    """Return the names of a package's YAML files, sorted."""
    return sorted(entry.name[:-5] for entry in resources.files(package).iterdir() if entry.name.endswith(".yaml"))


def is_path(name_or_path: str) -> bool:
    """Return whether this is the path of a file and not a name."""
    return Path(name_or_path).suffix in {".yaml", ".yml"}


def read_named(name_or_path: str, kind: str, package: str, listing: str) -> str:
    """Return a file's text.

    Args:
        name_or_path: of a file in `package`, or of the user's.
        kind: what such files hold, in a word.
        package: where those with names are.
        listing: the command that lists them.

    Raises:
        VwlError: there is none of that name or path, or it is no text.
    """
    if not is_path(name_or_path):
        known = names_in(package)
        if name_or_path not in known:
            raise VwlError(f"no {kind} named '{name_or_path}'{did_you_mean(name_or_path, known)} ({listing})")
        return resources.files(package).joinpath(f"{name_or_path}.yaml").read_text(encoding="utf-8")
    try:
        return Path(name_or_path).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise VwlError(f"{kind} file {name_or_path} does not exist") from None
    except (OSError, UnicodeDecodeError) as error:
        raise VwlError(f"{kind} file {name_or_path} cannot be read: {error}") from None
