"""The table of stages: their order, what each reads and which images it takes."""

from pathlib import Path

import pytest

from vwl.cli.infer import app as infer
from vwl.cli.train import app as train
from vwl.config.recipe import Recipe
from vwl.data.index import Index, Row, make_index
from vwl.inference.build import NETWORK_STAGES
from vwl.workflow.pipeline import SCORED
from vwl.workflow.stages import STAGES, scored_rows, stages_of, training_rows


def index_of(*rows: tuple[str, str, bool, bool], root: Path = Path("/images")) -> Index:
    """An index of (id, split, whether it has a label, whether it has a mask)."""
    made = [Row(name, f"{name}.jpg", (1,) if label else (), f"{name}.png" if mask else None, split) for name, split, label, mask in rows]
    return make_index(made, ("background", "cat"), root, "a test")


MIXED = index_of(
    ("t1", "train", True, True),
    ("t2", "train", True, False),
    ("a1", "aug", True, False),
    ("a2", "aug", True, True),
    ("v1", "val", True, True),
    ("v2", "val", True, False),
    ("v3", "val", False, True),
    ("x1", "test", True, True),
)


def ids(rows: list[Row]) -> str:
    return " ".join(row.image_id for row in rows)


def test_every_stage_is_listed_under_its_own_name():
    assert [spec.name for spec in STAGES.values()] == list(STAGES)


def test_a_stage_reads_only_stages_before_it():
    order = list(STAGES)
    for name, spec in STAGES.items():
        for refiner in ("irnet", "psa", "none"):
            assert all(order.index(read) < order.index(name) for read in spec.reads(Recipe(refiner=refiner)))


def test_the_order_is_that_of_the_method():
    assert stages_of(Recipe()) == ["classifier", "cam", "crf", "irnet-labels", "irnet", "walk", "masks", "segmenter", "segment"]
    assert reads_of_several(Recipe()) == {"classifier": (), "walk": ("cam", "irnet")}


def test_another_refiner_replaces_the_stages_of_irnet():
    psa = Recipe(refiner="psa")
    assert stages_of(psa) == ["classifier", "cam", "crf", "psa-labels", "psa", "walk", "masks", "segmenter", "segment"]
    assert reads_of_several(psa) == {"classifier": (), "walk": ("cam", "psa")}


def test_without_a_refiner_the_masks_are_those_of_the_class_activation_maps():
    none = Recipe(refiner="none")
    assert stages_of(none) == ["classifier", "cam", "crf", "masks", "segmenter", "segment"]
    assert STAGES["masks"].reads(none) == ("cam",)


def reads_of_several(recipe: Recipe) -> dict[str, tuple[str, ...]]:
    reads = {name: STAGES[name].reads(recipe) for name in stages_of(recipe)}
    return {name: stages for name, stages in reads.items() if len(stages) != 1}


def test_all_that_is_scored_is_a_stage_that_leaves_maps_or_masks():
    assert [name for name in STAGES if name in SCORED] == list(SCORED)
    assert {STAGES[name].kind for name in SCORED} == {"maps", "masks"}


def test_stages_that_run_a_network_read_a_training():
    for name, spec in STAGES.items():
        if spec.kind != "train":
            assert (name in NETWORK_STAGES) == any(STAGES[read].kind == "train" for read in spec.reads(Recipe()))


def test_the_command_line_has_every_stage():
    assert [command.name or command.callback.__name__ for command in train.registered_commands] == [
        name for name, spec in STAGES.items() if spec.kind == "train"
    ]
    assert [command.name for command in infer.registered_commands] == [
        *(name for name, spec in STAGES.items() if spec.kind != "train"),
        "stream",
    ]


def test_trainings_take_train_and_aug():
    assert ids(training_rows(MIXED)) == "t1 t2 a1 a2"


def test_scored_are_images_with_labels_and_ground_truth():
    assert ids(scored_rows(MIXED, "train")) == "t1"
    assert ids(scored_rows(MIXED, "val")) == "v1"
    assert scored_rows(MIXED, "test2") == []


@pytest.mark.parametrize(
    ("name", "wanted"),
    {
        "cam": "t1 t2 a1 a2 v1",
        "crf": "t1 v1",
        "irnet-labels": "t1 t2 a1 a2",
        "walk": "t1 t2 a1 a2 v1",
        "masks": "t1 t2 a1 a2",
        "segment": "t1 v1 x1",  # the test split is what the VOC server scores
    }.items(),
)
def test_a_stage_takes_what_is_trained_on_or_scored(name, wanted):
    assert ids(STAGES[name].rows(MIXED)) == wanted


def test_the_images_of_a_stage_are_chosen_without_an_object_for_each(monkeypatch):
    monkeypatch.setattr("vwl.data.rows._rows_of", None)
    assert {name: len(spec.rows(MIXED)) for name, spec in STAGES.items()}["segment"] == 3


@pytest.mark.parametrize("name", ["crf", "segment"])
def test_without_ground_truth_the_training_images_are_taken(name):
    bare = index_of(("t1", "train", True, False), ("a1", "aug", True, False), ("v1", "val", True, False))
    assert ids(STAGES[name].rows(bare)) == "t1 a1"


def test_the_order_of_the_rows_is_that_of_the_index():
    turned = index_of(("v1", "val", True, True), ("t1", "train", True, True), ("a1", "aug", True, False))
    assert ids(STAGES["cam"].rows(turned)) == "v1 t1 a1"


@pytest.mark.parametrize("section", ["cam", "walk"])
def test_the_settings_of_soft_maps_do_not_hold_the_threshold(section):
    recipe = Recipe()
    other = recipe.model_copy(update={section: getattr(recipe, section).model_copy(update={"background_threshold": "auto"})})
    assert STAGES[section].settings(recipe) == STAGES[section].settings(other)


@pytest.mark.parametrize("recipe", [Recipe(), Recipe(refiner="psa")])
def test_which_code_walks_is_no_setting_of_runs_from_before_unless_it_is_chosen(recipe):
    section = "psa_walk" if recipe.refiner == "psa" else "walk"
    chosen = recipe.model_copy(update={section: getattr(recipe, section).model_copy(update={"implementation": "torch"})})
    before, now = STAGES["walk"].settings(recipe), STAGES["walk"].settings(chosen)
    assert "implementation" not in before
    assert now == {**before, "implementation": "torch"}
