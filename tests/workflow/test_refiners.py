"""Runs whose maps are refined by PSA, or not at all."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.workflow.runs import run_locally
from vwl.config.files import overridden
from vwl.errors import VwlError
from vwl.maps.cam import argmax_with_background, upsample
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, read_result
from vwl.storage.score_maps import MapReader
from vwl.workflow.inputs import OWN_BACKGROUND
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import stages_of
from vwl.workflow.status import stage_status

PSA = (
    "refiner=psa",
    "psa.backbone.name=lite0",
    "psa.backbone.weights=none",
    "psa.epochs=1",
    "psa.batch_size=4",
    "psa.crop=96",
    "psa.radius=3",
)


def refined_run(tiny_run: Run, folder: Path, *overrides: str) -> tuple[Run, list[str]]:
    """A copy of the small run, finished with another refiner, and the messages of its stages."""
    shutil.copytree(tiny_run.folder.path, folder)
    run = Run.start(str(folder), overridden(tiny_run.recipe, overrides), tiny_run.index_path, overwrite=True)
    return run, run_locally(run, *stages_of(run.recipe))


@pytest.fixture(scope="module")
def psa_run(tiny_run, tmp_path_factory):
    return refined_run(tiny_run, tmp_path_factory.mktemp("psa") / "run", *PSA)


def mask_of(run: Run, image_id: str) -> np.ndarray:
    return decode_mask(read_result(Folder(f"{run.folder}/masks"), image_id), image_id)


def test_only_what_the_refiner_changes_runs_again(psa_run):
    run, messages = psa_run
    assert messages == [f"{stage}: done before, skipped" for stage in ("classifier", "cam", "crf")]
    assert all(run.is_done(stage) for stage in stages_of(run.recipe))


def test_the_maps_of_psa_have_a_background_and_need_no_threshold(psa_run):
    run, _ = psa_run
    assert run.manifest("walk").threshold_chosen == OWN_BACKGROUND
    maps = MapReader(run.folder / "walk")
    for row in run.stage_rows("masks"):
        found = maps.read(row.image_id)
        assert found.classes == (0, *row.labels)
        expected = argmax_with_background(upsample(found.values, found.height, found.width), found.classes, 0.0)
        np.testing.assert_array_equal(mask_of(run, row.image_id), expected)


def test_stages_of_another_refiner_are_not_needed(psa_run):
    run, _ = psa_run
    assert not run.needs("irnet")
    assert run_locally(run, "irnet") in (["irnet: done before, skipped"], ["irnet: not needed, the recipe has refiner: psa"])
    shutil.rmtree(run.folder.path + "/irnet")
    status = stage_status(run, "irnet")
    assert (status.state, status.note) == ("not needed", "the recipe has refiner: psa")


def test_without_a_refiner_the_masks_are_the_maps_at_their_threshold(tiny_run, tmp_path):
    run, _ = refined_run(tiny_run, tmp_path / "run", "refiner=none")
    maps, threshold = MapReader(run.folder / "cam"), run.manifest("cam").threshold
    for row in run.stage_rows("masks"):
        found = maps.read(row.image_id)
        expected = argmax_with_background(upsample(found.values, found.height, found.width), found.classes, threshold)
        np.testing.assert_array_equal(mask_of(run, row.image_id), expected)


def test_a_refiner_without_its_training_names_the_command(tiny_run, tmp_path):
    shutil.copytree(tiny_run.folder.path, tmp_path / "run")
    run = Run.start(str(tmp_path / "run"), overridden(tiny_run.recipe, PSA), tiny_run.index_path, overwrite=True)
    with pytest.raises(VwlError, match=r"walk needs the psa stage, which is not done in .*: vwl train psa --run"):
        run_locally(run, "walk")


def test_fingerprints_of_runs_with_irnet_do_not_depend_on_the_settings_of_psa(tiny_run):
    other = Run(tiny_run.folder, overridden(tiny_run.recipe, PSA[1:]), tiny_run.index, tiny_run.index_path)
    assert all(other.fingerprint(stage) == tiny_run.fingerprint(stage) for stage in stages_of(tiny_run.recipe))
