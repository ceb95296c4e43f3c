"""Where a submitted command starts on the cluster: checks the interpreter that was found there, then is `vwl`.

A cluster's `python` may be another one than the one that Ray runs on. This file is therefore written so that old ones read it too,
and imports nothing before it has looked.
"""

import sys
from importlib.util import find_spec
from typing import Any

OLDEST, NEWEST = (3, 11), (3, 12)
PACKAGES = ("numpy", "pyarrow", "pydantic", "ray", "timm", "torch", "torchvision", "typer", "yaml")


def complaint(version: Any, executable: str, missing: Any) -> str:
    """Return what is wrong with an interpreter of this version that lacks these packages, or an empty string."""
    advice = "name the right interpreter of the nodes with vwl submit --python PATH"
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        return f"{executable} is Python {version[0]}.{version[1]} and vwl needs 3.11 or 3.12; {advice}"
    if missing:
        return f"{executable} lacks {', '.join(missing)}; {advice}, or have the pinned packages installed with --packages"
    return ""


def main() -> None:
    """Run the command, or say in one line why this interpreter cannot."""
    problem = complaint(sys.version_info, sys.executable, [name for name in PACKAGES if find_spec(name) is None])
    if problem:
        sys.stderr.write(f"error: the cluster's {problem}\n")
        sys.exit(1)
    from vwl.cli.main import main as vwl

    vwl()


if __name__ == "__main__":
    main()
