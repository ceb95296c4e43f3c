"""Thresholds and scores of finished stages, which change without running a stage again."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.stages import STAGES
from tests.workflow.runs import OTSU, changed, delete_stages, modification_times, run_locally
from vwl.data.index import Index, make_index
from vwl.errors import VwlError
from vwl.maps.cam import argmax_with_background, upsample
from vwl.maps.confusion import confusion_matrix
from vwl.storage.masks import decode_mask
from vwl.storage.score_maps import MapReader
from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import score_table, stored_score, why_unscored
from vwl.workflow.stages import SCORED, training_rows


def test_a_threshold_chosen_without_ground_truth_is_used_in_later_stages(tiny_run):
    cam, crf, walk, masks = (tiny_run.manifest(name) for name in ("cam", "crf", "walk", "masks"))
    assert {stage.threshold_chosen for stage in (cam, crf, walk, masks)} == {OTSU}
    assert 0 < cam.threshold == crf.threshold < 1
    assert 0 < walk.threshold == masks.threshold < 1
    assert tiny_run.manifest("irnet-labels").threshold is None
    assert [score.threshold for score in cam.scores] == [cam.threshold] * 2


def test_a_new_threshold_is_scored_without_making_the_maps_again(copied):
    before = modification_times(copied, "cam/*.parquet", "cam/done/*", "walk/*.parquet")
    new = changed(copied, "cam.background_threshold=0.35", "walk.background_threshold=0.4")
    # Only the stage below is asked for: the maps' own decision is brought up to date before.
    assert run_locally(new, "crf") == [
        f"{name}: scored anew, its threshold, the scored classes or corrected masks have changed" for name in ("cam", "walk")
    ]
    assert modification_times(new, "cam/*.parquet", "cam/done/*", "walk/*.parquet") == before
    for name, threshold in (("cam", 0.35), ("walk", 0.4), ("crf", 0.35)):
        manifest = new.manifest(name)
        assert (manifest.threshold, manifest.threshold_chosen) == (threshold, "recipe")
        for score in manifest.scores:
            full = stored_score(new, name, score.split)
            assert score.threshold == full["threshold"] == threshold
            if name != "crf":
                assert score.miou == dict(full["curve"])[threshold]
    run_locally(new, "masks")
    assert (new.manifest("masks").threshold, new.manifest("masks").threshold_chosen) == (0.4, "recipe")


def test_class_thresholds_are_used_in_scores_masks_and_crf(copied, monkeypatch):
    monkeypatch.setattr("vwl.evaluation.scoring.MIN_IMAGES_PER_CLASS", 1)
    assert run_locally(copied, "cam") == ["cam: done before, skipped"]
    for stage, below in (("cam", "crf"), ("walk", "masks")):
        for threshold in ("0.3", "auto-by-class"):
            run = changed(copied, f"{stage}.background_threshold={threshold}")
            run_locally(run, stage, below)
        above, manifest = run.manifest(stage), run.manifest(below)
        own = above.class_thresholds
        assert set(own) == {run.index.classes[label] for row in training_rows(run.index) for label in row.labels}
        assert above.threshold_chosen == "auto-by-class (Otsu, no ground truth)"
        for field in ("threshold", "threshold_chosen", "class_thresholds"):
            assert getattr(manifest, field) == getattr(above, field)
        reader = MapReader(run.stage_folder(stage))
        matrix = np.zeros((len(run.index.classes),) * 2, np.int64)
        for row in training_rows(run.index):
            found = reader.read(row.image_id)
            scales = np.array([above.threshold / own[run.index.classes[label]] for label in row.labels], np.float32)
            values = upsample(found.values.astype(np.float32) * scales[:, None, None], found.height, found.width)
            expected = argmax_with_background(values, row.labels, above.threshold)
            if stage == "walk":
                np.testing.assert_array_equal(decode_mask(run.stage_folder("masks").read(f"{row.image_id}.png"), ""), expected)
            matrix += confusion_matrix(run.index.read_mask(row), expected, len(run.index.classes))
        assert stored_score(run, stage, "train")["confusion"] == matrix.tolist()


def test_a_constant_crf_background_comes_from_the_recipe(copied):
    new = changed(copied, "crf.background=0.6")
    assert run_locally(new, "crf") == []
    assert (new.manifest("crf").threshold, new.manifest("crf").threshold_chosen) == (0.6, "recipe")


def test_other_scored_classes_are_scored_without_running_a_stage_again(copied):
    name = copied.index.classes[2]
    results = modification_times(copied, "*/*.parquet", "*/*.pt", "*/[tv]*.png")
    new = changed(copied, f"evaluation.classes=[{name}]")
    messages = run_locally(new, *STAGES)
    assert messages[:4] == [f"{stage}: scored anew, its threshold, the scored classes or corrected masks have changed" for stage in SCORED]
    assert messages[4:] == [f"{stage}: done before, skipped" for stage in STAGES]
    assert modification_times(new, "*/*.parquet", "*/*.pt", "*/[tv]*.png") == results
    for line in score_table(new):
        full = stored_score(new, line.stage, line.split)
        confusion = np.array(full["confusion"])
        iou = np.diag(confusion) / (confusion.sum(axis=0) + confusion.sum(axis=1) - np.diag(confusion))
        assert line.miou == full["miou"] == pytest.approx(100 * iou[[0, 2]].mean(), abs=0.006)
    assert run_locally(new, *STAGES) == [f"{stage}: done before, skipped" for stage in STAGES]
    assert new.manifest("cam").seconds == copied.manifest("cam").seconds


def test_the_table_has_a_line_for_each_scored_stage_and_split(tiny_run):
    table = score_table(tiny_run)
    assert [(line.stage, line.split) for line in table] == [(name, split) for name in SCORED for split in ("train", "val")]
    for line in table:
        full = stored_score(tiny_run, line.stage, line.split)
        assert vars(line) == {key: full[key] for key in vars(line) if key != "seconds"} | {"seconds": tiny_run.manifest(line.stage).seconds}
        assert line.images == {"train": 8, "val": 4}[line.split]
        assert (line.best_miou_with_ground_truth is None) == (line.stage in {"crf", "segment"})


def without_masks(index: Index, *splits: str) -> Index:
    """The index without the masks of some splits, or of all."""
    rows = [replace(row, mask=None) if row.split in splits or not splits else row for row in index.rows]
    return make_index(rows, index.classes, index.root, index.source)


HAS_ALL = "it has cam on train, cam on val, crf on train, crf on val, walk on train, walk on val, segment on train, segment on val"


@pytest.mark.parametrize(
    ("stage", "split", "reason"),
    [("masks", "val", "only cam, crf, walk, segment are scored"), ("cam", "test", "only train and val are scored")],
)
def test_the_error_for_a_score_that_there_cannot_be_names_the_available_ones(tiny_run, stage, split, reason):
    with pytest.raises(VwlError) as caught:
        stored_score(tiny_run, stage, split)
    assert str(caught.value) == f"{tiny_run.folder} has no score of {stage} on {split}: {reason}; {HAS_ALL}"


def test_the_error_for_a_score_of_a_stage_that_is_not_done_names_its_command(copied):
    delete_stages(copied, "walk")
    with pytest.raises(VwlError) as caught:
        stored_score(copied, "walk", "val")
    reason = f"the stage is not done (vwl infer walk --run {copied.folder})"
    available = HAS_ALL.replace("walk on train, walk on val, ", "")
    assert str(caught.value) == f"{copied.folder} has no score of walk on val: {reason}; {available}"


@pytest.mark.parametrize("content", [None, b"", b"[]", b"{"])
def test_a_lost_or_damaged_score_is_named_and_the_advice_works(copied, content):
    path = Path(copied.folder.path, "cam/scores-val.json")
    whole = path.read_bytes()
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(VwlError) as caught:
        stored_score(copied, "cam", "val")
    assert str(caught.value) == f"{path} is missing or damaged; make it again with: vwl infer cam --run {copied.folder}"
    run_locally(copied, "cam")
    assert path.read_bytes() == whole


def test_why_nothing_was_scored(copied):
    delete_stages(copied, *SCORED)
    assert why_unscored(copied) == f"none of the stages cam, crf, walk, segment is done; run: vwl run --run {copied.folder}"
    bare = Run(copied.folder, copied.recipe, without_masks(copied.index), copied.index_path)
    assert why_unscored(bare).startswith(f"{copied.index_path} has no ground truth for labelled images of train or val, and training needs none; ")


def test_a_split_without_ground_truth_is_the_reason_why_it_has_no_score(copied):
    bare = Run(copied.folder, copied.recipe, without_masks(copied.index, "val"), copied.index_path)
    run_locally(bare, "classifier", "cam")
    with pytest.raises(
        VwlError, match=rf"no score of cam on val: {copied.index_path} has no ground truth for labelled images of val; it has "
    ):
        stored_score(bare, "cam", "val")
