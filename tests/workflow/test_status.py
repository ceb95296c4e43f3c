"""How far the stages of a run are."""

import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.ray_cluster import VWL
from tests.stages import STAGES
from tests.workflow.runs import changed, delete_stages, run_locally
from vwl.workflow.run_folder import Run
from vwl.workflow.status import StageStatus, stage_status


def test_the_status_counts_only_images_that_did_not_fail_before(damaged):
    run_locally(damaged, "cam", "crf", "irnet-labels")
    assert stage_status(damaged, "cam").note == "2 images failed"
    crf = stage_status(damaged, "crf")
    assert (crf.state, crf.done, crf.total, crf.note) == ("done", 10, 10, "")
    assert [row.image_id for row in damaged.stage_rows("masks")] == [f"train_{n:05d}" for n in range(8) if n != 2]


def test_the_status_of_finished_stages(tiny_run):
    for name, spec in STAGES.items():
        line = stage_status(tiny_run, name)
        assert (line.stage, line.state) == (name, "done")
        assert line.done == line.total > 0
        assert line.seconds == tiny_run.manifest(name).seconds
        assert line.note.startswith("loss ") == (spec.kind == "train")


def test_the_status_of_stages_not_started_interrupted_or_outdated(copied):
    delete_stages(copied, "walk")
    assert stage_status(copied, "walk") == StageStatus("walk", "not started")
    copied.write_manifest(replace(copied.manifest("cam"), state="running", seconds=3.5))
    (copied.folder / "cam").delete("done/00000.json")
    line = stage_status(copied, "cam")
    assert (line.state, line.done, line.total, line.seconds) == ("interrupted", 0, 12, 3.5)
    new = changed(copied, "irnet.epochs=7")
    states = [stage_status(new, name).state for name in STAGES]
    assert states == ["done", "interrupted", "done", "done", "outdated", "not started", "outdated", "outdated", "outdated"]
    assert stage_status(new, "masks").note == "settings or inputs have changed since"


@contextmanager
def endless_training(run: Run) -> Iterator[subprocess.Popen]:
    """Run a command that trains the segmenter until it is killed, from its first step on."""
    command = [
        *VWL,
        "train",
        "segmenter",
        "--run",
        str(run.folder),
        "-o",
        "segmenter.iterations=1000000",
        "--overwrite",
        "--backend",
        "local",
    ]
    process = subprocess.Popen(command, cwd=Path(__file__).parents[2], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert any(line.startswith("segmenter") for line in process.stderr)
        yield process
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def test_a_stage_runs_while_a_process_holds_its_lock_and_is_interrupted_when_that_is_killed(copied):
    with endless_training(copied) as process:
        run = Run.open(str(copied.folder))
        line = stage_status(run, "segmenter")
        assert line.state == "running"
        assert line.seconds > 0
        assert stage_status(run, "segmenter").seconds >= line.seconds
        assert stage_status(run, "segment").state == "outdated"
        process.send_signal(signal.SIGKILL)
        process.wait()
        killed = stage_status(run, "segmenter")
        assert (killed.state, killed.seconds) == ("interrupted", 0.0)
        assert killed.note.endswith("run the same command again to resume")


def test_a_stage_whose_files_are_missing_is_incomplete(copied):
    path = Path(copied.folder.path, "masks/train_00003.png")
    path.unlink()
    line = stage_status(copied, "masks")
    assert (line.state, line.note) == ("incomplete", f"{path} is missing; run the same command again")
    assert (line.done, line.total) == (0, 8)  # images of whole shards


@pytest.mark.parametrize("line", [b"{", b"[]", b'{"loss": 1}', b'{"loss": "x", "step": 1, "num_steps": 2}', b"\xff"])
def test_damaged_lines_of_the_metrics_are_passed_over(copied, line):
    before = stage_status(copied, "classifier")
    with Path(copied.folder.path, "classifier/metrics.jsonl").open("ab") as file:
        file.write(line + b"\n")
    assert stage_status(copied, "classifier") == before


def test_where_nothing_can_be_locked_a_stage_is_said_to_run_or_to_be_interrupted(copied, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    copied.start_stage("cam")
    (copied.folder / "").write(".cam.lock", b"")
    monkeypatch.setattr("fcntl.flock", flock)
    line = stage_status(copied, "cam")
    assert (line.state, line.note) == ("running", "or interrupted: this storage has no locks")
