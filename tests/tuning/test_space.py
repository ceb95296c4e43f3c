"""Space files: those of the paper have its settings and mIoU, and errors are one line that names the field."""

from pathlib import Path

import pytest

from vwl.config.files import load_recipe
from vwl.config.recipe import Recipe
from vwl.errors import VwlError
from vwl.tuning.space import builtin_spaces, load_space, space_from, with_keys

GOOD = "title: T\nsource: S\nparameter: classifier.codebook.num_codewords\nvalues: [1, 2]\n"
ROWS_OF_TABLE_4 = ["baseline", "HP", "HP + VWE", "HP + VWL-M", "HP + VWL-L"]


def written(folder: Path, text: str) -> str:
    (folder / "mine.yaml").write_text(text)
    return str(folder / "mine.yaml")


def error_of(folder: Path, text: str) -> str:
    with pytest.raises(VwlError) as caught:
        load_space(written(folder, text))
    message = str(caught.value)
    assert message.startswith(f"space {folder / 'mine.yaml'}")
    assert "\n" not in message
    return message


def test_the_spaces_of_the_paper_are_built_in():
    assert builtin_spaces() == ["fig12", "joint", "table1", "table2", "table3", "table4", "table5a", "table5b", "table5c", "table5d"]


@pytest.mark.parametrize(
    ("name", "labels", "train", "val", "base"),
    [
        ("table4", ROWS_OF_TABLE_4, [49.5, 54.0, 55.1, 56.9, 57.3], [48.4, 53.1, 54.8, 56.4, 56.9], "baseline"),
        ("table5a", ["128", "256", "384", "512"], [54.8, 57.3, 55.6, 55.4], [54.5, 56.9, 55.1, 54.9], "256"),
        ("table5b", ["1", "2", "3", "4"], [55.2, 57.3, 56.6, 55.2], [54.5, 56.9, 55.8, 54.3], "2"),
        ("table5c", ["0.6", "0.8", "1.0", "1.2"], [56.9, 57.1, 57.3, 56.7], [56.3, 56.4, 56.9, 55.9], "1.0"),
        ("table5d", ["0.0001", "0.001", "0.01", "0.1"], [55.6, 56.9, 56.3, 55.9], [55.0, 56.4, 55.6, 55.3], "0.001"),
    ],
)  # fmt: skip
def test_a_table_has_the_papers_rows_and_miou(name, labels, train, val, base):
    space = load_space(name)
    settings = space.settings()
    assert [s.label for s in settings] == labels
    assert [s.paper_train for s in settings] == train
    assert [s.paper_val for s in settings] == val
    assert space.base_label == base


@pytest.mark.parametrize("name", ["table5a", "table5b", "table5c"])
def test_three_tables_are_of_the_learning_based_strategy_and_share_their_base_setting(name):
    space = load_space(name)
    recipes = {s.label: with_keys(load_recipe("small"), s.overrides, name) for s in space.settings()}
    assert {r.classifier.codebook.strategy for r in recipes.values()} == {"learning"}
    table4 = {s.label: s for s in load_space("table4").settings()}
    assert recipes[space.base_label] == with_keys(load_recipe("small"), table4["HP + VWL-L"].overrides, "table4")


def test_table_5d_is_of_the_memory_bank():
    assert {with_keys(Recipe(), s.overrides, "x").classifier.codebook.strategy for s in load_space("table5d").settings()} == {"memory"}


def test_the_rows_of_table_4_are_the_recipes_of_that_name():
    rows = {s.label: with_keys(load_recipe("paper-voc"), s.overrides, "table4").classifier for s in load_space("table4").settings()}
    names = {"baseline": "baseline", "HP": "hp", "HP + VWE": "vwe", "HP + VWL-M": "vwl-m", "HP + VWL-L": "vwl-l"}
    assert rows == {label: load_recipe(f"table4-{name}").classifier for label, name in names.items()}


def test_fig_12_is_hybrid_pooling_with_and_without_gap():
    with_gap, without = (with_keys(load_recipe("paper-voc"), s.overrides, "x").classifier for s in load_space("fig12").settings())
    assert (with_gap.gap_weight, without.gap_weight) == (2.0, 0.0)
    assert with_gap.codebook.strategy == without.codebook.strategy == "none"


def test_the_joint_space_varies_what_the_tables_vary_one_at_a_time():
    joint = load_space("joint")
    assert joint.strategy == "search"
    assert {load_space(f"table5{letter}").parameter for letter in "abcd"} < set(joint.search)
    assert joint.early_stopping is not None


