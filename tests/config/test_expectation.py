from pathlib import Path

import pytest

from vwl.config.expectation import ExpectedScore, load_expectation
from vwl.config.files import builtin_recipes
from vwl.errors import VwlError

TEXT = """
title: a test
data: voc
recipe: small
images: {train: 2}
scores:
  - {stage: cam, split: train, band: [40, 50]}
"""


@pytest.mark.parametrize("name", ["voc", "coco"])
def test_the_papers_results_are_built_in_and_lie_in_their_bands(name):
    expected = load_expectation(name)
    assert expected.recipe in builtin_recipes()
    for score in expected.scores:
        assert score.paper is not None
        assert score.verdict(score.paper) == "as expected"


@pytest.mark.parametrize(
    ("miou", "verdict"),
    [
        (40.0, "as expected"),
        (50.0, "as expected"),
        (39.9, "outside the band"),
        (30.0, "outside the band"),
        (29.9, "far outside the band"),
        (60.1, "far outside the band"),
    ],
)
def test_verdicts(miou, verdict):
    assert ExpectedScore(stage="cam", split="train", band=(40, 50)).verdict(miou) == verdict


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[40, 50]", "[50, 40]", "scores.0.band must have its smaller end first"),
        ("stage: cam", "stage: irnet", "scores.0.stage should be 'cam', 'crf', 'walk' or 'segment'"),
        ("title: a test", "titel: a test", "unknown key 'titel'; did you mean 'title'?"),
    ],
)
def test_a_mistake_is_named(tmp_path: Path, old: str, new: str, message: str):
    path = tmp_path / "own.yaml"
    path.write_text(TEXT.replace(old, new))
    with pytest.raises(VwlError) as refused:
        load_expectation(str(path))
    assert message in str(refused.value)


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(VwlError, match=r"no expectation named 'vok'; did you mean 'voc'\? \(built in: coco, voc\)"):
        load_expectation("vok")
