"""Plans: every stage, what is shared and what idles, hours scaled from a run, and what does not fit."""

from dataclasses import replace

import pytest

from tests.stages import STAGES
from vwl.cluster.plan import GIB, Resources, calibrate, checks, plan, this_machine
from vwl.config.files import load_recipe
from vwl.config.layout import Layout
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.workflow.run_folder import Run

HERE = Resources("this machine", cpus=4, gpus=0, memory=32 * GIB, disk=100 * GIB)


def grades(run: Run, layout: Layout, there: Resources) -> dict[str, str]:
    stages = plan(run.recipe, run.index, layout, there)
    return {finding.check: finding.grade for finding in checks(run.recipe, run.index, layout, there, stages)}


def test_every_stage_is_planned_and_called_an_estimate(tiny_run):
    stages = plan(tiny_run.recipe, tiny_run.index, Layout(), HERE)
    assert [stage.stage for stage in stages] == list(STAGES)
    assert {stage.source for stage in stages} == {"estimate"}
    assert all(stage.hours > 0 and stage.disk_gib > 0 for stage in stages)
    assert {stage.stage: stage.images for stage in stages}["cam"] == 12


def test_twice_the_workers_take_half_the_time_of_a_training_and_none_of_the_others(tiny_run):
    one, two = (plan(tiny_run.recipe, tiny_run.index, Layout(workers=n), HERE) for n in (1, 2))
    for before, after in zip(one, two, strict=True):
        factor = 2 if STAGES[before.stage].kind == "train" else 1
        assert before.hours == pytest.approx(factor * after.hours)


def test_workers_that_cannot_share_a_batch_idle_and_it_is_said(tiny_run):
    stages = {stage.stage: stage for stage in plan(tiny_run.recipe, tiny_run.index, Layout(workers=3), HERE)}
    assert stages["classifier"].workers == 2  # of a batch of 4
    assert grades(tiny_run, Layout(workers=3), HERE)["classifier batch"] == "warning"
    assert grades(tiny_run, Layout(workers=2), HERE)["classifier batch"] == "ok"


def test_hours_are_scaled_from_a_run(tiny_run):
    calibration = calibrate(tiny_run, cpus=1, gpus=0)
    assert calibration.keys() == set(STAGES)
    stages = plan(tiny_run.recipe, tiny_run.index, Layout(), replace(HERE, cpus=1), calibration)
    assert {stage.source for stage in stages} == {"measured"}
    for stage in stages:
        if STAGES[stage.stage].kind != "train":
            manifest = tiny_run.manifest(stage.stage)
            assert stage.hours * 3600 == pytest.approx(manifest.seconds * stage.images / manifest.images, rel=1e-6)
    longer = load_recipe("demo", ["classifier.epochs=12"])
    twelve, six = (plan(recipe, tiny_run.index, Layout(), HERE, calibration)[0].hours for recipe in (longer, load_recipe("demo")))
    assert twelve == pytest.approx(2 * six)


def test_a_run_without_a_finished_stage_is_no_measure(tiny_run, tmp_path):
    new = Run.start(str(tmp_path / "new"), tiny_run.recipe, tiny_run.index_path)
    with pytest.raises(VwlError, match="has no finished stage to calibrate on"):
        calibrate(new, 2, 0)


def test_what_does_not_fit_is_an_error_with_the_way_out(tiny_run):
    assert set(grades(tiny_run, Layout(), HERE).values()) == {"ok"}
    layout = Layout(workers=2, cpus_per_worker=4, gpus_per_worker=1)
    found = grades(tiny_run, layout, replace(HERE, disk=1000))
    assert (found["CPUs"], found["GPUs"], found["disk"]) == ("error", "error", "error")
    assert grades(tiny_run, Layout(workers=4), replace(HERE, memory=GIB))["memory"] == "warning"
    assert grades(tiny_run, Layout(micro_batch=3), HERE)["classifier batch"] == "error"


def test_a_bucket_has_no_disk_that_could_be_full(tiny_run):
    found = grades(tiny_run, Layout(), replace(HERE, disk=None))
    assert "disk" not in found


def test_this_machine_is_looked_at(tmp_path):
    there = this_machine(Folder(tmp_path / "not/yet"))
    assert there.cpus >= 1
    assert there.memory > 0
    assert there.disk > 0
