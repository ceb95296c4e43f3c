"""How far the stages of a run are."""

from dataclasses import replace

from tests.workflow.runs import changed, delete_stages, run_locally
from vwl.workflow.stages import STAGES
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
    assert stage_status(copied, "walk") == StageStatus("walk", "not started", None, None, None, "")
    copied.write_manifest(replace(copied.manifest("cam"), state="running", seconds=3.5))
    (copied.folder / "cam").delete("done/00000.json")
    line = stage_status(copied, "cam")
    assert (line.state, line.done, line.total, line.seconds) == ("running", 0, 12, 3.5)
    new = changed(copied, "irnet.epochs=7")
    states = [stage_status(new, name).state for name in STAGES]
    assert states == ["done", "running", "done", "done", "outdated", "not started", "outdated", "outdated", "outdated"]
    assert stage_status(new, "masks").note == "settings or inputs have changed since"
