"""Recipes as YAML files: bases and overrides are merged, values are checked, and recipes are written back."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vwl.config.files import RENAMED, builtin_recipes, differences, load_recipe, recipe_from, recipe_summary, to_yaml
from vwl.config.recipe import Irnet, Optimiser, Recipe
from vwl.errors import VwlError


def written(folder: Path, name: str, text: str) -> str:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return str(path)


def problem(name_or_path: str, *overrides: str) -> str:
    with pytest.raises(VwlError) as caught:
        load_recipe(name_or_path, overrides)
    return str(caught.value)


@pytest.mark.parametrize("name", builtin_recipes())
def test_a_built_in_recipe_has_its_own_name_and_is_read_back_from_its_yaml(name, tmp_path):
    recipe = load_recipe(name)
    assert recipe.name == name
    assert load_recipe(written(tmp_path, "again.yaml", to_yaml(recipe))) == recipe


class TestReading:
    @pytest.mark.parametrize("text", ["1e-4", "1E-4", "1.e-4", ".1e-3", "+1e-4", "0.0001", "1.0e-4"])
    def test_a_power_of_ten_is_a_number(self, text, tmp_path):
        assert load_recipe("paper-voc", [f"classifier.codebook.momentum={text}"]).classifier.codebook.momentum == 1e-4
        path = written(tmp_path, "r.yaml", f"classifier: {{codebook: {{momentum: {text}}}}}")
        assert load_recipe(path).classifier.codebook.momentum == 1e-4

    def test_a_string_with_an_e_is_not_a_number(self):
        assert load_recipe("paper-voc", ["name=1e"]).name == "1e"

    def test_keys_that_a_recipe_does_not_set_come_from_its_base(self, tmp_path):
        path = written(tmp_path, "mine.yaml", "base: reference-voc\nname: mine\nclassifier: {optimiser: {power: 1.0}}")
        optimiser = load_recipe(path).classifier.optimiser
        assert (optimiser.power, optimiser.momentum, optimiser.learning_rate) == (1.0, 1e-4, 0.01)
        assert load_recipe(path).classifier.codebook.decov == "unsquared"

    def test_a_partly_set_section_keeps_the_defaults_of_that_section(self, tmp_path):
        # irnet's optimiser has other defaults than the classifier's
        path = written(tmp_path, "mine.yaml", "base: paper-voc\nirnet: {optimiser: {momentum: 0.5}}")
        assert load_recipe(path).irnet.optimiser == Irnet().optimiser.model_copy(update={"momentum": 0.5})
        assert load_recipe(path).classifier.optimiser == Optimiser()

    def test_a_list_is_replaced_and_not_merged(self):
        assert load_recipe("paper-voc", ["cam.scales=[1]"]).cam.scales == (1.0,)

    def test_the_path_of_a_base_is_relative_to_the_file_that_names_it(self, tmp_path):
        written(tmp_path, "base.yaml", "seed: 7")
        assert load_recipe(written(tmp_path, "own/mine.yaml", "base: ../base.yaml")).seed == 7

    def test_the_later_override_wins(self):
        assert load_recipe("paper-voc", ["seed=1", "seed=2"]).seed == 2

    def test_an_override_of_a_whole_section_merges(self):
        classifier = load_recipe("paper-voc", ["classifier={epochs: 2, optimiser: {momentum: 0}}"]).classifier
        assert (classifier.epochs, classifier.optimiser.momentum, classifier.optimiser.power) == (2, 0, 0.9)

    @given(
        num_codewords=st.integers(1, 10**6),
        rate=st.floats(1e-12, 1e6),
        scales=st.lists(st.floats(0.01, 10), min_size=1, max_size=5),
        threshold=st.one_of(st.sampled_from(["auto", "auto-by-class"]), st.floats(0, 1)),
        side=st.one_of(st.none(), st.integers(1, 5000)),
    )
    def test_every_value_is_read_back_from_yaml(self, num_codewords, rate, scales, threshold, side, tmp_path_factory):
        values = Recipe().model_dump()
        values["classifier"]["codebook"]["num_codewords"] = num_codewords
        values["irnet"]["optimiser"]["learning_rate"] = rate
        values["cam"].update(scales=tuple(scales), background_threshold=threshold, long_side=side)
        recipe = Recipe.model_validate(values)
        assert load_recipe(written(tmp_path_factory.mktemp("r"), "r.yaml", to_yaml(recipe))) == recipe


class TestRefusal:
    def test_an_unknown_recipe_gives_the_nearest_name(self):
        assert problem("paper-vok") == "no recipe named 'paper-vok'; did you mean 'paper-voc'? (vwl recipe list)"

    def test_a_file_that_does_not_exist(self, tmp_path):
        assert problem(str(tmp_path / "no.yaml")) == f"recipe file {tmp_path}/no.yaml does not exist"

    def test_a_file_that_is_not_text(self, tmp_path):
        (tmp_path / "r.yaml").write_bytes(b"\xff\xfe\x00")
        assert "cannot be read" in problem(str(tmp_path / "r.yaml"))

    @pytest.mark.parametrize("text", ["", "- 1", "paper"])
    def test_a_file_without_sections(self, text, tmp_path):
        assert problem(written(tmp_path, "r.yaml", text)).endswith("is not a mapping of sections")

    def test_a_file_that_is_not_yaml_gives_one_line_with_its_name(self, tmp_path):
        message = problem(written(tmp_path, "r.yaml", "classifier: {epochs: 3\ncam: ["))
        assert "r.yaml is not valid YAML" in message
        assert "\n" not in message

    @pytest.mark.parametrize(
        ("override", "suggestion"),
        [
            ("clasifier.epochs=2", "unknown key 'clasifier'; did you mean 'classifier'?"),
            ("classifier.codebook.num_codeword=2", "unknown key 'classifier.codebook.num_codeword'; did you mean 'num_codewords'?"),
            ("irnet.optimiser.momentun=2", "unknown key 'irnet.optimiser.momentun'; did you mean 'momentum'?"),
            ("crf.kernels.iteration=2", "unknown key 'crf.kernels.iteration'; did you mean 'iterations'?"),
            ("qqqq=2", "unknown key 'qqqq'"),
        ],
    )
    def test_an_unknown_key_gives_the_nearest_one(self, override, suggestion):
        assert problem("paper-voc", override) == f"recipe paper-voc: {suggestion}"

    @pytest.mark.parametrize(
        ("override", "message"),
        [
            ("classifier.epochs=-1", "classifier.epochs should be greater than or equal to 0 (given: -1)"),
            ("classifier.epochs=0", "classifier: epochs 0 needs linear_probe: init, or start_from"),
            ("classifier.crop=512.5", "classifier.crop should be a valid integer, got a number with a fractional part (given: 512.5)"),
            ("classifier.pooling=max", "classifier.pooling should be 'gap' or 'hybrid' (given: 'max')"),
            ("classifier.optimiser.momentum=1.5", "classifier.optimiser.momentum should be less than or equal to 1 (given: 1.5)"),
            ("classifier.gap_weight=.nan", "classifier.gap_weight should be a finite number (given: nan)"),
            ("classifier.gap_weight=.inf", "classifier.gap_weight should be a finite number (given: inf)"),
            ("classifier.resize=[640, 320]", "classifier.resize must have its smaller end first (given: [640, 320])"),
            ("irnet.rescale=[1.5, 0.5]", "irnet.rescale must have its smaller end first (given: [1.5, 0.5])"),
            ("classifier.epochs=true", "classifier.epochs should not be true or false (given: True)"),
            ("seed=off", "seed should not be true or false (given: False)"),
            ("cam.scales=[1, true]", "cam.scales should not be true or false (given: [1, True])"),
            ("classifier.backbone.weights=no", "classifier.backbone.weights should not be true or false (given: False)"),
            ("cam.scales=[]", "cam.scales needs at least one value (given: [])"),
            ("cam.scales=[1, -1]", "cam.scales.1 should be greater than 0 (given: -1)"),
            (
                "cam.background_threshold=2",
                "cam.background_threshold should be less than or equal to 1 or should be 'auto' or 'auto-by-class' (given: 2)",
            ),
            ("crf.kernels.bilateral_sxy=0", "crf.kernels.bilateral_sxy should be greater than 0 (given: 0)"),
            ("seed=-1", "seed should be greater than or equal to 0 (given: -1)"),
        ],
    )
    def test_a_value_out_of_range_gives_one_line(self, override, message):
        assert problem("paper-voc", override) == f"recipe paper-voc: {message}"

    def test_none_for_a_number_gives_a_hint_to_write_null(self):
        assert "write null for none" in problem("paper-voc", "cam.long_side=none")
        assert load_recipe("paper-voc", ["cam.long_side=null"]).cam.long_side is None

    def test_all_problems_are_in_one_message(self, tmp_path):
        path = written(tmp_path, "r.yaml", "base: paper-voc\nsede: 1\nclassifier: {epochs: -1, pooling: max, optimiser: {rate: 1}}")
        message = problem(path, "cam.scale=1")
        for part in ("'sede'", "classifier.epochs", "classifier.pooling", "'classifier.optimiser.rate'", "'cam.scale'"):
            assert part in message
        assert "\n" not in message

    def test_a_key_given_twice(self, tmp_path):
        message = problem(written(tmp_path, "r.yaml", "classifier: {epochs: 1}\ncam: {hflip: true}\nclassifier: {crop: 64}\n"))
        assert re.search(r"the key 'classifier' is given twice .*line 3", message)

    @pytest.mark.parametrize("override", ["classifier.epochs", "", "classifier.epochs 3"])
    def test_an_override_without_a_value(self, override):
        assert problem("paper-voc", override) == f"override '{override}' is not of the form section.key=value"

    def test_recipes_that_name_each_other_as_base(self, tmp_path):
        first = written(tmp_path, "a.yaml", "base: b.yaml")
        written(tmp_path, "b.yaml", "base: a.yaml")
        assert problem(first) == f"bases of recipes form a circle: {tmp_path}/a.yaml -> {tmp_path}/b.yaml -> {tmp_path}/a.yaml"

    def test_a_base_that_does_not_exist(self, tmp_path):
        assert problem(written(tmp_path, "a.yaml", "base: paper")).startswith("no recipe named 'paper'")


def test_differences_name_section_and_key():
    assert differences(load_recipe("paper-voc"), load_recipe("paper-voc", ["cam.scales=[1]", "irnet.optimiser.momentum=0"])) == [
        "cam.scales: [1.0, 0.5, 1.5, 2.0] -> [1.0]",
        "irnet.optimiser.momentum: 0.9 -> 0.0",
    ]
    assert differences(Recipe(), Recipe()) == []


def test_a_renamed_key_is_refused_with_its_new_name(tmp_path):
    for old, new in RENAMED.items():
        *sections, last = old.split(".")
        nested = {last: "x"}
        for section in reversed(sections):
            nested = {section: nested}
        for refused in (lambda values=nested: recipe_from(values, "r.yaml"), lambda key=old: load_recipe("demo", [f"{key}=1"])):
            with pytest.raises(VwlError, match=re.escape(f"'{old}' is now '{new}'")):
                refused()


def test_every_renamed_key_has_a_name_that_exists_and_its_old_name_does_not():
    keys = {line.partition(":")[0] for line in flat_keys(Recipe().model_dump())}
    assert set(RENAMED.values()) <= keys
    assert not set(RENAMED) & keys


def flat_keys(values: dict, prefix: str = "") -> list[str]:
    return [
        key
        for name, value in values.items()
        for key in (flat_keys(value, f"{prefix}{name}.") if isinstance(value, dict) else [f"{prefix}{name}"])
    ]


@pytest.mark.parametrize("name", builtin_recipes())
def test_the_summary_of_a_recipe_is_a_whole_paragraph(name):
    assert recipe_summary(name).endswith(".")
