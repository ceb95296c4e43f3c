"""Packs the code of vwl as one zip for a cluster, and lists the pinned packages that it needs.

The zip holds code only, without data, checkpoints and virtual environments. The same code gives the same bytes, so that it is uploaded to
a cluster only once.
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
"""Largest package, bytes; the code is under one."""
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
        data: the zip's bytes.
        files: names and sizes (bytes, unpacked), largest first.
    """

    data: bytes
    files: tuple[tuple[str, int], ...]

    def __str__(self) -> str:
        return f"{len(self.files)} files, {len(self.data) / 2**20:.2f} MiB"


def project_root() -> Path:
    """Return the folder that holds the packages: a checkout, or where they are installed."""
    return Path(__file__).parents[2]


def make_package(root: Path, extra: Mapping[str, str]) -> Package:
    """Zip the code below `root` with the texts `extra` (name: text) beside it.

    Raises:
        VwlError: it is over the limit; the largest files are named.
    """
    contents = {path.relative_to(root).as_posix(): path for path in _code(root)}
    version = metadata.version("vwl")
    # read by importlib.metadata where vwl is not installed
    texts = {**extra, f"vwl-{version}.dist-info/METADATA": f"Metadata-Version: 2.1\nName: vwl\nVersion: {version}\n"}
    sizes = {name: path.stat().st_size for name, path in contents.items()} | {name: len(text.encode()) for name, text in texts.items()}
    files = tuple(sorted(sizes.items(), key=lambda entry: (-entry[1], entry[0])))
    total = sum(sizes.values())
    if total > LIMIT:
        largest = ", ".join(f"{name} ({size / 2**20:.1f} MiB)" for name, size in files[:3])
        raise VwlError(
            f"the code to send is {total / 2**20:.1f} MiB, more than the {LIMIT / 2**20:.0f} MiB of a package; "
            f"move everything but code out of {root}/vwl: {largest}"
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
    """Return the lines of `requirements.lock` that the commands need: not Ray, which is the cluster's, and nothing for developers.

    Raises:
        VwlError: there is no lock file beside the code.
    """
    lock = root / "requirements.lock"
    if not lock.is_file():
        raise VwlError(
            f"there is no requirements.lock in {root}, which pins the packages; submit from a checkout, or use an image that has them"
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
    """Return the names of all distributions that one needs here with some extras, directly or through others."""
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
