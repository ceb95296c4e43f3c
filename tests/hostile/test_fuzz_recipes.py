"""Fuzzing of recipe files and of `-o`: whatever they hold, a command works or ends in one line."""

import tempfile
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.helpers import tiny_scenes
from tests.hostile.bounds import check_bounds
from vwl.config.files import RENAMED, builtin_recipes
from vwl.config.named_files import read_named
from vwl.config.recipe import Recipe
from vwl.data.index import write_index

FEW, MANY = 60, 1500


def flat(values: dict[str, Any], prefix: str = "") -> list[str]:
    """The keys of a recipe and of its sections."""
    keys = []
    for name, value in values.items():
        keys.append(f"{prefix}{name}")
        if isinstance(value, dict):
            keys += flat(value, f"{prefix}{name}.")
    return keys


KEYS = flat(Recipe().model_dump())
TEXTS = [read_named(name, "recipe", "vwl.config.recipes", "vwl recipe list") for name in builtin_recipes()]
TOKENS = [
    "{",
    "}",
    "[",
    "]",
    ":",
    ",",
    "&",
    "*",
    "!",
    "|",
    ">",
    "-",
    "?",
    "#",
    "'",
    '"',
    "%",
    "@",
    "`",
    "~",
    "=",
    ".",
    "/",
    "\\",
    "<<",
    ":",
    "null",
    "true",
    "no",
    "off",
    ".nan",
    "-.inf",
    "1e400",
    "0x1F",
    "0b_",
    "0o17",
    "1_000",
    "1:30",
    "2020-02-30",
    "2020-01-01",
    "---",
    "...",
    "&a",
    "*a",
    "&b",
    "*b",
    "!!int",
    "!!float",
    "!!binary",
    "!!set",
    "!!python/none",
    "<<:*a",
    "key:",
    "-",
    "base:",
    "seed:",
    "name:",
    "cam:",
    "classifier:",
    "demo",
    "auto",
    "none",
]

numbers = st.one_of(
    st.integers(), st.integers(-(2**70), 2**70), st.floats(), st.sampled_from([0, 1, -1, 16, 73, 2**63 - 1, 2**63, 10**400, 1e-320])
)
scalars = st.one_of(st.none(), st.booleans(), numbers, st.text(max_size=20), st.sampled_from(["auto", "none", "imagenet", "", "demo"]))
values = st.recursive(
    scalars, lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(scalars, inner, max_size=4)), max_leaves=12
)
keys = st.one_of(
    st.sampled_from(KEYS), st.sampled_from(sorted(RENAMED)), st.sampled_from(["base", "", ".", "..", "cam.", ".cam"]), st.text(max_size=12)
)
value_texts = st.one_of(
    values.map(lambda value: yaml.safe_dump(value, default_flow_style=True).removesuffix("...\n").strip()),
    st.lists(st.sampled_from(TOKENS), max_size=8).map(" ".join),
    st.text(max_size=30),
)
overrides = st.one_of(st.builds("{}={}".format, keys, value_texts), st.text(max_size=30))
"""Overrides as they are typed: `key=value`, or any text."""


@st.composite
def mappings(draw: st.DrawFn) -> str:
    """A recipe of known and unknown keys with any values, as YAML."""
    wanted: dict[Any, Any] = {}
    for key in draw(st.lists(keys, max_size=6)):
        inner = wanted
        *sections, last = key.split(".")
        for section in sections:
            inner = inner.setdefault(section, {})
            if not isinstance(inner, dict):
                break
        else:
            inner[last] = draw(values)
    return yaml.safe_dump(wanted, allow_unicode=draw(st.booleans()))


@st.composite
def edited(draw: st.DrawFn) -> str:
    """A built-in recipe with some parts deleted, doubled or replaced by tokens of YAML."""
    text = draw(st.sampled_from(TEXTS))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(text)))
        end = min(len(text), start + draw(st.integers(0, 40)))
        middle = draw(st.one_of(st.just(""), st.just(text[start:end] * 2), st.sampled_from(TOKENS), st.text(max_size=5)))
        text = text[:start] + middle + text[end:]
    return text


@st.composite
def anchors(draw: st.DrawFn) -> str:
    """Lists and mappings of aliases of each other, many of them bombs."""
    lines = ["a0: &a0 [1]"]
    for number in range(1, draw(st.integers(1, 40))):
        names = [f"*a{draw(st.integers(0, number))}" for _ in range(draw(st.integers(1, 9)))]
        form = draw(st.sampled_from(["[{}]", "{{x: [{}]}}", "{{<<: [{}]}}"]))
        lines.append(f"a{number}: &a{number} {form.format(', '.join(names))}")
    return "\n".join(lines)


nested = st.builds(
    lambda opening, depth, end: opening * depth + end,
    st.sampled_from(["[", "{a: ", "- ", "? ", "a: [", "!!set {"]),
    st.integers(0, 3000),
    st.text(max_size=3),
)
texts = st.one_of(
    mappings(), edited(), anchors(), nested, st.lists(st.sampled_from(TOKENS), max_size=25).map(" ".join), st.text(max_size=200)
)
contents = st.one_of(texts.map(lambda text: text.encode("utf-8", "surrogatepass")), st.binary(max_size=200))
"""Recipe files: YAML that is nearly a recipe, tokens of YAML in any order, any text, any bytes."""


def show(content: bytes, changes: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "r.yaml")
        path.write_bytes(content)
        check_bounds(["recipe", "show", str(path), *(word for change in changes for word in ("-o", change))], Path(folder))


def with_options(count: int) -> settings:
    return settings(max_examples=count, suppress_health_check=list(HealthCheck))


@with_options(FEW)
@given(contents)
def test_any_recipe_file_is_read_or_refused_in_one_line(content):
    show(content, [])


@with_options(FEW)
@given(st.lists(overrides, min_size=1, max_size=3))
def test_any_override_is_applied_or_refused_in_one_line(changes):
    show(b"base: demo\n", changes)


@pytest.mark.drill
@with_options(2 * MANY)
@given(contents)
def test_many_recipe_files(content):
    show(content, [])


@pytest.mark.drill
@with_options(2 * MANY)
@given(st.lists(overrides, min_size=1, max_size=3))
def test_many_overrides(changes):
    show(b"base: demo\n", changes)


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("plan")
    write_index(tiny_scenes(folder / "scenes"), folder / "index.parquet")
    import_module("vwl.cluster.plan")  # takes seconds, which are none of an input's
    return str(folder / "index.parquet")


LEAVES = [
    key for key in KEYS if not any(other.startswith(f"{key}.") for other in KEYS) and not key.endswith(("weights", "start_from", ".name"))
]
settings_of_stages = st.builds(
    "{}={}".format, st.sampled_from(LEAVES), st.one_of(numbers, st.lists(numbers, max_size=3), st.integers(1, 10**6))
)


def plan(changes: list[str], index_path: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        words = [
            "plan",
            "--data",
            index_path,
            "--recipe",
            "demo",
            "--run",
            folder,
            *(word for change in changes for word in ("-o", change)),
        ]
        check_bounds(words, Path(folder), messages=True)


@with_options(10)
@given(st.lists(settings_of_stages, max_size=3))
def test_any_settings_can_be_planned_or_are_refused_in_one_line(index_path, changes):
    plan(changes, index_path)


@pytest.mark.drill
@with_options(MANY // 5)
@given(st.lists(settings_of_stages, max_size=3))
def test_many_plans(index_path, changes):
    plan(changes, index_path)
