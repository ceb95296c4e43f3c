"""`vwl seeds`: what is imported is listed, and the exit code says whether files failed."""

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests import seeds
from tests.helpers import copy_run
from vwl.cli.main import app
from vwl.storage.score_maps import MapReader
from vwl.workflow.run_folder import Run


def vwl(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def run(tiny_run, tmp_path) -> Run:
    return copy_run(tiny_run, tmp_path)


@pytest.fixture
def folder(run, tmp_path) -> Path:
    """The run's own maps, as IRN writes them."""
    (tmp_path / "maps").mkdir()
    maps = MapReader(run.stage_folder("cam"))
    for image_id in maps.locations:
        seeds.irn(maps.read(image_id), tmp_path / "maps")
    return tmp_path / "maps"


def test_the_summary_as_json(run, folder):
    result = vwl("seeds", "import", folder, "--run", run.folder, "--overwrite", "--background", "one-minus-max", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout) == {
        "format": "irn", "background": "one-minus-max", "imported": 12, "missing": [], "failed": {}, "surplus": [], "left_out": 0, "example": "",
    }  # fmt: skip


def test_missing_images_do_not_fail_a_command_and_failed_files_do(run, folder):
    (folder / "train_00003.npy").unlink()
    result = vwl("seeds", "import", folder, "--run", run.folder, "--overwrite")
    assert result.exit_code == 0, result.output
    assert "without a file, left out by later stages: 1: train_00003\n" in result.stdout
    assert vwl("infer", "crf", "--run", run.folder, "--backend", "local").exit_code == 0
    (folder / "train_00004.npy").write_bytes(b"")
    result = vwl("seeds", "import", folder, "--run", run.folder, "--overwrite")
    assert result.exit_code == 1
    assert "failed: 1:\n  train_00004: train_00004.npy is neither .npy" in result.stdout
    assert f"1 image failed, see {run.folder}/cam/manifest.json" in result.stderr


def test_a_run_says_that_its_maps_were_imported(run, folder):
    vwl("seeds", "import", folder, "--run", run.folder, "--overwrite")
    lines = {line["stage"]: line for line in json.loads(vwl("status", "--run", run.folder, "--json").stdout)}
    assert lines["cam"]["note"] == f"imported from {folder} (irn)"
    assert {lines[stage]["state"] for stage in ("crf", "irnet-labels", "walk")} == {"outdated"}


def test_files_in_the_folder_that_the_import_replaces_are_kept(run, folder):
    folder.rename(Path(run.folder.path, "cam/maps"))
    result = vwl("seeds", "import", f"{run.folder}/cam/maps", "--run", run.folder, "--overwrite")
    assert (result.exit_code, "move the files elsewhere" in result.stderr) == (1, True)
    assert len(list(Path(run.folder.path, "cam/maps").iterdir())) == 12


def test_what_is_exported_is_imported_again(run, tmp_path):
    assert vwl("seeds", "export", "--run", run.folder, "--stage", "walk", "--out", tmp_path / "out").exit_code == 0
    assert len(list((tmp_path / "out").glob("*.npy"))) == 12
    assert vwl("seeds", "import", tmp_path / "out", "--run", run.folder, "--overwrite").exit_code == 0


def test_a_stage_without_score_maps_is_refused(run, tmp_path):
    result = vwl("seeds", "export", "--run", run.folder, "--stage", "crf", "--out", tmp_path / "out")
    assert (result.exit_code, "'crf' is not one of 'cam', 'walk'" in result.stderr) == (2, True)


def test_a_damaged_import_is_repaired_by_the_same_command(run, folder):
    vwl("seeds", "import", folder, "--run", run.folder, "--overwrite")
    parts = sorted(Path(run.folder.path, "cam").glob("part-*.parquet"))
    before = parts[0].read_bytes()
    parts[0].write_bytes(before[:-7])
    refused = vwl("infer", "crf", "--run", run.folder, "--backend", "local")
    assert (refused.exit_code, "vwl seeds import" in refused.stderr) == (1, True)
    assert vwl("seeds", "import", folder, "--run", run.folder).exit_code == 0
    assert parts[0].read_bytes() == before
    assert vwl("infer", "crf", "--run", run.folder, "--backend", "local").exit_code == 0
