"""The model card: scores, thresholds and how they were chosen, seed and licence."""

import pytest

import vwl
from vwl.model_file.card import model_card


def test_the_model_card_states_scores_thresholds_seed_and_licence(tiny_run, files, tmp_path):
    loaded = vwl.load_model(files / "segmenter.safetensors")
    loaded.save_pretrained(tmp_path / "hub")
    card = (tmp_path / "hub/README.md").read_text()
    for score in loaded.description.scores:
        assert f"| `{score.stage}` | {score.split} | {score.images} | {score.miou:g} |" in card
    for threshold in loaded.description.thresholds:
        assert f"`{threshold.stage}`: {threshold.threshold:g} ({threshold.chosen})" in card
    assert "seed 0" in card
    assert loaded.description.licence in card
    assert "library_name: vwl" in card


@pytest.mark.parametrize(("scored", "line"), [(None, "over all classes in the ground truth"), (("cow",), "over background, cow.")])
def test_the_card_says_which_classes_the_scores_are_over(model, scored, line):
    assert line in model_card(model.description.model_copy(update={"scored_classes": scored}))
