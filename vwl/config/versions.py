"""What computes: versions of packages and the commit of this code, for manifests and for what is compared with them."""

import os
import platform
import subprocess
from contextlib import suppress
from importlib import metadata
from pathlib import Path

PACKAGES = ("torch", "torchvision", "timm", "ray", "numpy", "pyarrow", "numba", "pydensecrf2")


def versions() -> dict[str, str]:
    """Return the versions of what computes as far as it is installed, and this checkout's commit if it is one."""
    found = {}
    for name in PACKAGES:
        with suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return {"vwl": metadata.version("vwl"), "commit": commit(), "python": platform.python_version(), **found}


def commit() -> str:
    """Return the commit of this code: VWL_COMMIT, which a submitted job is given, or the checkout's; else an empty string."""
    if given := os.environ.get("VWL_COMMIT"):
        return given
    try:
        done = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
        )
    except OSError:  # no git here
        return ""
    return done.stdout.strip()
