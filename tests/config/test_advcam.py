"""AdvCAM's section: off, it changes nothing of runs and searches of before; on, their maps are others."""

import pytest

from vwl.config.files import load_recipe
from vwl.config.recipe import Recipe, hashed_settings
from vwl.errors import VwlError
from vwl.tuning.trials import Trial
from vwl.workflow.run_folder import stage_fingerprint
from vwl.workflow.stages import STAGES

ON = ["cam.advcam.steps=27"]


def test_without_steps_fingerprints_are_those_of_before():
    assert "advcam" not in hashed_settings(Recipe(), "cam")
    assert "advcam" not in STAGES["cam"].settings(Recipe())
    # as computed before the section existed
    assert stage_fingerprint("cam", Recipe(), "0" * 16) == "9341e72ae8d41a13"
    assert stage_fingerprint("walk", Recipe(), "0" * 16) == "ac7c5e6f76e90178"
    assert Trial(Recipe(), "walk").recipe_hash == "948f9393d6efca84"


def test_with_steps_the_maps_and_what_reads_them_are_others_and_the_classifier_is_the_same():
    on = load_recipe("paper-voc", ON)
    off = load_recipe("paper-voc")
    same = {
        stage: stage_fingerprint(stage, on, "0" * 16) == stage_fingerprint(stage, off, "0" * 16) for stage in ("classifier", "cam", "walk")
    }
    assert same == {"classifier": True, "cam": False, "walk": False}
    assert Trial(on, "cam").recipe_hash != Trial(off, "cam").recipe_hash
    assert Trial(on, "classifier").recipe_hash == Trial(off, "classifier").recipe_hash


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("cam.advcam.steps=-1", "cam.advcam.steps"),
        ("cam.advcam.step_size=0", "cam.advcam.step_size"),
        ("cam.advcam.region_threshold=1.5", "cam.advcam.region_threshold"),
        ("cam.method=lpcam", "advcam.steps = 27 needs method: weights"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_in_a_line(key, message):
    with pytest.raises(VwlError) as raised:
        load_recipe("paper-voc", [*ON, key])
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
