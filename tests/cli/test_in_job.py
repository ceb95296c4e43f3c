"""The entry of a submitted job tells in one line why an interpreter is the wrong one."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from vwl.cli.in_job import interpreter_error

ROOT = Path(__file__).parents[2]


def test_a_python_that_fits_is_not_complained_of():
    assert interpreter_error((3, 11, 7), "/usr/bin/python", []) == ""


@pytest.mark.parametrize("version", [(3, 8, 1), (3, 10, 0), (3, 13, 0)])
def test_another_python_is_named_with_its_version(version):
    shown = f"{version[0]}.{version[1]}"
    assert interpreter_error(version, "/usr/bin/python", []).startswith(
        f"/usr/bin/python is Python {shown} and vwl needs 3.11 or 3.12; name "
    )


def test_missing_packages_are_named_with_the_way_out():
    assert "does not have ray, torch; " in interpreter_error((3, 12, 0), "/usr/bin/python", ["ray", "torch"])
    assert "--packages" in interpreter_error((3, 12, 0), "/usr/bin/python", ["ray"])


def test_an_interpreter_without_packages_ends_in_one_line():
    done = subprocess.run([sys.executable, "-I", "-S", "cli/in_job.py", "status"], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith("error: the cluster's ")
    assert done.stderr.count("\n") == 1


def test_the_file_is_read_by_old_interpreters():
    ast.parse((ROOT / "cli/in_job.py").read_text(), feature_version=(3, 7))


def test_it_is_vwl():
    done = subprocess.run([sys.executable, "-m", "vwl.cli.in_job", "--version"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("vwl ")
