"""Preparing data by a call gives the index and the file that the command writes, and the notes that it prints."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

import vwl
from tests.helpers import tiny_scenes
from vwl.cli.main import app


@pytest.fixture
def labelled(tmp_path) -> Path:
    index = tiny_scenes(tmp_path / "scenes", 5, 1)
    lines = [f"{Path(row.image).name},{';'.join(index.classes[label] for label in row.labels)}" for row in index.rows]
    (tmp_path / "labels.csv").write_text("\n".join(["image,labels", *lines]))
    (tmp_path / "classes.txt").write_text("\n".join(index.classes[1:]))
    return tmp_path


def test_a_folder_by_call_and_by_command_is_the_same_file(labelled):
    masks, classes = labelled / "scenes/masks", labelled / "classes.txt"
    notes: list[str] = []
    out = labelled / "by-call.parquet"
    index = vwl.prepare_folder(
        labelled / "scenes/images", labelled / "labels.csv", masks, val_share=0.3, classes=classes, out=out, on_note=notes.append
    )
    words = ["--images", labelled / "scenes/images", "--labels", labelled / "labels.csv", "--masks", masks, "--val-share", 0.3]
    words += ["--classes", classes, "--out", labelled / "by-command.parquet"]
    done = CliRunner().invoke(app, ["data", "prepare", "folder", *map(str, words)])
    assert done.exit_code == 0, done.output
    assert out.read_bytes() == (labelled / "by-command.parquet").read_bytes()
    assert [line.removeprefix("- ") for line in done.stdout.splitlines() if line.startswith("- ")] == notes != []
    assert vwl.read_index(out).rows == index.rows


def test_scenes_by_call_and_by_command_are_the_same_file(tmp_path):
    vwl.prepare_scenes(tmp_path / "scenes", 3, 1, heights=(64, 80), widths=(72, 96), out=tmp_path / "a.parquet")
    words = ["data", "prepare", "scenes", "--num-train", "3", "--num-val", "1", "--heights", "64", "80", "--widths", "72", "96"]
    done = CliRunner().invoke(app, [*words, "--folder", str(tmp_path / "scenes"), "--out", str(tmp_path / "b.parquet")])
    assert done.exit_code == 0, done.output
    assert (tmp_path / "a.parquet").read_bytes() == (tmp_path / "b.parquet").read_bytes()


def test_notes_are_logged_and_nothing_is_written_where_no_file_is_named(labelled, caplog):
    caplog.set_level("INFO", logger="vwl")
    before = sorted(labelled.iterdir())
    vwl.prepare_folder(labelled / "scenes/images", labelled / "labels.csv")
    assert caplog.messages
    assert {record.name for record in caplog.records} == {"vwl"}
    assert sorted(labelled.iterdir()) == before
