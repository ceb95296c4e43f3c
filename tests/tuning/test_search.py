"""The plan of a search: settings by seeds, trial ids from the hash of the recipe, and the stored search."""

from dataclasses import replace

import pytest

from tests.tuning.searches import search_of, space, tiny_index, tiny_recipe
from vwl.config.files import load_recipe
from vwl.config.recipe import Recipe
from vwl.data.index import read_index
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.tuning.search import Search, groups, open_searches
from vwl.tuning.space import load_space
from vwl.tuning.trials import Trial

ROWS = {"rows": [{"label": "low", "set": {"cam.background_threshold": 0.1}}, {"label": "high", "set": {"cam.background_threshold": 0.3}}]}


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> str:
    return tiny_index(tmp_path_factory.mktemp("search"))


def planned(found, index_path, **more) -> Search:
    return Search.plan(found, tiny_recipe(), read_index(index_path), index_path, **{"num_seeds": 2, **more})


def test_every_setting_has_every_seed_ordered_by_seed():
    found = search_of(space()).entries()
    assert [(entry.setting.label, entry.seed) for entry in found] == [("8", 0), ("16", 0), ("8", 1), ("16", 1)]
    assert [(entry.trial.recipe.classifier.codebook.num_codewords, entry.trial.recipe.seed) for entry in found] == [
        (8, 0),
        (16, 0),
        (8, 1),
        (16, 1),
    ]


def test_seeds_are_counted_up_from_the_recipes():
    recipe = Recipe(seed=5)
    assert Trial(recipe, "cam").id.endswith(f"-s5-{Trial(recipe, 'cam').recipe_hash[:8]}")


def test_a_setting_that_is_in_two_tables_is_one_trial():
    recipe = load_recipe("small")
    of = {
        name: {e.setting.label: e.trial.id for e in search_of(load_space(name), 1, recipe).entries()}
        for name in ("table4", "table5a", "table5b")
    }
    assert of["table4"]["HP + VWL-L"] == of["table5a"]["256"] == of["table5b"]["2"]
    assert len({name for table in of.values() for name in table.values()}) == 5 + 3 + 3


@pytest.mark.parametrize(
    ("recipe", "start"),
    [
        ("table4-baseline", "gap-s0-"),
        ("table4-hp", "hp-gamma2-s0-"),
        ("table4-vwe", "hp-gamma2-learning-k256-tau1-nodecov-s0-"),
        ("table4-vwl-l", "hp-gamma2-learning-k256-tau1-s0-"),
        ("table4-vwl-m", "hp-gamma2-memory-k256-rho0.001-s0-"),
    ],
)
def test_a_trial_is_named_after_its_method(recipe, start):
    name = Trial(load_recipe(recipe), "cam").id
    assert name.startswith(start)
    assert len(name) == len(start) + 8


def test_the_id_of_a_trial_depends_only_on_what_its_stages_depend_on():
    base = Trial(Recipe(), "cam").id
    assert Trial(Recipe(name="other"), "cam").id == base
    assert Trial(load_recipe("paper-voc", ["segmenter.crop=257"]), "cam").id == base
    changes = ["cam.hflip=false", "cam.background_threshold=0.2", "classifier.epochs=7", "seed=1", "evaluation.classes=[dog]"]
    assert base not in {Trial(load_recipe("paper-voc", [change]), "cam").id for change in changes}
    assert Trial(load_recipe("paper-voc", ["irnet_labels.confidence=0.6"]), "walk").id != Trial(Recipe(), "walk").id


def test_a_trial_has_the_stages_that_its_score_needs():
    assert Trial(Recipe(), "cam").stages == ["classifier", "cam"]
    assert Trial(Recipe(), "walk").stages == ["classifier", "cam", "irnet-labels", "irnet", "walk"]


def test_trials_that_differ_after_training_are_one_group():
    after = space(parameter=None, values=[], **ROWS)
    assert [len(group) for group in groups(search_of(after).entries(), "")] == [2, 2]
    assert [len(group) for group in groups(search_of(space()).entries(), "")] == [1, 1, 1, 1]


def test_thresholds_are_chosen_without_ground_truth_by_default(index_path):
    def threshold(**more):
        return planned(space(), index_path, **more).recipe.cam.background_threshold

    assert tiny_recipe("cam.background_threshold=0.2").cam.background_threshold == 0.2
    assert threshold() == "auto"
    assert threshold(threshold="0.3") == 0.3
    assert threshold(threshold="recipe") == tiny_recipe().cam.background_threshold
    with pytest.raises(VwlError, match="--threshold often is neither"):
        threshold(threshold="often")


def test_the_crf_uses_the_threshold_of_the_maps(index_path):
    def background(stage, threshold):
        recipe = tiny_recipe("crf.background=0.2")
        return Search.plan(space(stage=stage), recipe, read_index(index_path), index_path, 1, threshold).recipe.crf.background

    assert background("crf", "auto") == background("crf", "0.3") == "auto"
    assert background("crf", "recipe") == background("cam", "auto") == 0.2


