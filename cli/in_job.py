"""The entry point of a submitted command on the cluster: checks the interpreter, then runs `vwl`.

The `python` of a cluster need not be the one that Ray runs on. So this file keeps to syntax that older versions of Python read, and
imports packages only after the check.
"""

import sys
from importlib.util import find_spec
from typing import Any

OLDEST, NEWEST = (3, 11), (3, 12)
PACKAGES = ("numpy", "pyarrow", "pydantic", "ray", "timm", "torch", "torchvision", "typer", "yaml")


def interpreter_error(version: Any, executable: str, missing: Any) -> str:
    """Return an error message for an interpreter of a wrong version or with missing packages, or an empty string."""
    advice = "name the right interpreter of the nodes with vwl submit --python PATH"
    if not OLDEST <= tuple(version[:2]) <= NEWEST:
        return f"{executable} is Python {version[0]}.{version[1]} and vwl needs 3.11 or 3.12; {advice}"
    if missing:
        return f"{executable} does not have {', '.join(missing)}; {advice}, or install the pinned packages with vwl submit --packages"
    return ""


def main() -> None:
    """Run the command line, or end with one line on why this interpreter cannot."""
    problem = interpreter_error(sys.version_info, sys.executable, [name for name in PACKAGES if find_spec(name) is None])
    if problem:
        sys.stderr.write(f"error: the cluster's {problem}\n")
        sys.exit(1)
    from vwl.cli.main import main as vwl

    vwl()


if __name__ == "__main__":
    main()