def test_a_users_file_is_named_after_itself(tmp_path):
    space = load_space(written(tmp_path, GOOD))
    assert (space.name, [s.overrides for s in space.settings()]) == (
        "mine",
        [{"classifier.codebook.num_codewords": 1}, {"classifier.codebook.num_codewords": 2}],
    )
    assert space.base_label == "1"


def test_a_stored_space_is_read_unchanged():
    for name in builtin_spaces():
        space = load_space(name)
        assert space_from(space.model_dump(mode="json"), "stored") == space


@pytest.mark.parametrize(("key", "whole"), [("classifier.codebook.num_codewords", True), ("classifier.gap_weight", False)])
def test_a_range_has_integers_where_the_key_takes_only_integers(key, whole):
    found = space_from({"name": "n", "title": "T", "strategy": "search", "search": {key: {"low": 2, "high": 8}}}, "test")
    assert found.search[key].whole is whole
    assert space_from(found.model_dump(mode="json"), "test") == found


def test_the_error_for_an_unknown_space_names_the_nearest():
    with pytest.raises(VwlError, match="no space named 'table5e'; did you mean 'table5"):
        load_space("table5e")
    with pytest.raises(VwlError, match=r"space file none\.yaml does not exist"):
        load_space("none.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + "valeus: [3]\n", "unknown field 'valeus'; did you mean 'values'?"),
        (GOOD.replace("title: T\n", ""), "the field 'title' is missing"),
        (GOOD + "samples: many\n", "samples should be a valid integer"),
        (GOOD + "paper: {train: [1.0]}\n", "paper.train has 1 scores for 2 values"),
        (GOOD + "paper: {trian: [1.0, 2.0]}\n", "unknown field 'paper.trian'; did you mean 'train'?"),
        (GOOD + "compare_with: 3\n", "compare_with is 3, which is none of the settings 1, 2"),
        (GOOD.replace("[1, 2]", "[1, 1]"), "the setting 1 is given twice"),
        (GOOD.replace("values: [1, 2]\n", ""), "strategy grid needs either values or rows (given: none)"),
        (GOOD + "rows: [{label: a}]\n", "strategy grid needs either values or rows (given: values, rows)"),
        (GOOD.replace("parameter: classifier.codebook.num_codewords\n", ""), "values need the field parameter"),
        (
            GOOD.replace("num_codewords", "num_codewrods"),
            "setting 1: unknown key 'classifier.codebook.num_codewrods'; did you mean 'num_codewords'?",
        ),
        (GOOD.replace("[1, 2]", "[1, 0]"), "setting 0: classifier.codebook.num_codewords should be greater than 0"),
        (GOOD + "base: {classifier.codebok: none}\n", "unknown key 'classifier.codebok'; did you mean 'codebook'?"),
        ("title: T\nsource: S\nrows: [{label: a, sett: {}}]\n", "unknown field 'rows.0.sett'; did you mean 'set'?"),
        ("title: T\nsource: S\nrows: [{label: a, paper: {tran: 1}}]\n", "unknown field 'rows.0.paper.tran'; did you mean 'train'?"),
        ("title: T\nsource: S\nstrategy: search\n", "strategy search needs the field search"),
        ("title: T\nsource: S\nstrategy: search\nsearch: {cam.background_threshold: {low: 1}}\n", "needs choices, or low below high"),
        ("title: T\nsource: S\nstrategy: search\nsearch: {cam.treshold: {low: 0, high: 1}}\n", "search: unknown key 'cam.treshold'"),
        ("title: T\nsource: S\nstrategy: search\nsearch: {cam.background_threshold: {low: 0, high: 2}}\n", "cam.background_threshold"),
        ("title: T\nstrategy: search\nsearch: {cam.tile: {low: 128, high: 512}}\n", "cam.tile should be a multiple of 32"),
        ("title: T\nstrategy: search\nsearch: {classifier.epochs: {low: 1.5, high: 4}}\n", "classifier.epochs should be a valid integer"),
        ("- a\n", "is no mapping"),
        ("title: [\n", "is not valid YAML"),
        (GOOD + "title: U\n", "the key 'title' is given twice"),
    ],
)
def test_an_error_in_a_file_names_the_field(tmp_path, text, message):
    assert message in error_of(tmp_path, text)
