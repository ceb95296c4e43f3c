"""Pack the code of vwl into a zip for a cluster, and list the pinned packages that it needs. Imports no Ray.

The zip holds the package `vwl` (with `vwl.cli` and `vwl.tune_spaces`, which a checkout has as links), without data, checkpoints and
virtual environments. The same code gives the same bytes, so Ray does not upload again what a cluster already has.
"""

import io
import os
import re
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from vwl.errors import VwlError

LIMIT = 20 * 2**20
"""Largest size of the unpacked files, bytes; the code has about an eighth of it, half of which is the plotting library of reports."""
_CODE = "vwl"
_BESIDE = ("pyproject.toml",)
_WEIGHTS = (".pth", ".pt", ".ckpt", ".safetensors", ".h5", ".caffemodel")
_DATA = (".npy", ".npz", ".parquet", ".arrow", ".jpg", ".jpeg", ".png", ".tif", ".tiff", ".zip", ".tar", ".gz", ".xz", ".bz2")
_NOT_CODE = frozenset((*_WEIGHTS, *_DATA, ".pyc", ".log"))
_EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """A zip of code.

    Attributes:
        data: bytes of the zip.
        files: names and sizes (bytes, unpacked), largest first.
    """

    data: bytes
    files: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{len(self.files)} files, {len(self.data) / 2**20:.2f} MiB"


def project_root() -> Path:
    """Return the folder that holds the package `vwl`: a checkout, or the environment's site-packages."""
    return Path(__file__).parents[2]


def make_package(root: Path, extra: Mapping[str, str]) -> Package:
    """Return a zip of the code below `root`.

    Args:
        root: folder that holds `vwl`, see `project_root`.
        extra: further text files for the top of the zip, by name.

    Raises:
        VwlError: the files are larger than the limit; the message names the largest.
    """
    contents = {path.relative_to(root).as_posix(): path for path in _code(root)}
    version = metadata.version("vwl")
    # lets importlib.metadata find the version on nodes where vwl is not installed
    texts = {**extra, f"vwl-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: vwl\nVersion: {version}\n"}
    sizes = {name: path.stat().st_size for name, path in contents.items()} | {name: len(text.encode()) for name, text in texts.items()}
    files = tuple(sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0])))
    total = sum(sizes.values())
    if total > LIMIT:
        largest = ", ".join(f"{name} ({size / 2**20:.1f} MiB)" for name, size in files[:3])
        raise VwlError(
            f"the code to send is {total / 2**20:.1f} MiB, over the limit of {LIMIT / 2**20:.0f} MiB; "
            f"move files that are not code out of {root}: {largest}"
        )
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(sizes):
            data = texts[name].encode() if name in texts else contents[name].read_bytes()
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), data, zipfile.ZIP_DEFLATED)
    return Package(sink.getvalue(), files)


def _code(root: Path) -> Iterator[Path]:
    yield from (root / name for name in _BESIDE if (root / name).is_file())
    # in a checkout, vwl/cli and vwl/tune_spaces are links to folders beside vwl
    for folder, folders, names in os.walk(root / _CODE, followlinks=True):
        here = Path(folder)
        folders[:] = [name for name in folders if _is_code_folder(here / name, root)]
        yield from (here / name for name in names if not name.startswith(".") and Path(name).suffix.lower() not in _NOT_CODE)


def _is_code_folder(path: Path, root: Path) -> bool:
    if path.name.startswith((".", "__pycache__")) or (path / "pyvenv.cfg").exists():
        return False
    return not path.is_symlink() or (path.resolve().parent == root.resolve() and path.resolve() != (root / _CODE).resolve())


def pinned_packages(root: Path) -> list[str]:
    """Return the lines of `requirements.lock` that commands need, without Ray, which the cluster has, and the developers' packages.

    Raises:
        VwlError: `root` has no lock file, as where vwl is installed from a wheel.
    """
    lock = root / "requirements.lock"
    if not lock.is_file():
        raise VwlError(
            f"--packages needs requirements.lock, which {root} does not have; submit from a checkout, or use nodes that have the packages"
        )
    lines = [line.strip() for line in lock.read_text(encoding="utf-8").splitlines()]
    wanted = [line for line in lines if line and not line.startswith("#")]
    for_developers = _needed("vwl", {"dev"}) - _needed("vwl", {"tune"})
    return [line for line in wanted if _name(line) not in for_developers | {"ray"}]


def _name(line: str) -> str:
    found = re.match(r"[\w.-]+", line)
    assert found is not None, f"requirements.lock has the line {line!r}"
    return canonicalize_name(found.group())


def _needed(name: str, extras: set[str], seen: set[tuple[str, str]] | None = None) -> set[str]:
    """Return the names of all distributions that `name` with its `extras` requires, directly or indirectly."""
    seen = set() if seen is None else seen
    try:
        requirements = metadata.requires(name) or []
    except metadata.PackageNotFoundError:
        return set()  # for another platform
    found: set[str] = set()
    for requirement in map(Requirement, requirements):
        for extra in ("", *extras):
            key = (canonicalize_name(requirement.name), ",".join(sorted(requirement.extras)))
            if requirement.marker is None or requirement.marker.evaluate({"extra": extra}):
                found.add(key[0])
                if key not in seen:
                    seen.add(key)
                    found |= _needed(requirement.name, requirement.extras, seen)
    return found
