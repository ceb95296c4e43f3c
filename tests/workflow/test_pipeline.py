"""Running stages: what is skipped, what is left out after failures, what the manifests and messages say."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers import tiny_scenes, truncate
from tests.stages import STAGES
from tests.workflow.runs import delete_stages, modification_times, new_run, run_locally, without_remarks
from vwl.cli.main import app
from vwl.config.layout import Layout
from vwl.data.index import make_index
from vwl.engine import local
from vwl.engine.base import Engine, open_engine
from vwl.errors import Interrupted, VwlError
from vwl.report.summary import write_report
from vwl.workflow.pipeline import run_stages
from vwl.workflow.scoring import score_table
from vwl.workflow.stages import SCORED

INFERENCE = [name for name, spec in STAGES.items() if spec.kind != "train"]


def test_finished_stages_are_skipped_with_a_message(copied):
    before = modification_times(copied, "*/*")
    assert run_locally(copied, *STAGES) == [f"{name}: done before, skipped" for name in STAGES]
    assert modification_times(copied, "*/*") == before


def test_the_manifest_of_a_finished_stage(tiny_run):
    for name, spec in STAGES.items():
        manifest = tiny_run.manifest(name)
        assert manifest.state == "done"
        assert manifest.finished >= manifest.started
        assert manifest.images == {"irnet-labels": 8, "masks": 8}.get(name, 8 if spec.kind == "train" else 12)
        assert (manifest.steps is None) == (spec.kind != "train")
        assert (manifest.scores != []) == (name in SCORED)


def test_an_unreadable_image_is_listed_and_left_out_of_later_stages(damaged):
    messages = run_locally(damaged, *STAGES)
    lost = {"train_00002", "val_00001"}
    manifests = {name: damaged.manifest(name) for name in INFERENCE}
    assert all(manifest.state == "done" for manifest in manifests.values())
    # The segmentation model needs nothing of the stages before it, and so meets the images itself.
    assert {name for name in INFERENCE if manifests[name].failed} == {"cam", "segment"}
    for name in ("cam", "segment"):
        assert set(manifests[name].failed) == lost
        assert all("images/" in reason and "truncated" in reason for reason in manifests[name].failed.values())
    assert {name: manifest.images for name, manifest in manifests.items()} == {
        "cam": 12,
        "crf": 10,
        "irnet-labels": 7,
        "walk": 10,
        "masks": 7,
        "segment": 12,
    }
    for name in SCORED:
        assert {score.split: score.images for score in manifests[name].scores} == {"train": 7, "val": 3}
    assert not [path for path in Path(damaged.folder.path).glob("*/*.png") if path.stem in lost]
    for name in ("cam", "segment"):
        (line,) = [line for line in messages if line.startswith(f"{name}: ")]
        assert line.startswith(f"{name}: 2 images failed, e.g. train_00002: ")
        assert line.endswith(f"(all are in {name}/manifest.json)")
    assert {name: set(damaged.failed_images(name)) for name in STAGES if damaged.failed_images(name)} == {"cam": lost, "segment": lost}


def test_a_stage_whose_images_all_fail_is_not_done(copied):
    delete_stages(copied, "cam")
    for row in copied.index.rows:
        truncate(copied.index, row.image_id)
    with pytest.raises(VwlError, match=r"cam: all 12 images failed, e\.g\. train_00000: .*truncated.*; solve this and delete .*/cam"):
        run_locally(copied, "cam")
    assert copied.manifest("cam").state == "running"


def test_the_report_shows_training_images_if_all_val_images_failed(copied):
    delete_stages(copied, "segment")
    for number in range(4):
        truncate(copied.index, f"val_{number:05d}")
    run_locally(copied, "segment")
    names = [path.stem for path in Path(write_report(copied)).glob("*.png")]
    assert sorted(names) == ["all", *(f"train_{number:05d}" for number in range(8))]


def test_an_unreadable_held_out_image_does_not_stop_a_training(tmp_path):
    index = tiny_scenes(tmp_path / "scenes", 4, 3)
    truncate(index, "val_00001")
    run = new_run(tmp_path, index)
    run_locally(run, "classifier")
    scores = run.manifest("classifier").training_scores
    assert scores["val_unreadable"] == 1
    assert 0 < scores["val_map"] <= 1


def test_temporary_files_of_killed_writers_are_deleted_when_a_stage_ends(copied):
    for name in ("masks", "cam"):
        folder = Path(copied.folder.path, name)
        manifest = copied.manifest(name)
        copied.write_manifest(replace(manifest, state="running"))
        next((folder / "done").glob("*.json")).unlink()
        (folder / "done" / ".part-01-00000.json").write_bytes(b"ha")
        (folder / ".part-23-0.png").write_bytes(b"hal")
        run_locally(copied, name)
        assert list(folder.rglob(".part-*")) == []


def test_the_failure_of_a_stage_leaves_it_running_with_the_seconds_spent(tmp_path):
    index = tiny_scenes(tmp_path / "scenes", 4, 0)
    for row in index.rows:
        truncate(index, row.image_id)
    run = new_run(tmp_path, index)
    spent = [0.0]
    for _ in range(2):
        with pytest.raises(VwlError, match="truncated"):
            run_locally(run, "classifier")
        manifest = run.manifest("classifier")
        assert manifest.state == "running"
        spent.append(manifest.seconds)
    assert spent[0] < spent[1] < spent[2]


def test_a_stage_without_its_input_names_the_command(tmp_path):
    run = new_run(tmp_path, tiny_scenes(tmp_path / "scenes", 2, 0))
    with pytest.raises(VwlError, match="crf needs the cam stage"):
        run_locally(run, "crf")
    assert run.manifest("crf") is None


def test_an_index_without_masks_runs_to_the_end_without_scores(tmp_path):
    scenes = tiny_scenes(tmp_path / "scenes", 5, 2)
    bare = make_index([replace(row, mask=None) for row in scenes.rows], scenes.classes, scenes.root, "no masks")
    run = new_run(tmp_path, bare)
    assert run_locally(run, *STAGES) == []
    assert all(run.is_done(name) for name in STAGES)
    assert all(run.manifest(name).scores == [] for name in SCORED)
    assert score_table(run) == []
    assert run.manifest("segment").images == 5
    assert len(list(Path(write_report(run)).glob("train_*.png"))) == 5
    shown = CliRunner().invoke(app, ["evaluate", "--run", str(run.folder)])
    assert (shown.exit_code, shown.stdout) == (1, "")
    assert shown.stderr == (
        f"error: nothing was scored: {run.index_path} has no ground truth for labelled images of train or val, and training needs none; "
        "to have scores, make the index again with --masks FOLDER and use another --run folder\n"
    )


def test_an_index_without_held_out_images_is_scored_on_train(tmp_path):
    run = new_run(tmp_path, tiny_scenes(tmp_path / "scenes", 5, 0))
    assert run_locally(run, *STAGES) == []
    assert [(line.stage, line.split, line.images) for line in score_table(run)] == [(name, "train", 5) for name in SCORED]
    assert run.manifest("classifier").training_scores == {}
    assert len(list(Path(write_report(run)).glob("train_*.png"))) == 5


def test_the_local_engine_is_this_process():
    with open_engine("local") as engine:
        assert engine == Engine(local, local)


def test_workers_that_do_not_divide_a_batch_are_refused_before_the_first_stage(tmp_path):
    run = new_run(tmp_path, tiny_scenes(tmp_path / "scenes"), "segmenter.batch_size=3")
    with pytest.raises(VwlError, match="batch of 3 does not divide among 2 workers"):
        run_stages(run, list(STAGES), Engine(local, local), Layout(workers=2), lambda progress: None, lambda line: None)
    assert run.manifest("classifier") is None


def test_fit_workers_gives_a_training_the_workers_that_divide_its_batch(tmp_path):
    run = new_run(tmp_path, tiny_scenes(tmp_path / "scenes"), "classifier.epochs=1", "classifier.batch_size=3")
    messages = []
    run_stages(run, ["classifier"], Engine(local, local), Layout(workers=2), lambda progress: None, messages.append, fit_workers=True)
    assert without_remarks(messages) == ["classifier: its batch is divided among 1 of the 2 workers"]
    assert run.is_done("classifier")


def test_strict_stops_the_stage_at_an_unreadable_image(tmp_path):
    index = tiny_scenes(tmp_path / "scenes", 4, 0)
    run = new_run(tmp_path, index)
    run_locally(run, "classifier")
    truncate(index, index.rows[1].image_id)
    with pytest.raises(VwlError, match=rf"^image {index.rows[1].image_id}: .*; fix it, or leave --strict out"):
        run_stages(run, ["cam"], Engine(local, local), Layout(), lambda progress: None, lambda line: None, strict=True)
    assert not run.is_done("cam")
    run_locally(run, "cam")
    assert run.manifest("cam").failed.keys() == {index.rows[1].image_id}


class Stopped:
    """Runs some shards or training steps, and is then interrupted."""

    def __init__(self, shards: int, error: BaseException) -> None:
        self.shards, self.error = shards, error

    def split_processes(self) -> None:
        return None

    def run_shards(self, spec, shards, images_done, on_progress, max_processes=None):
        local.run_shards(spec, shards[: self.shards], images_done, on_progress)
        raise self.error


def in_c() -> SystemError:
    """What C code raises that does not know Ctrl-C."""
    error = SystemError("<function unpickle> returned a result with an exception set")
    error.__cause__ = KeyboardInterrupt()
    return error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), in_c()])
@pytest.mark.parametrize(
    ("stages", "shards", "raised", "message"),
    [
        (["masks"], 0, KeyboardInterrupt, "masks stopped; nothing was finished yet"),
        (["masks"], 1, Interrupted, "masks stopped"),
        (["walk", "masks"], 0, Interrupted, "masks stopped"),
    ],
)
def test_an_interrupt_says_whether_anything_was_finished(copied, stages, shards, raised, message, error):
    delete_stages(copied, "masks")
    with pytest.raises(raised) as caught:
        run_stages(copied, stages, Engine(local, Stopped(shards, error)), Layout(), lambda progress: None, lambda line: None)
    assert str(caught.value) == message
