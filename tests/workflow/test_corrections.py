"""Runs on an index with corrected masks: only what depends on them runs again, and the segmentation model learns from them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import copy_run
from tests.stages import STAGES
from tests.workflow.runs import modification_times, run_locally
from vwl.data.corrections import add_masks
from vwl.data.data_fingerprint import DataFingerprint
from vwl.data.index import Index, make_index, write_index
from vwl.errors import VwlError
from vwl.inference.build import InferenceSpec, build_stage
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, encode_mask
from vwl.training.build import TrainSpec, build_task
from vwl.workflow.reuse import reuse_stages
from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import score_table
from vwl.workflow.stages import scored_rows

AGAIN = ["masks", "segmenter", "segment"]
EARLIER = [name for name in STAGES if name not in AGAIN]


def corrected_index(run: Run, folder: Path, *image_ids: str) -> str:
    """Write an index in which the masks of some images are a rectangle of their first label, and return its path."""
    rows = {row.image_id: row for row in run.index.rows}
    for image_id in image_ids:
        width, height = run.index.read_image(rows[image_id]).size
        mask = np.zeros((height, width), np.uint8)
        mask[5:-5, 5:-5] = rows[image_id].labels[0]
        Folder(folder / "corrected").write(f"{image_id}.png", encode_mask(mask, run.index.palette))
    path = str(folder / "corrected.parquet")
    write_index(add_masks(run.index, Folder(folder / "corrected")).index, path)
    return path


def skipped(messages: list[str]) -> list[str]:
    return [line.partition(":")[0] for line in messages if line.endswith("done before, skipped")]


def mask_of(run: Run, stage: str, image_id: str) -> np.ndarray:
    return decode_mask((run.folder / stage).read(f"{image_id}.png"), image_id)


@pytest.fixture
def corrected(copied, tmp_path) -> Run:
    """The copied run, its recipe kept, on an index in which two masks are corrected."""
    path = corrected_index(copied, tmp_path, "train_00001", "val_00002")
    return Run.start(str(copied.folder), copied.recipe, path, overwrite=True)


def test_only_masks_segmenter_and_segment_run_again(corrected):
    assert [stage for stage in STAGES if not corrected.is_done(stage)] == AGAIN
    before = modification_times(corrected, "*/weights.pt", "*/*.parquet")
    messages = run_locally(corrected, *STAGES)
    assert skipped(messages) == EARLIER
    changed = {
        path.parent.name for path, time in modification_times(corrected, "*/weights.pt", "*/*.parquet").items() if before[path] != time
    }
    assert changed == {"segmenter"}
    assert skipped(run_locally(corrected, *STAGES)) == list(STAGES)


def test_the_masks_to_train_on_are_the_corrected_ones_where_there_are_some(corrected, tiny_run):
    run_locally(corrected, "masks")
    for row in corrected.index.split("train"):
        expected = corrected.index.read_mask(row) if row.corrected else mask_of(tiny_run, "masks", row.image_id)
        np.testing.assert_array_equal(mask_of(corrected, "masks", row.image_id), expected)


def test_the_segmenter_learns_from_the_corrected_mask(corrected):
    run_locally(corrected, "masks")
    spec = TrainSpec("segmenter", corrected.recipe, corrected.index_path, corrected.folder / "x", corrected.folder / "masks", "f")
    task = build_task(spec)
    sample = task.sample(task.image_ids.index("train_00001"), 0)["labels"].numpy()
    row = next(row for row in corrected.index.rows if row.image_id == "train_00001")
    assert set(np.unique(sample).tolist()) - {255} <= {0, row.labels[0]}
    inside = sample[sample != 255]
    assert (inside == row.labels[0]).mean() > 0.5  # the rectangle fills most of the image; the pseudo mask does not
    assert (mask_of(corrected, "masks", "train_00001") == row.labels[0]).mean() > 0.5


def test_scores_compare_with_the_corrected_masks(corrected):
    before = {(line.stage, line.split): line.miou for line in score_table(corrected)}
    run_locally(corrected, *STAGES)
    after = {(line.stage, line.split): line for line in score_table(corrected)}
    assert {key for key in before if key[0] in {"cam", "crf", "walk"} and before[key] == after[key].miou} == set()
    assert {line.images for line in after.values() if line.split == "val"} == {4}


def test_corrected_masks_of_held_out_images_alone_train_nothing_again(copied, tmp_path):
    run = Run.start(str(copied.folder), copied.recipe, corrected_index(copied, tmp_path, "val_00002"), overwrite=True)
    assert [stage for stage in STAGES if not run.is_done(stage)] == ["segment"]


def test_a_run_refuses_an_index_with_other_corrections_without_overwrite(copied, tmp_path):
    path = corrected_index(copied, tmp_path, "train_00001")
    with pytest.raises(VwlError, match="is a run on another data set"):
        Run.start(str(copied.folder), copied.recipe, path)


def test_a_new_run_takes_the_earlier_stages_of_another(copied, tmp_path):
    path = corrected_index(copied, tmp_path, "train_00001")
    new = Run.start(str(tmp_path / "new"), copied.recipe, path)
    assert reuse_stages(new, copied.folder) == EARLIER
    assert {new.manifest(stage).copied_from for stage in EARLIER} == {str(copied.folder)}
    assert skipped(run_locally(new, *STAGES)) == EARLIER
    assert all(copied.is_done(stage) for stage in STAGES)  # the other run is only read
    assert reuse_stages(new, copied.folder) == []


def test_a_new_run_with_other_settings_takes_only_the_stages_before_them(copied, tmp_path):
    changed = copied.recipe.model_copy(update={"irnet": copied.recipe.irnet.model_copy(update={"epochs": 2})})
    new = Run.start(str(tmp_path / "new"), changed, copied.index_path)
    assert reuse_stages(new, copied.folder) == ["classifier", "cam", "crf", "irnet-labels"]


def test_images_without_ground_truth_are_scored_once_their_masks_are_corrected(tiny_run, tmp_path):
    run = copy_run(tiny_run, tmp_path)
    bare = make_index([replace(row, mask=None) for row in run.index.rows], run.index.classes, run.index.root, "bare")
    write_index(bare, tmp_path / "index.parquet")
    run = Run.start(str(tmp_path / "bare"), run.recipe, str(tmp_path / "index.parquet"))
    run_locally(run, *STAGES)
    assert score_table(run) == []
    path = corrected_index(run, tmp_path, "train_00001", "train_00003", "val_00000")
    run = Run.start(str(run.folder), run.recipe, path, overwrite=True)
    assert skipped(run_locally(run, *STAGES)) == EARLIER
    assert {(line.stage, line.split): line.images for line in score_table(run)} == {
        **{(stage, "train"): 2 for stage in ("cam", "crf", "walk", "segment")},
        ("segment", "val"): 1,
    }
    assert (run.folder / "segment").exists("val_00000.png")


def test_corrections_do_not_change_which_images_the_earlier_stages_process(tiny_run, tmp_path):
    index: Index = make_index(
        [row if number % 2 else replace(row, mask=None) for number, row in enumerate(tiny_run.index.rows)],
        tiny_run.index.classes,
        tiny_run.index.root,
        "half",
    )
    bytes_ = encode_mask(np.ones((4, 4), np.uint8), index.palette)
    more = replace(index, rows=tuple(replace(row, corrected=bytes_) for row in index.rows))
    for stage in EARLIER:
        assert [row.image_id for row in STAGES[stage].rows(more)] == [row.image_id for row in STAGES[stage].rows(index)]
    assert {row.image_id for row in STAGES["segment"].rows(more)} == {row.image_id for row in index.rows}
    assert len(scored_rows(more, "train")) == len(index.split("train"))


def test_the_masks_stage_reads_no_map_of_a_corrected_image(corrected):
    spec = InferenceSpec("masks", corrected.recipe, corrected.index_path, corrected.folder / "nowhere", 0.5)
    row = next(row for row in corrected.index.rows if row.image_id == "train_00001")
    np.testing.assert_array_equal(build_stage(spec)(row), corrected.index.read_mask(row))


def test_imported_maps_stay_valid_when_masks_are_corrected(copied):
    from vwl.workflow.imported import ImportedMaps

    maps = ImportedMaps("irn", "fixed", "abc", 3, "/maps")
    data = DataFingerprint("a" * 16, "b" * 16)
    assert maps.fingerprint(str(data)) == maps.fingerprint("a" * 16)
