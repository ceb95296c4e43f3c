"""The pipeline: what is skipped, what is left out, at which threshold, and what is said and written about it."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from tests.conftest import TINY
from tests.helpers import copy_run, tiny_scenes, truncate
from vwl.cli.main import app
from vwl.config.files import load_recipe, overridden
from vwl.config.layout import Layout
from vwl.data.index import Index, make_index, write_index
from vwl.engine import local
from vwl.errors import VwlError
from vwl.maps.cam import argmax_with_background, upsample
from vwl.maps.confusion import confusion_matrix
from vwl.report.summary import write_report
from vwl.storage.masks import decode_mask
from vwl.storage.score_maps import MapReader
from vwl.workflow.pipeline import (
    BACKGROUND,
    SCORED,
    Engine,
    failed_images,
    open_engine,
    progress_of,
    run_stages,
    stage_rows,
    stage_table,
    stored_score,
)
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES, training_rows

INFERENCE = [name for name, spec in STAGES.items() if spec.kind != "train"]
OTSU = "auto (Otsu, no ground truth)"


def do(run: Run, *names: str) -> list[str]:
    """Do stages in this process and return what was said."""
    said: list[str] = []
    run_stages(run, names, Engine(local, local), Layout(), lambda *_: None, said.append)
    return said


def new_run(folder: Path, index: Index, *overrides: str) -> Run:
    write_index(index, folder / "index.parquet")
    return Run.start(str(folder / "run"), load_recipe("demo", [*TINY, *overrides]), str(folder / "index.parquet"))


def changed(run: Run, *overrides: str) -> Run:
    return Run.start(str(run.folder), overridden(run.recipe, overrides), run.index_path, overwrite=True)


def forget(run: Run, *names: str) -> None:
    for name in names:
        shutil.rmtree(Path(run.folder.path, name))


def files(run: Run, *patterns: str) -> dict[Path, int]:
    """When each file was last written."""
    return {path: path.stat().st_mtime_ns for pattern in patterns for path in Path(run.folder.path).glob(pattern)}


@pytest.fixture
def copied(tiny_run, tmp_path) -> Run:
    return copy_run(tiny_run, tmp_path)


def test_stages_that_are_done_are_skipped_and_said_to_be(copied):
    before = files(copied, "*/*")
    assert do(copied, *STAGES) == [f"{name}: done before, skipped" for name in STAGES]
    assert files(copied, "*/*") == before


def test_a_finished_stage_tells_what_it_did(tiny_run):
    for name, spec in STAGES.items():
        manifest = tiny_run.manifest(name)
        assert manifest["state"] == "done"
        assert manifest["finished"] >= manifest["started"]
        assert manifest["images"] == {"irnet-labels": 8, "masks": 8}.get(name, 8 if spec.kind == "train" else 12)
        assert ("failed" in manifest) == ("steps" not in manifest) == (spec.kind != "train")
        assert ("scores" in manifest) == (name in SCORED)


@pytest.fixture
def damaged(copied) -> Run:
    """A run whose inference is to be done anew after two photographs were damaged."""
    forget(copied, *INFERENCE)
    truncate(copied.index, "train_00002")
    truncate(copied.index, "val_00001")
    return copied


def test_a_photograph_that_cannot_be_read_is_listed_and_left_out_of_the_stages_below(damaged):
    said = do(damaged, *STAGES)
    lost = {"train_00002", "val_00001"}
    manifests = {name: damaged.manifest(name) for name in INFERENCE}
    assert all(manifest["state"] == "done" for manifest in manifests.values())
    # The segmentation model needs nothing of the stages before it, and so meets the photographs itself.
    assert {name for name in INFERENCE if manifests[name]["failed"]} == {"cam", "segment"}
    for name in ("cam", "segment"):
        assert set(manifests[name]["failed"]) == lost
        assert all("images/" in reason and "truncated" in reason for reason in manifests[name]["failed"].values())
    assert {name: manifest["images"] for name, manifest in manifests.items()} == {
        "cam": 12,
        "crf": 10,
        "irnet-labels": 7,
        "walk": 10,
        "masks": 7,
        "segment": 12,
    }
    for name in SCORED:
        assert {score["split"]: score["images"] for score in manifests[name]["scores"]} == {"train": 7, "val": 3}
    assert not [path for path in Path(damaged.folder.path).glob("*/*.png") if path.stem in lost]
    for name in ("cam", "segment"):
        (line,) = [line for line in said if line.startswith(f"{name}: ")]
        assert line.startswith(f"{name}: 2 images failed, e.g. train_00002: ")
        assert line.endswith(f"(all are in {name}/manifest.json)")
    assert {name: set(images) for name, images in failed_images(damaged, list(STAGES)).items()} == {"cam": lost, "segment": lost}
    assert failed_images(damaged, ["crf", "walk"]) == {}


def test_the_progress_counts_only_photographs_that_are_left(damaged):
    do(damaged, "cam", "crf", "irnet-labels")
    assert progress_of(damaged, "cam")["note"] == "2 images failed"
    assert [progress_of(damaged, "crf")[key] for key in ("state", "done", "total", "note")] == ["done", 10, 10, ""]
    assert [row.image_id for row in stage_rows(damaged, "masks")] == [f"train_{n:05d}" for n in range(8) if n != 2]


def test_a_stage_of_which_every_photograph_fails_is_not_done(copied):
    forget(copied, "cam")
    for row in copied.index.rows:
        truncate(copied.index, row.image_id)
    with pytest.raises(VwlError, match=r"cam: all 12 images failed, e\.g\. train_00000: .*truncated.*; put that right and delete .*/cam"):
        do(copied, "cam")
    assert copied.manifest("cam")["state"] == "running"


def test_pictures_are_made_where_every_held_out_photograph_failed(copied):
    forget(copied, "segment")
    for number in range(4):
        truncate(copied.index, f"val_{number:05d}")
    do(copied, "segment")
    names = [path.stem for path in Path(write_report(copied)).glob("*.png")]
    assert sorted(names) == ["all", *(f"train_{number:05d}" for number in range(8))]


def test_an_unreadable_held_out_photograph_does_not_stop_a_training(tmp_path):
    index = tiny_scenes(tmp_path / "scenes", 4, 3)
    truncate(index, "val_00001")
    run = new_run(tmp_path, index)
    do(run, "classifier")
    scores = run.manifest("classifier")["training_scores"]
    assert scores["val_unreadable"] == 1
    assert 0 < scores["val_map"] <= 1


def test_what_writers_that_were_killed_have_left_is_gone_when_a_stage_ends(copied):
    for name in ("masks", "cam"):
        folder = Path(copied.folder.path, name)
        manifest = copied.manifest(name)
        copied.write_manifest(name, manifest | {"state": "running"})
        next((folder / "done").glob("*.json")).unlink()
        (folder / "done" / ".part-01-00000.json").write_bytes(b"ha")
        (folder / ".part-23-0.png").write_bytes(b"hal")
        do(copied, name)
        assert list(folder.rglob(".part-*")) == []


def test_the_failure_of_a_stage_leaves_it_running_with_the_seconds_spent(tmp_path):
    index = tiny_scenes(tmp_path / "scenes", 4, 0)
    for row in index.rows:
        truncate(index, row.image_id)
    run = new_run(tmp_path, index)
    spent = [0.0]
    for _ in range(2):
        with pytest.raises(VwlError, match="truncated"):
            do(run, "classifier")
        manifest = run.manifest("classifier")
        assert manifest["state"] == "running"
        spent.append(manifest["seconds"])
    assert spent[0] < spent[1] < spent[2]


def test_a_stage_without_its_input_names_the_command(tmp_path):
    run = new_run(tmp_path, tiny_scenes(tmp_path / "scenes", 2, 0))
    with pytest.raises(VwlError, match="crf needs the cam stage"):
        do(run, "crf")
    assert run.manifest("crf") is None


def test_a_threshold_without_ground_truth_is_used_in_the_stages_below(tiny_run):
    cam, crf, walk, masks = (tiny_run.manifest(name) for name in ("cam", "crf", "walk", "masks"))
    assert {stage["threshold_chosen"] for stage in (cam, crf, walk, masks)} == {OTSU}
    assert 0 < cam["threshold"] == crf["threshold"] < 1
    assert 0 < walk["threshold"] == masks["threshold"] < 1
    assert "threshold" not in tiny_run.manifest("irnet-labels")
    assert [score["threshold"] for score in cam["scores"]] == [cam["threshold"]] * 2


def test_a_new_threshold_is_scored_without_doing_the_maps_again(copied):
    before = files(copied, "cam/*.parquet", "cam/done/*", "walk/*.parquet")
    new = changed(copied, "cam.background_threshold=0.35", "walk.background_threshold=0.4")
    # Only the stage below is asked for: the maps' own decision is brought up to date before.
    assert do(new, "crf") == [f"{name}: scored anew, its threshold or the evaluated classes have changed" for name in ("cam", "walk")]
    assert files(new, "cam/*.parquet", "cam/done/*", "walk/*.parquet") == before
    for name, threshold in (("cam", 0.35), ("walk", 0.4), ("crf", 0.35)):
        manifest = new.manifest(name)
        assert (manifest["threshold"], manifest["threshold_chosen"]) == (threshold, "recipe")
        for score in manifest["scores"]:
            full = stored_score(new, name, score["split"])
            assert score["threshold"] == full["threshold"] == threshold
            if name != "crf":
                assert score["miou"] == dict(full["curve"])[threshold]
    do(new, "masks")
    assert (new.manifest("masks")["threshold"], new.manifest("masks")["threshold_chosen"]) == (0.4, "recipe")


def test_thresholds_by_class_enter_the_scores_the_masks_and_the_crf(copied, monkeypatch):
    monkeypatch.setattr("vwl.evaluation.scoring.FEW_PHOTOGRAPHS", 1)
    assert do(copied, "cam") == ["cam: done before, skipped"]
    for stage, below in (("cam", "crf"), ("walk", "masks")):
        for threshold in ("0.3", "auto-by-class"):
            run = changed(copied, f"{stage}.background_threshold={threshold}")
            do(run, stage, below)
        above, manifest = run.manifest(stage), run.manifest(below)
        own = above["class_thresholds"]
        assert set(own) == {run.index.classes[label] for row in training_rows(run.index) for label in row.labels}
        assert above["threshold_chosen"] == "auto-by-class (Otsu, no ground truth)"
        assert {key: manifest[key] for key in BACKGROUND} == {key: above[key] for key in BACKGROUND}
        reader = MapReader(run.stage_folder(stage))
        matrix = np.zeros((len(run.index.classes),) * 2, np.int64)
        for row in training_rows(run.index):
            found = reader.read(row.image_id)
            factors = np.array([above["threshold"] / own[run.index.classes[label]] for label in row.labels], np.float32)
            values = upsample(found.values.astype(np.float32) * factors[:, None, None], found.height, found.width)
            expected = argmax_with_background(values, row.labels, above["threshold"])
            if stage == "walk":
                np.testing.assert_array_equal(decode_mask(run.stage_folder("masks").read(f"{row.image_id}.png"), ""), expected)
            matrix += confusion_matrix(run.index.read_mask(row), expected, len(run.index.classes))
        assert stored_score(run, stage, "train")["confusion"] == matrix.tolist()


def test_a_constant_background_of_the_crf_is_the_recipes(copied):
    new = changed(copied, "crf.background=0.6")
    assert do(new, "crf") == []
    assert (new.manifest("crf")["threshold"], new.manifest("crf")["threshold_chosen"]) == (0.6, "recipe")


def test_other_evaluated_classes_are_scored_without_doing_a_stage_again(copied):
    name = copied.index.classes[2]
    results = files(copied, "*/*.parquet", "*/*.pt", "*/[tv]*.png")
    new = changed(copied, f"evaluation.classes=[{name}]")
    said = do(new, *STAGES)
    assert said[:4] == [f"{stage}: scored anew, its threshold or the evaluated classes have changed" for stage in SCORED]
    assert said[4:] == [f"{stage}: done before, skipped" for stage in STAGES]
    assert files(new, "*/*.parquet", "*/*.pt", "*/[tv]*.png") == results
    for line in stage_table(new):
        full = stored_score(new, line["stage"], line["split"])
        confusion = np.array(full["confusion"])
        iou = np.diag(confusion) / (confusion.sum(axis=0) + confusion.sum(axis=1) - np.diag(confusion))
        assert line["miou"] == full["miou"] == pytest.approx(100 * iou[[0, 2]].mean(), abs=0.006)
    assert do(new, *STAGES) == [f"{stage}: done before, skipped" for stage in STAGES]
    assert new.manifest("cam")["seconds"] == copied.manifest("cam")["seconds"]


def test_the_table_has_a_line_for_each_scored_stage_and_split(tiny_run):
    table = stage_table(tiny_run)
    assert [(line["stage"], line["split"]) for line in table] == [(name, split) for name in SCORED for split in ("train", "val")]
    for line in table:
        full = stored_score(tiny_run, line["stage"], line["split"])
        assert line == {key: full[key] for key in line if key != "seconds"} | {"seconds": tiny_run.manifest(line["stage"])["seconds"]}
        assert line["images"] == {"train": 8, "val": 4}[line["split"]]
        assert (line["best_miou_with_ground_truth"] is None) == (line["stage"] in {"crf", "segment"})


def test_a_score_that_is_not_there_is_answered_with_those_that_are(tiny_run):
    with pytest.raises(VwlError, match=r"has no score of masks on val; it has cam on train, cam on val, crf on train"):
        stored_score(tiny_run, "masks", "val")


def test_the_progress_of_stages_that_are_done(tiny_run):
    for name, spec in STAGES.items():
        line = progress_of(tiny_run, name)
        assert (line["stage"], line["state"]) == (name, "done")
        assert line["done"] == line["total"] > 0
        assert line["seconds"] == tiny_run.manifest(name)["seconds"]
        assert line["note"].startswith("loss ") == (spec.kind == "train")


def test_the_progress_of_stages_that_were_not_begun_cut_off_or_outdated(copied):
    forget(copied, "walk")
    assert progress_of(copied, "walk") == {
        "stage": "walk",
        "state": "not begun",
        "done": None,
        "total": None,
        "seconds": None,
        "note": "",
    }
    copied.write_manifest("cam", copied.manifest("cam") | {"state": "running", "seconds": 3.5})
    (copied.folder / "cam").delete("done/00000.json")
    line = progress_of(copied, "cam")
    assert (line["state"], line["done"], line["total"], line["seconds"]) == ("running", 0, 12, 3.5)
    new = changed(copied, "irnet.epochs=7")
    states = [progress_of(new, name)["state"] for name in STAGES]
    assert states == ["done", "running", "done", "done", "outdated", "not begun", "outdated", "outdated", "outdated"]
    assert progress_of(new, "masks")["note"] == "settings or inputs have changed since"


def test_an_index_without_masks_runs_through_and_nothing_is_scored(tmp_path):
    scenes = tiny_scenes(tmp_path / "scenes", 5, 2)
    bare = make_index([replace(row, mask=None) for row in scenes.rows], scenes.classes, scenes.root, "no masks")
    run = new_run(tmp_path, bare)
    assert do(run, *STAGES) == []
    assert all(run.is_done(name) for name in STAGES)
    assert all(run.manifest(name)["scores"] == [] for name in SCORED)
    assert stage_table(run) == []
    assert run.manifest("segment")["images"] == 5
    assert len(list(Path(write_report(run)).glob("train_*.png"))) == 5
    shown = CliRunner().invoke(app, ["evaluate", "--run", str(run.folder)])
    assert (shown.exit_code, shown.stdout) == (0, "")
    assert "nothing was scored" in shown.stderr


def test_an_index_without_held_out_photographs_is_scored_on_train(tmp_path):
    run = new_run(tmp_path, tiny_scenes(tmp_path / "scenes", 5, 0))
    assert do(run, *STAGES) == []
    assert [(line["stage"], line["split"], line["images"]) for line in stage_table(run)] == [(name, "train", 5) for name in SCORED]
    assert run.manifest("classifier")["training_scores"] == {}
    assert len(list(Path(write_report(run)).glob("train_*.png"))) == 5


def test_the_local_engine_is_this_process():
    with open_engine("local") as engine:
        assert engine == Engine(local, local)


def test_a_batch_that_the_workers_cannot_share_is_refused_before_the_first_stage(tmp_path):
    run = new_run(tmp_path, tiny_scenes(tmp_path / "scenes"), "segmenter.batch_size=3")
    with pytest.raises(VwlError, match="batch of 3 cannot be shared by 2 workers"):
        run_stages(run, list(STAGES), Engine(local, local), Layout(workers=2), lambda *_: None, lambda line: None)
    assert run.manifest("classifier") is None


def test_each_training_can_have_the_workers_that_share_its_batch(tmp_path):
    run = new_run(tmp_path, tiny_scenes(tmp_path / "scenes"), "classifier.epochs=1", "classifier.batch_size=3")
    said = []
    run_stages(run, ["classifier"], Engine(local, local), Layout(workers=2), lambda *_: None, said.append, fit_workers=True)
    assert said == ["classifier: its batch is shared by 1 of the 2 workers"]
    assert run.is_done("classifier")


def test_with_strict_a_photograph_that_cannot_be_read_stops_the_stage(tmp_path):
    index = tiny_scenes(tmp_path / "scenes", 4, 0)
    run = new_run(tmp_path, index)
    do(run, "classifier")
    truncate(index, index.rows[1].image_id)
    with pytest.raises(VwlError, match=rf"^image {index.rows[1].image_id}: .*; put that right, or leave --strict out"):
        run_stages(run, ["cam"], Engine(local, local), Layout(), lambda *_: None, lambda line: None, strict=True)
    assert not run.is_done("cam")
    do(run, "cam")
    assert run.manifest("cam")["failed"].keys() == {index.rows[1].image_id}
