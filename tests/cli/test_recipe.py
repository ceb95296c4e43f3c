"""`vwl recipe`: what it lists is there, what it shows loads again."""

import json
import shlex

import pytest
from typer.testing import CliRunner

from vwl.cli import recipe as command
from vwl.cli.main import app
from vwl.config.files import builtin_recipes, load_recipe
from vwl.config.recipe import Recipe


def run(line: str, code: int = 0) -> str:
    result = CliRunner().invoke(app, shlex.split(line))
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def test_list_names_every_built_in_recipe_and_says_what_it_is():
    rows = json.loads(run("recipe list --json"))
    assert [row["name"] for row in rows] == builtin_recipes()
    assert all(len(row["about"]) > 10 for row in rows)
    text = run("recipe list")
    assert all(f"\n{row['name']}  " in text and row["about"] in text for row in rows)


def test_show_prints_yaml_that_loads_as_the_same_recipe(tmp_path):
    (tmp_path / "again.yaml").write_text(run("recipe show reference-voc-m -o seed=3 -o classifier.codebook.num_codewords=12"))
    assert load_recipe(str(tmp_path / "again.yaml")) == load_recipe("reference-voc-m", ["seed=3", "classifier.codebook.num_codewords=12"])


def test_show_prints_json():
    assert Recipe.model_validate(json.loads(run("recipe show paper-coco --json"))) == load_recipe("paper-coco")


def test_show_against_prints_the_differences_by_itself():
    assert (
        run("recipe show table4-hp --against paper-voc") == "classifier.codebook.strategy: learning -> none\nname: paper-voc -> table4-hp\n"
    )
    assert json.loads(run("recipe show paper-voc --against paper-voc --json")) == []


def test_show_prints_what_is_wrong_in_one_line():
    assert (
        run("recipe show paper-voc -o cam.scale=1", code=1) == "error: recipe paper-voc: unknown key 'cam.scale'; did you mean 'scales'?\n"
    )


def test_keys_are_those_of_the_recipe_with_its_defaults():
    rows = {row["key"]: row for row in json.loads(run("recipe keys --json"))}
    for key, row in rows.items():
        if key != "name":
            load_recipe("paper-voc", [f"{key}={row['default']}"])
    assert load_recipe("paper-voc", [f"{key}={row['default']}" for key, row in rows.items()]) == Recipe()
    assert rows["irnet.optimiser.learning_rate"]["default"] == "0.1"
    assert rows["classifier.optimiser.learning_rate"]["default"] == "0.01"
    assert rows["classifier.codebook.num_codewords"] == {
        "key": "classifier.codebook.num_codewords",
        "type": "integer > 0",
        "default": "256",
        "about": "Number of visual words, k in the paper.",
    }


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("classifier.pooling", "gap | hybrid"),
        ("cam.background_threshold", "number 0..1 | auto | auto-by-class"),
        ("cam.long_side", "integer > 0 | null"),
        ("cam.hflip", "boolean"),
        ("cam.scales", "list of number > 0 <= 16"),
        ("classifier.resize", "[integer > 0, integer > 0]"),
        ("irnet_labels.confidence", "number > 0 < 1"),
    ],
)
def test_a_key_shows_which_values_it_takes(key, kind):
    assert {row["key"]: row["type"] for row in json.loads(run("recipe keys --json"))}[key] == kind


def test_keys_of_one_section_are_shown_by_itself():
    keys = [row["key"] for row in json.loads(run("recipe keys crf.kernels --json"))]
    assert "crf.kernels.iterations" in keys
    assert all(key.startswith("crf.kernels.") for key in keys)
    assert run("recipe keys crf.kernel", code=1) == "error: a recipe has no section 'crf.kernel'; did you mean 'crf.kernels'?\n"


@pytest.mark.parametrize("function", [command.list_recipes, command.show, command.keys])
def test_the_examples_run(function):
    for line in function.__doc__.partition("Examples:")[2].strip().splitlines():
        assert run(line.strip().removeprefix("vwl ")) != ""
