"""Maps of other methods become a run's cam stage: the same maps, the same masks after them, whatever format they came in."""

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import seeds
from tests.helpers import copy_run, tiny_scenes
from tests.stages import STAGES
from tests.workflow.runs import changed, delete_stages, modification_times, new_run, run_locally
from vwl.errors import VwlError
from vwl.inference.seeds import NO_FILE
from vwl.maps.cam import argmax_with_background, upsample
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask
from vwl.storage.score_maps import MapReader, ScoreMap
from vwl.workflow.inputs import OWN_BACKGROUND, failures_to_report
from vwl.workflow.run_folder import Run
from vwl.workflow.seeds import ImportSummary, export_seeds, import_seeds
from vwl.workflow.status import stage_status

AFTER_CAM = [name for name in STAGES if name not in ("classifier", "cam")]
PER_PIXEL = 1e-3
"""Largest difference of imported scores; float16 alone makes 2.5e-4."""


def bring(run: Run, folder: Path, seed_format=None, background=None, overwrite=True) -> ImportSummary:
    return import_seeds(run, Folder(folder), seed_format, background, lambda progress: None, lambda line: None, overwrite)


def all_maps(run: Run, stage: str = "cam") -> dict[str, ScoreMap]:
    maps = MapReader(run.stage_folder(stage))
    return {image_id: maps.read(image_id) for image_id in maps.locations}


def masks(run: Run, stage: str) -> dict[str, np.ndarray]:
    folder = run.stage_folder(stage)
    return {name: decode_mask(folder.read(name), name) for name in folder.names(".png")}