def test_each_sample_has_each_seed():
    found = space(parameter=None, values=[], strategy="search", search={"classifier.codebook.num_codewords": {"choices": [4, 8]}})
    search = replace(search_of(found), samples=({"classifier.codebook.num_codewords": 8}, {"classifier.codebook.num_codewords": 4}))
    assert [(entry.setting.label, entry.seed) for entry in search.entries()] == [
        ("sample 1", 0),
        ("sample 2", 0),
        ("sample 1", 1),
        ("sample 2", 1),
    ]
    assert [(entry.trial.recipe.classifier.codebook.num_codewords, entry.trial.recipe.seed) for entry in search.entries()] == [
        (8, 0),
        (4, 0),
        (8, 1),
        (4, 1),
    ]


def test_a_space_of_thresholds_overrides_the_default_threshold(index_path):
    after = space(parameter=None, values=[], **ROWS)
    found = planned(after, index_path).entries()
    assert {entry.trial.recipe.cam.background_threshold for entry in found} == {0.1, 0.3}


def test_a_data_set_without_ground_truth_is_an_error(tmp_path, index_path):
    index = read_index(index_path)
    bare = replace(index, rows=tuple(replace(row, mask=None) for row in index.rows))
    with pytest.raises(VwlError, match="no ground truth"):
        Search.plan(space(), tiny_recipe(), bare, index_path, 1)


def test_a_stored_search_is_read_unchanged(tmp_path, index_path):
    search = replace(planned(space(), index_path), samples=({"classifier.codebook.num_codewords": 4},))
    search.write(Folder(tmp_path))
    assert Search.read(Folder(tmp_path), "words") == search
    assert open_searches(Folder(tmp_path)) == [search]


def test_a_search_keeps_its_stored_seeds(tmp_path, index_path):
    planned(space(), index_path, num_seeds=3).write(Folder(tmp_path))
    assert planned(space(), index_path, num_seeds=1).joined_with_stored(Folder(tmp_path)).seeds == (0, 1, 2)


def test_another_recipe_data_set_or_domain_in_the_same_folder_is_an_error(tmp_path, index_path):
    root, search = Folder(tmp_path), planned(space(), index_path)
    search.write(root)
    other = tiny_recipe("classifier.crop=96", "cam.background_threshold=auto", "walk.background_threshold=auto")
    with pytest.raises(VwlError, match=r"with another recipe \(classifier\.crop: 64 -> 96\)"):
        replace(search, recipe=other).joined_with_stored(root)
    with pytest.raises(VwlError, match="on another data set"):
        replace(search, index_fingerprint="other").joined_with_stored(root)
    sampled = {"parameter": None, "values": [], "strategy": "search"}
    drawn = space(name="drawn", **sampled, search={"classifier.codebook.num_codewords": {"choices": [4, 8]}})
    replace(search, space=drawn).write(root)
    other = space(name="drawn", **sampled, search={"classifier.codebook.num_codewords": {"choices": [4, 16]}})
    with pytest.raises(VwlError, match="drawn with other domains"):
        replace(search, space=other).joined_with_stored(root)


def test_a_space_may_gain_settings_and_may_not_lose_any(tmp_path, index_path):
    root, search = Folder(tmp_path), planned(space(values=[8, 16]), index_path)
    search.write(root)
    replace(search, space=space(values=[16, 32, 8])).joined_with_stored(root)
    for changed, field in (
        ({"values": [8, 32]}, "settings"),
        ({"base": {"classifier.pooling": "gap"}}, "settings"),
        ({"stage": "walk"}, "stage"),
    ):
        with pytest.raises(VwlError, match=f"holds the search words with other {field}; rename the space file"):
            replace(search, space=space(**{"values": [8, 16], **changed})).joined_with_stored(root)
    sampled = {"name": "drawn", "parameter": None, "values": [], "strategy": "search"}
    drawn = space(**sampled, search={"classifier.codebook.num_codewords": {"choices": [4, 8]}})
    replace(search, space=drawn).write(root)
    more = space(
        **sampled, search={"classifier.codebook.num_codewords": {"choices": [4, 8]}}, samples=40, early_stopping={"grace_epochs": 2}
    )
    replace(search, space=more).joined_with_stored(root)
    other = space(**sampled, search={"classifier.codebook.num_codewords": {"choices": [4, 8]}}, base={"classifier.pooling": "gap"})
    with pytest.raises(VwlError, match="holds the search drawn with other base"):
        replace(search, space=other).joined_with_stored(root)


def test_the_data_set_of_stored_searches_may_have_moved(tmp_path, index_path):
    search = planned(space(), index_path)
    search.write(Folder(tmp_path))
    assert open_searches(Folder(tmp_path), None, "/new/index.parquet") == [replace(search, index_path="/new/index.parquet")]


def test_the_error_for_an_unknown_search_names_those_in_the_folder(tmp_path, index_path):
    with pytest.raises(VwlError, match="holds no search; start one"):
        open_searches(Folder(tmp_path))
    planned(space(), index_path).write(Folder(tmp_path))
    with pytest.raises(VwlError, match="no search of the space table4; it holds words"):
        open_searches(Folder(tmp_path), "table4")
