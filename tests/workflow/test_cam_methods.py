"""Runs whose maps are made by ReCAM and by LPCAM, and runs where both are off."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.workflow.runs import run_locally
from vwl.config.files import overridden
from vwl.config.networks import batch_size, cam_network
from vwl.config.recipe import Recipe, hashed_settings
from vwl.errors import VwlError
from vwl.report.html.sections.curves import curves_section
from vwl.storage.score_maps import MapReader
from vwl.tuning.trials import Trial
from vwl.workflow.model_export import model_of_run
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES, stages_of
from vwl.workflow.status import stage_status

RECAM = ("recam.epochs=1", "recam.batch_size=4")
LPCAM = ("cam.method=lpcam", "lpcam.prototype_probability=0", "lpcam.clusters=3")


def other_maps(tiny_run: Run, folder: Path, *overrides: str) -> tuple[Run, list[str]]:
    """A copy of the small run with maps of another method, and the messages of its stages up to the maps."""
    shutil.copytree(tiny_run.folder.path, folder)
    run = Run.start(str(folder), overridden(tiny_run.recipe, overrides), tiny_run.index_path, overwrite=True)
    order = stages_of(run.recipe)
    return run, run_locally(run, *order[: order.index("cam") + 1])


@pytest.mark.parametrize(
    ("overrides", "before_cam", "read"),
    [
        ((), ["classifier"], "classifier"),
        (RECAM, ["classifier", "recam"], "recam"),
        (LPCAM, ["classifier", "lpcam"], "lpcam"),
        ((*RECAM, *LPCAM), ["classifier", "recam", "lpcam"], "lpcam"),
    ],
)
def test_the_maps_are_of_the_last_network_of_the_recipe(tiny_run, tmp_path, overrides, before_cam, read):
    run, messages = other_maps(tiny_run, tmp_path / "run", *overrides)
    order = stages_of(run.recipe)
    assert order[: order.index("cam")] == before_cam
    assert STAGES["cam"].reads(run.recipe) == (cam_network(run.recipe),) == (read,)
    assert messages[0] == "classifier: done before, skipped"
    assert all(run.is_done(stage) for stage in [*before_cam, "cam"])
    row = run.stage_rows("cam")[0]
    found, plain = (MapReader(folder / "cam").read(row.image_id) for folder in (run.folder, tiny_run.folder))
    assert np.array_equal(found.values, plain.values) == (not overrides)
    titles = [group.title for group in curves_section(run).content.groups]
    assert titles[: len(before_cam)] == [{"recam": "ReCAM", "lpcam": "LPCAM"}.get(stage, "Classifier") for stage in before_cam]


@pytest.mark.parametrize("stage", ["classifier", "cam", "crf", "walk", "segment"])
def test_settings_of_methods_that_are_off_change_no_fingerprint(tiny_run, stage):
    changes = ("recam.weight=0.1", "recam.optimiser.learning_rate=1", "lpcam.clusters=5")
    other = Run(tiny_run.folder, overridden(tiny_run.recipe, changes), tiny_run.index, tiny_run.index_path)
    assert other.fingerprint(stage) == tiny_run.fingerprint(stage)


def test_the_settings_of_the_maps_are_those_of_before_where_the_method_is():
    assert "method" not in hashed_settings(Recipe(), "cam")
    assert "method" not in STAGES["cam"].settings(Recipe())
    assert STAGES["cam"].settings(overridden(Recipe(), LPCAM))["method"] == "lpcam"


@pytest.mark.parametrize("overrides", [RECAM, LPCAM])
def test_a_trial_with_another_method_is_another_trial(overrides):
    plain, other = Trial(Recipe(), "cam"), Trial(overridden(Recipe(), overrides), "cam")
    assert plain.stages == ["classifier", "cam"]
    assert other.stages == stages_of(other.recipe)[:3]
    assert plain.recipe_hash != other.recipe_hash
    assert Trial(overridden(Recipe(), overrides[1:]), "classifier").recipe_hash == Trial(Recipe(), "classifier").recipe_hash


def test_classes_without_prototypes_are_in_the_manifest_and_a_message(tiny_run, tmp_path):
    run, messages = other_maps(tiny_run, tmp_path / "run", "cam.method=lpcam", "lpcam.prototype_probability=1")
    (line,) = json.loads((tmp_path / "run" / "lpcam" / "manifest.json").read_text())["notes"]
    assert line.startswith("no cluster is a prototype of ")
    assert f"lpcam: {line}" in messages
    row = run.stage_rows("cam")[0]
    found, plain = (MapReader(folder / "cam").read(row.image_id) for folder in (run.folder, tiny_run.folder))
    assert np.array_equal(found.values, plain.values)
    assert "notes" not in json.loads((tmp_path / "run" / "classifier" / "manifest.json").read_text())


def test_methods_that_are_off_are_not_needed(tiny_run):
    assert (stage_status(tiny_run, "recam").state, stage_status(tiny_run, "recam").note) == ("not needed", "the recipe has recam.epochs: 0")
    assert stage_status(tiny_run, "lpcam").note == "the recipe has cam.method: weights"


def test_the_maps_need_their_network(tiny_run, tmp_path):
    shutil.copytree(tiny_run.folder.path, tmp_path / "run")
    run = Run.start(str(tmp_path / "run"), overridden(tiny_run.recipe, RECAM), tiny_run.index_path, overwrite=True)
    with pytest.raises(VwlError, match=r"cam needs the recam stage, which is not done in .*: vwl train recam --run"):
        run_locally(run, "cam")


def test_a_classifiers_model_file_is_the_classifier_whatever_makes_the_maps(tiny_run, tmp_path):
    run, _ = other_maps(tiny_run, tmp_path / "run", *RECAM)
    plain, other = model_of_run(tiny_run, "classifier"), model_of_run(run, "classifier")
    assert plain.description.scores
    assert not other.description.scores  # of maps that this file does not make
    assert plain.description.prediction == other.description.prediction


def test_lpcam_takes_the_workers_of_the_classifiers_batch():
    recipe = overridden(Recipe(), ("classifier.batch_size=12", "recam.batch_size=8"))
    assert [batch_size(recipe, stage) for stage in ("classifier", "recam", "lpcam")] == [12, 8, 12]
