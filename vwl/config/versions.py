"""Versions of the packages that results depend on, and the commit of this code, for manifests."""

import os
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "timm", "ray", "numpy", "pyarrow", "numba", "pydensecrf2")


def versions() -> dict[str, str]:
    """Return the versions of the installed packages, of Python and of vwl, and the commit."""
    installed = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            installed[name] = metadata.version(name)
    return {"vwl": metadata.version("vwl"), "commit": commit(), "python": platform.python_version(), **installed}


def commit() -> str:
    """Return the commit of this code: `VWL_COMMIT` (set in submitted jobs) or that of the git checkout; empty if there is neither."""
    if given := os.environ.get("VWL_COMMIT"):
        return given
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:  # git is not installed
        return ""
    return done.stdout.strip()


def ray_version() -> str:
    """Return the version of Ray that nodes of a cluster must have: the installed one."""
    return metadata.version("ray")
