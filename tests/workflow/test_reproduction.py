"""Comparisons of a run with expected scores: verdicts, and reasons from the run's own records."""

from dataclasses import replace

import pytest

from tests.helpers import copy_run
from vwl.config.expectation import Expectation, ExpectedScore
from vwl.errors import VwlError
from vwl.workflow.reproduction import check_images, compare, page
from vwl.workflow.run_folder import Run


def expectation(run: Run, stage: str, offset: float, split: str = "train") -> Expectation:
    """One whose band of width 2 starts `offset` above the run's score."""
    score = next(score for score in run.manifest(stage).scores if score.split == split)
    low = score.miou + offset
    return Expectation(
        title="a test",
        data="voc",
        recipe="demo",
        images={"train": 8, "val": 4},
        scores=(ExpectedScore(stage=stage, split=split, paper=50.0, band=(low, low + 2)),),
    )


@pytest.mark.parametrize(("offset", "verdict"), [(-1, "as expected"), (1, "outside the band"), (5, "far outside the band")])
def test_a_score_is_compared_with_its_band(tiny_run, offset, verdict):
    (found,) = compare(tiny_run, "cam", expectation(tiny_run, "cam", offset))
    assert found.verdict == verdict
    assert len(found.reasons) == (0 if verdict == "as expected" else 3)


def test_a_changed_recipe_is_the_first_reason_and_random_weights_are_one(tiny_run):
    (found,) = compare(tiny_run, "cam", expectation(tiny_run, "cam", 5))
    assert found.reasons[0].startswith("the run's recipe is not demo: cam.long_side: 256 -> 96")
    assert "random weights" in found.reasons[1]


def test_a_training_below_its_probe_and_failed_images_are_reasons(tiny_run, tmp_path):
    run = copy_run(tiny_run, tmp_path)
    trained, maps = run.manifest("classifier"), run.manifest("cam")
    run.write_manifest(replace(trained, training_scores={"val_map": 0.2, "probe_val_map": 0.6}, pretrained=["weights"]))
    run.write_manifest(replace(maps, failed={"x": "is broken"}))
    (found,) = compare(run, "cam", expectation(run, "cam", 5))
    assert "below the 60.0 of a linear probe" in found.reasons[1]
    assert found.reasons[2].startswith("1 images failed in stage cam")


def test_a_stage_without_a_score_is_refused(tiny_run, tmp_path):
    run = copy_run(tiny_run, tmp_path)
    expected = expectation(run, "cam", 0)
    run.write_manifest(replace(run.manifest("cam"), scores=[]))
    with pytest.raises(VwlError, match="has no score of cam on train"):
        compare(run, "cam", expected)


def test_the_number_of_images_is_checked(tiny_run):
    expected = expectation(tiny_run, "cam", 0)
    check_images(tiny_run.index, expected)
    with pytest.raises(VwlError, match=r"split aug has 0 images, and a test has 9,118; pass --sbd"):
        check_images(tiny_run.index, expected.model_copy(update={"images": {"train": 8, "aug": 9118}}))


def test_the_page_holds_scores_reasons_settings_data_and_versions(tiny_run):
    expected = expectation(tiny_run, "cam", 5)
    comparisons = compare(tiny_run, "cam", expected)
    text = page(tiny_run, expected, comparisons)
    assert f"| cam | train | 50.0 | {comparisons[0].miou:.1f} |" in text
    assert "far outside the band" in text
    assert "1. the run's recipe is not demo" in text
    assert "`cam.long_side: 256 -> 96`" in text
    assert f"fingerprint `{tiny_run.index.fingerprint()}`, train 8, val 4." in text
    assert "torch 2" in text
