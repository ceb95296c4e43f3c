"""The zip of code for a cluster: code only, the same bytes for the same code, within the size limit."""

import io
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from vwl.cluster import package
from vwl.cluster.package import make_package, pinned_packages, project_root
from vwl.errors import VwlError


@pytest.fixture
def project(tmp_path) -> Path:
    """A small project with many files that are not code."""
    for name, text in {
        "pyproject.toml": "[project]",
        "README.md": "words",
        "vwl/a.py": "A = 1",
        "vwl/config/recipes/r.yaml": "name: r",
        "vwl/model.pth": "weights",
        "vwl/data/image.jpg": "image",
        "vwl/data/index.parquet": "table",
        "vwl/__pycache__/a.cpython-311.pyc": "code",
        "vwl/.hidden": "secret",
        "vwl/env/pyvenv.cfg": "home = /usr",
        "vwl/env/lib/x.py": "X = 1",
        "cli/main.py": "B = 1",
        "elsewhere/c.py": "C = 1",
        "runs/voc/run.json": "{}",
        ".venv/lib/y.py": "Y = 1",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "vwl/cli").symlink_to("../cli")
    (tmp_path / "vwl/loop").symlink_to("../vwl")
    (tmp_path / "vwl/outside").symlink_to("/usr/lib")
    return tmp_path


def names(made: package.Package) -> set[str]:
    return {name for name in zipfile.ZipFile(io.BytesIO(made.data)).namelist() if "dist-info" not in name}


def test_a_package_holds_code_and_the_files_given_and_nothing_else(project):
    made = make_package(project, {"mine.yaml": "name: mine"})
    assert names(made) == {"pyproject.toml", "vwl/a.py", "vwl/config/recipes/r.yaml", "vwl/cli/main.py", "mine.yaml"}
    assert zipfile.ZipFile(io.BytesIO(made.data)).read("mine.yaml") == b"name: mine"


def test_the_same_code_gives_the_same_bytes(project):
    before = make_package(project, {}).data
    (project / "vwl/a.py").touch()
    assert make_package(project, {}).data == before
    (project / "vwl/a.py").write_text("A = 2")
    assert make_package(project, {}).data != before


def test_a_package_over_the_limit_is_refused_and_its_largest_files_are_named(project, monkeypatch):
    (project / "vwl/table.csv").write_text("1,2\n" * 40_000)
    monkeypatch.setattr(package, "LIMIT", 100_000)
    with pytest.raises(VwlError, match=r"0\.2 MiB, over the limit of 0 MiB; .*: vwl/table\.csv \(0\.2 MiB\), "):
        make_package(project, {})


def test_the_package_of_this_project_is_small():
    made = make_package(project_root(), {})
    assert len(made.data) < 5 * 2**18
    assert {"vwl/cli/main.py", "vwl/cli/in_job.py", "vwl/config/recipes/demo.yaml", "vwl/tune_spaces/table4.yaml"} <= names(made)


def test_the_code_in_a_package_is_vwl_also_where_another_vwl_is_installed(tmp_path):
    zipfile.ZipFile(io.BytesIO(make_package(project_root(), {}).data)).extractall(tmp_path)
    code = "import vwl, vwl.cli.main as main; from importlib import metadata; print(vwl.__file__, main.__file__, metadata.distribution('vwl').locate_file('vwl'))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    paths = [tmp_path / path for path in done.stdout.split()]  # absolute, or relative to where it ran
    assert paths == [tmp_path / "vwl/__init__.py", tmp_path / "vwl/cli/main.py", tmp_path / "vwl"]


def test_an_installed_vwl_packs_the_same_code_as_a_checkout(project, tmp_path_factory):
    checkout, installed = make_package(project, {}), tmp_path_factory.mktemp("site-packages")
    zipfile.ZipFile(io.BytesIO(checkout.data)).extractall(installed)
    (installed / "pyproject.toml").unlink()
    (installed / "numpy").mkdir()
    (installed / "numpy/a.py").write_text("A = 1")
    assert names(make_package(installed, {})) == names(checkout) - {"pyproject.toml"}


def test_the_pinned_packages_are_what_commands_need_without_ray_and_developers_tools():
    lines = pinned_packages(project_root())
    pinned = {line.partition("==")[0] for line in lines}
    assert {"torch", "torchvision", "timm", "pyarrow", "typer", "optuna"} <= pinned
    assert pinned & {"ray", "pytest", "ruff", "mypy", "hypothesis", "moto"} == set()
    assert all("==" in line for line in lines)


def test_without_a_lock_file_nothing_can_be_pinned(tmp_path):
    with pytest.raises(VwlError, match=r"--packages needs requirements\.lock, which .* does not have; submit from a checkout"):
        pinned_packages(tmp_path)