def write(wanted: dict[str, ScoreMap], writer: seeds.Writer, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for found in wanted.values():
        writer(found, folder)
    return folder


def assert_same_maps(found: dict[str, ScoreMap], wanted: dict[str, ScoreMap]) -> None:
    assert list(found) == list(wanted)
    for image_id, own in wanted.items():
        assert found[image_id].classes == own.classes
        assert (found[image_id].height, found[image_id].width) == (own.height, own.width)
        assert np.abs(found[image_id].values.astype(np.float32) - own.values.astype(np.float32)).max(initial=0) <= PER_PIXEL


def assert_same_masks(found: dict[str, np.ndarray], wanted: dict[str, np.ndarray]) -> None:
    assert list(found) == list(wanted)
    differing = sum(int((found[name] != wanted[name]).sum()) for name in wanted)
    assert differing <= PER_PIXEL * sum(mask.size for mask in wanted.values())


@pytest.fixture(scope="module")
def target(tiny_run, tmp_path_factory) -> Run:
    """A copy of the tiny run without the stages after cam, into which each test imports anew."""
    run = copy_run(tiny_run, tmp_path_factory.mktemp("target"))
    delete_stages(run, *AFTER_CAM)
    return changed(run, f"cam.background_threshold={seeds.BACKGROUND}")


@pytest.fixture(scope="module")
def wanted(tiny_run) -> dict[str, ScoreMap]:
    return all_maps(tiny_run)


@pytest.fixture(scope="module")
def refined(tiny_run, tmp_path_factory) -> dict[str, dict[str, np.ndarray]]:
    """The masks of the run's own maps at the background that the formats with a background have."""
    run = copy_run(tiny_run, tmp_path_factory.mktemp("own"))
    delete_stages(run, *AFTER_CAM)
    run = changed(run, f"cam.background_threshold={seeds.BACKGROUND}")
    run_locally(run, "crf", "irnet-labels")
    return {name: masks(run, name) for name in ("crf", "irnet-labels")}


@pytest.mark.parametrize("writer", seeds.OBJECTS, ids=lambda writer: writer.__name__)
def test_the_maps_of_each_format_give_the_same_masks_downstream(target, wanted, refined, tmp_path, writer):
    summary = bring(target, write(wanted, writer, tmp_path / "seeds"))
    assert summary == ImportSummary(seeds.OBJECTS[writer], "fixed", len(wanted), [], {}, [])
    assert_same_maps(all_maps(target), wanted)
    run_locally(target, "crf", "irnet-labels")
    for stage in ("crf", "irnet-labels"):
        assert_same_masks(masks(target, stage), refined[stage])


@pytest.mark.parametrize("writer", seeds.WITH_BACKGROUND, ids=lambda writer: writer.__name__)
def test_the_own_background_of_maps_takes_the_threshold_s_place(target, wanted, refined, tmp_path, writer):
    folder = write(wanted, writer, tmp_path / "seeds")
    assert bring(target, folder).background == "own"
    found = all_maps(target)
    assert {own.classes[0] for own in found.values()} == {0}
    assert (target.manifest("cam").threshold, target.manifest("cam").threshold_chosen) == (0.0, OWN_BACKGROUND)
    run_locally(target, "crf")
    assert target.manifest("crf").threshold_chosen == OWN_BACKGROUND
    assert_same_masks(masks(target, "crf"), refined["crf"])
    assert bring(target, folder, background="fixed").background == "fixed"
    assert_same_maps(all_maps(target), wanted)


@pytest.mark.parametrize("writer", seeds.RAW, ids=lambda writer: writer.__name__)
def test_outputs_of_a_network_become_probabilities_of_labels_and_background(target, wanted, tmp_path, writer):
    summary = bring(target, write(wanted, writer, tmp_path / "seeds"))
    assert (summary.format, summary.background, summary.failed) == (seeds.RAW[writer], "own", {})
    for image_id, own in all_maps(target).items():
        assert own.classes == (0, *wanted[image_id].classes)
        assert np.abs(own.values.astype(np.float32).sum(axis=0) - 1).max() < 0.02
        mask = argmax_with_background(upsample(own.values, own.height, own.width), own.classes, 0.0)
        before = argmax_with_background(seeds.full(wanted[image_id]), wanted[image_id].classes, seeds.BACKGROUND)
        assert (mask != before).mean() < 0.02


def test_one_minus_max_is_a_background_of_its_own(target, wanted, tmp_path):
    bring(target, write(wanted, seeds.clip_es, tmp_path / "seeds"), background="one-minus-max")
    found = all_maps(target)
    for image_id, own in wanted.items():
        assert found[image_id].classes == (0, *own.classes)
        assert np.allclose(found[image_id].values[0], 1 - seeds.small(own).max(axis=0), atol=PER_PIXEL)
    scored = target.manifest("cam").scores
    assert scored
    assert all(score.threshold == 0 for score in scored)
    same_masks_at = {score.split: score.miou for score in scored}
    target = changed(target, "cam.background_threshold=0.5")  # 1 - max <= max
    bring(target, tmp_path / "seeds", background="fixed")
    assert {score.split: score.miou for score in target.manifest("cam").scores} == pytest.approx(same_masks_at, abs=0.5)
    changed(target, f"cam.background_threshold={seeds.BACKGROUND}")


def test_an_image_without_maps_is_all_background(target, wanted, tmp_path):
    folder = write(wanted, seeds.irn, tmp_path / "seeds")
    empty = next(iter(wanted))
    seeds.pickled({"keys": np.zeros(0, np.int64), "cam": np.zeros(0), "high_res": np.zeros(0)}, folder, empty)
    assert bring(target, folder).imported == len(wanted)
    assert all_maps(target)[empty].classes == ()
    run_locally(target, "crf")
    assert masks(target, "crf")[f"{empty}.png"].max() == 0


def test_missing_and_surplus_images_are_listed_and_later_stages_leave_the_missing_out(target, wanted, tmp_path):
    folder = write(wanted, seeds.irn, tmp_path / "seeds")
    gone, *_ = wanted
    shutil.move(folder / f"{gone}.npy", folder / "unknown.npy")
    (folder / "readme.txt").write_text("about")
    summary = bring(target, folder)
    assert (summary.imported, summary.missing, summary.surplus) == (len(wanted) - 1, [gone], ["readme.txt", "unknown.npy"])
    assert target.manifest("cam").failed == {gone: NO_FILE}
    assert failures_to_report(target, "cam") == []
    run_locally(target, "crf")
    assert f"{gone}.png" not in masks(target, "crf")
    assert stage_status(target, "cam").note == f"imported from {folder} (irn), 1 images without a file"


def test_a_wrong_file_is_listed_and_the_others_are_imported(target, wanted, tmp_path):
    folder = write(wanted, seeds.irn, tmp_path / "seeds")
    *_, damaged = wanted
    path = folder / f"{damaged}.npy"
    path.write_bytes(path.read_bytes()[:-100])
    summary = bring(target, folder)
    assert list(summary.failed) == [damaged] == failures_to_report(target, "cam")
    assert summary.failed[damaged].startswith(f"{damaged}.npy is damaged")


def test_maps_of_classes_that_are_not_labels_are_left_out(target, wanted, tmp_path):
    one, *_ = [image_id for image_id, own in wanted.items() if len(own.classes) == 1]
    values = np.repeat(wanted[one].values, 2, axis=0)
    folder = write({**wanted, one: replace(wanted[one], classes=(1, 2), values=values)}, seeds.irn, tmp_path / "seeds")
    summary = bring(target, folder)
    assert (summary.left_out, summary.failed) == (1, {})
    assert summary.example.endswith(f" in {one}.npy")
    assert_same_maps(all_maps(target), wanted)


def test_a_run_without_a_classifier_goes_on_from_imported_maps_to_the_end(tiny_run, wanted, tmp_path):
    run = copy_run(tiny_run, tmp_path)
    delete_stages(run, *STAGES)
    bring(run, write(wanted, seeds.irn, tmp_path / "seeds"), overwrite=False)
    assert (stage_status(run, "classifier").state, stage_status(run, "cam").state) == ("not needed", "done")
    messages = run_locally(run, *STAGES)
    assert messages == ["classifier: not needed, the maps of this run are imported", "cam: done before, skipped"]
    assert not run.folder.exists("classifier")
    assert all(run.is_done(stage) for stage in STAGES if stage != "classifier")
    assert_same_masks(masks(run, "crf"), masks(tiny_run, "crf"))


def test_imported_maps_do_not_depend_on_the_settings_of_what_they_replace(target, wanted, tmp_path):
    bring(target, write(wanted, seeds.irn, tmp_path / "seeds"))
    before = {stage: target.fingerprint(stage) for stage in STAGES}
    other = Run(target.folder, target.recipe.model_copy(deep=True), target.index, target.index_path)
    other.recipe = changed(target, "classifier.epochs=9", "cam.scales=[0.5]", "seed=3").recipe
    try:
        assert other.is_done("cam")
        assert other.fingerprint("classifier") != before["classifier"]
    finally:
        changed(other, "classifier.epochs=1", f"cam.scales={list(target.recipe.cam.scales)}", f"seed={target.recipe.seed}")
    seeds_again = write(wanted, seeds.irn, tmp_path / "again")
    bring(target, seeds_again, background="one-minus-max")
    assert not {target.fingerprint(stage) for stage in ("cam", *AFTER_CAM)} & set(before.values())


def test_an_import_on_changed_data_is_not_computed_but_refused(tiny_run, wanted, tmp_path):
    run = copy_run(tiny_run, tmp_path)
    bring(run, write(wanted, seeds.irn, tmp_path / "seeds"))
    run.index = replace(run.index, rows=run.index.rows[1:])
    with pytest.raises(
        VwlError, match=r"the import of the maps of .* is not complete, or its data set has changed since: vwl seeds import"
    ):
        run_locally(run, "cam")
    assert len(all_maps(run)) == len(wanted)


def test_own_maps_are_replaced_only_on_request(tiny_run, wanted, tmp_path):
    run = copy_run(tiny_run, tmp_path)
    folder = write(wanted, seeds.irn, tmp_path / "seeds")
    with pytest.raises(VwlError, match=r"cam has other maps \(computed by its classifier\); .* --overwrite to replace them"):
        bring(run, folder, overwrite=False)
    assert run.is_done("cam")
    bring(run, folder)
    times = modification_times(run, "cam/*.parquet")
    bring(run, folder, overwrite=False)  # the same again
    assert modification_times(run, "cam/*.parquet") == times
    delete_stages(run, "cam")
    assert run.imported_maps() is None
    assert stage_status(run, "classifier").state == "done"


class Stop(BaseException):
    pass


def test_an_interrupted_import_is_resumed_and_gives_the_same_bytes(tmp_path):
    run = new_run(tmp_path, tiny_scenes(tmp_path / "scenes", 30, 4))
    rows = STAGES["cam"].rows(run.index)
    sizes = {row.image_id: run.index.read_image(row).size for row in rows}
    rng = np.random.default_rng(0)
    wanted = {
        row.image_id: ScoreMap(
            row.image_id, row.labels, height, width, rng.random((len(row.labels), -(-height // 4), -(-width // 4))).astype(np.float16)
        )
        for row in rows
        for width, height in [sizes[row.image_id]]
    }
    folder = write(wanted, seeds.irn, tmp_path / "seeds")

    def stop(progress) -> None:
        raise Stop

    with pytest.raises(Stop):
        import_seeds(run, Folder(folder), None, None, stop, lambda line: None)
    assert stage_status(run, "cam").done == 16
    with pytest.raises(VwlError, match="import of the maps"):
        run_locally(run, "crf")
    with pytest.raises(VwlError, match="is not complete"):
        run_locally(run, "cam")
    first = modification_times(run, "cam/part-00000.parquet")
    bring(run, folder, overwrite=False)
    assert modification_times(run, "cam/part-00000.parquet") == first
    assert_same_maps(all_maps(run), wanted)


@pytest.mark.parametrize("stage", ["cam", "walk"])
def test_exported_maps_are_imported_again(tiny_run, target, tmp_path, stage):
    assert export_seeds(tiny_run, stage, Folder(tmp_path / "out"), lambda progress: None) == 12
    assert b"numpy._core" not in (tmp_path / "out/train_00000.npy").read_bytes()
    held = np.load(tmp_path / "out/train_00000.npy", allow_pickle=True).item()
    assert [type(held[key]).__name__ for key in ("keys", "cam", "high_res")] == ["Tensor", "Tensor", "ndarray"]
    assert bring(target, tmp_path / "out").format == "irn"
    assert_same_maps(all_maps(target), all_maps(tiny_run, stage))


def test_maps_with_their_own_background_are_exported_without_it(target, wanted, tmp_path):
    bring(target, write(wanted, seeds.excel, tmp_path / "seeds"))
    export_seeds(target, "cam", Folder(tmp_path / "out"), lambda progress: None)
    bring(target, tmp_path / "out")
    assert_same_maps(all_maps(target), wanted)


def test_only_finished_maps_are_exported(target, tmp_path):
    with pytest.raises(VwlError, match="has no finished maps of the walk stage"):
        export_seeds(target, "walk", Folder(tmp_path / "out"), lambda progress: None)


MEMORY = """
import json, resource, sys
from vwl.storage.folder import Folder
from vwl.workflow.run_folder import Run
from vwl.workflow.seeds import import_seeds
peaks = []
def seen(progress):
    peaks.append(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
import_seeds(Run.open(sys.argv[1]), Folder(sys.argv[2]), None, None, seen, print)
print(json.dumps([peaks[len(peaks) // 10], peaks[-1], len(peaks)]))
"""


@pytest.mark.slow
def test_two_thousand_files_are_imported_in_the_memory_of_two_hundred(tmp_path):
    index = tiny_scenes(tmp_path / "scenes", 1, 0)
    (row,) = index.rows
    many = replace(index, rows=tuple(replace(row, image_id=f"image_{number:04d}", mask=None) for number in range(2000)))
    run = new_run(tmp_path, many)
    width, height = index.read_image(row).size
    rng = np.random.default_rng(0)
    maps = rng.random((len(row.labels), -(-height // 4), -(-width // 4))).astype(np.float16)
    (tmp_path / "seeds").mkdir()
    seeds.irn(ScoreMap("first", row.labels, height, width, maps), tmp_path / "seeds")
    for own in many.rows:
        os.link(tmp_path / "seeds/first.npy", tmp_path / f"seeds/{own.image_id}.npy")
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(run.folder), str(tmp_path / "seeds")], capture_output=True, text=True, check=True
    )
    early, late, shards = json.loads(done.stdout.splitlines()[-1])
    assert shards == 125
    assert Run.open(str(run.folder)).is_done("cam")
    files = 2000 * os.path.getsize(tmp_path / "seeds/first.npy") / 1024
    assert late - early < 8 * 1024 < files  # KiB


def test_maps_that_cannot_be_imported_replace_nothing(tiny_run, wanted, tmp_path):
    run = copy_run(tiny_run, tmp_path)
    folder = write(wanted, seeds.irn, tmp_path / "seeds")
    with pytest.raises(
        VwlError, match=r"none of the first 12 maps can be imported, e.g. train_00000.npy has none of the keys attn_highres"
    ):
        bring(run, folder, seed_format="clip-es")
    assert run.is_done("cam")
    assert_same_maps(all_maps(run), wanted)
