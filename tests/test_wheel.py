"""The wheel: one top-level name, every file, and commands that work outside the checkout.

The wheel is installed without its dependencies: downloading them (2 GB) is what `make setup` has just done. The new environment sees the packages
of the environment that runs the tests through a .pth file. Such a file adds a folder and does not run the .pth files in it, so the
checkout, which is installed there in editable form, stays invisible.
"""

import os
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from email import message_from_string
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.conftest import TINY
from vwl.model_file.content import encode_model, write_model
from vwl.workflow.model_export import describe

ROOT = Path(__file__).parents[1]
SOURCES = {
    f"{name}/{path.relative_to(folder).as_posix()}"
    for name, folder in (("vwl", ROOT / "vwl"), ("vwl/cli", ROOT / "cli"), ("vwl/tune_spaces", ROOT / "tune_spaces"))
    for path in folder.rglob("*")
    if path.is_file() and "__pycache__" not in path.parts
}
"""Every file that belongs into the wheel."""
WITHOUT_RAY = """
import sys
sys.modules["ray"] = None  # makes `import ray` fail
import vwl
assert vwl.__file__.startswith({site!r}), vwl.__file__
for prediction in vwl.load_model("copy.safetensors").predict({images!r}):
    prediction.save("api")
from vwl.cli.main import app
app(["predict", *{images!r}, "--model", "copy.safetensors", "--out", "command"], standalone_mode=False)
"""
ALL_HELP = """
import vwl
from typer.main import get_command
from typer.testing import CliRunner
from vwl.cli.main import COMMANDS, app, _imported

assert vwl.__file__.startswith({site!r}), vwl.__file__
def paths(path, command):
    yield path
    for name, inner in getattr(command, "commands", {{}}).items():
        yield from paths([*path, name], inner)
every = [[], *(path for name, command in COMMANDS.items() for path in paths([name], _imported(command)))]
for path in every:
    result = CliRunner().invoke(app, [*path, "--help"])
    assert result.exit_code == 0 and "Usage" in result.output, (path, result.output, result.exception)
print(len(every))
"""


def build(project: Path, target: str, folder: Path) -> Path:
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", target, "-d", str(folder)], cwd=project, check=True, capture_output=True
    )
    (built,) = folder.iterdir()
    return built


def files_in(wheel: Path) -> set[str]:
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    return build(ROOT, "wheel", tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """A new virtual environment with the wheel, and the packages of this one behind it."""
    folder = tmp_path_factory.mktemp("installed") / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python, uv = str(folder / "bin/python"), str(Path(sys.executable).parent / "uv")
    subprocess.run([uv, "pip", "install", "--quiet", "--offline", "--no-deps", "--python", python, str(wheel)], check=True)
    site_packages(folder).joinpath("packages_of_the_tests.pth").write_text(f"{sysconfig.get_path('purelib')}\n", encoding="utf-8")
    return folder


def site_packages(environment: Path) -> Path:
    (folder,) = environment.glob("lib/python3*/site-packages")
    return folder


def in_environment(environment: Path, *command: str, cwd: Path) -> str:
    """Run a program of the environment in another folder and return what it printed."""
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = str(environment / "bin" / command[0])
    done = subprocess.run([program, *command[1:]], cwd=cwd, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_wheel_has_one_top_level_name_and_every_file(wheel):
    names = files_in(wheel)
    code = {name for name in names if ".dist-info/" not in name}
    assert code == SOURCES
    assert {name.split("/")[0] for name in names - code} == {f"{'-'.join(wheel.name.split('-')[:2])}.dist-info"}
    assert {"vwl/py.typed", "vwl/cli/main.py", "vwl/tune_spaces/table4.yaml", "vwl/config/recipes/demo.yaml"} <= code


def test_a_wheel_built_from_the_source_archive_has_the_same_files(wheel, tmp_path):
    archive = build(ROOT, "sdist", tmp_path / "sdist")
    with tarfile.open(archive) as packed:
        packed.extractall(tmp_path / "unpacked")
    (project,) = (tmp_path / "unpacked").iterdir()
    assert files_in(build(project, "wheel", tmp_path / "wheel")) == files_in(wheel)


def test_the_only_package_that_needs_a_compiler_is_in_an_extra(wheel):
    with zipfile.ZipFile(wheel) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith(".dist-info/METADATA"))
        metadata = message_from_string(archive.read(name).decode())
    requirements = [Requirement(line) for line in metadata.get_all("Requires-Dist")]
    (compiled,) = (requirement for requirement in requirements if requirement.name == "pydensecrf2")
    assert str(compiled.marker) == 'extra == "pydensecrf"'


def test_the_installation_adds_one_importable_name(environment):
    added = {path.name for path in site_packages(environment).iterdir() if path.suffix not in {".pth", ".dist-info"}}
    assert added - {"_virtualenv.py", "__pycache__"} == {"vwl"}


def test_the_help_of_every_command_works_in_another_folder(environment, tmp_path):
    code = ALL_HELP.format(site=str(site_packages(environment)))
    assert int(in_environment(environment, "python", "-c", code, cwd=tmp_path)) >= 30


def test_the_first_stages_of_the_demo_work_in_another_folder(environment, tmp_path):
    def vwl(*arguments: str) -> str:
        return in_environment(environment, "vwl", *arguments, cwd=tmp_path)

    tiny = [part for key in TINY if key.startswith(("classifier.", "cam.")) and "weights" not in key for part in ("-o", key)]
    vwl("data", "prepare", "scenes", "--folder", "scenes", "--out", "index.parquet", "--num-train", "8", "--num-val", "4")
    vwl("train", "classifier", "--data", "index.parquet", "--recipe", "demo", "--run", "run", "--backend", "local", *tiny)
    vwl("infer", "cam", "--run", "run", "--backend", "local")
    assert list((tmp_path / "run/cam").glob("part-*.parquet"))


def test_a_model_file_predicts_in_another_folder_without_ray(environment, tiny_run, tmp_path, monkeypatch):
    masks = sorted(Path(f"{tiny_run.folder}/segment").glob("*.png"))
    rows = {row.image_id: row for row in tiny_run.index.rows}
    images = [Path(shutil.copy(f"{tiny_run.index.root.path}/{rows[mask.stem].image}", tmp_path)).name for mask in masks]
    write_model(tmp_path / "copy.safetensors", encode_model(*describe(tiny_run)))
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # as the stages have: results depend on the number of threads in the last bit
    code = WITHOUT_RAY.format(site=str(site_packages(environment)), images=images)
    in_environment(environment, "python", "-c", code, cwd=tmp_path)
    assert len(masks) >= 4
    for mask in masks:
        for folder in ("api", "command"):
            assert (tmp_path / folder / f"{mask.stem}_mask.png").read_bytes() == mask.read_bytes()
