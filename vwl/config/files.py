"""Recipes as YAML files: the built-in ones in `vwl/config/recipes/`, or the user's own.

A file may name a `base` recipe and change some of its keys. Single keys are changed with ``section.key=value``. Unknown keys are
refused with a suggestion, keys of earlier versions with their new name.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vwl.config.named_files import is_path, names_in, read_named
from vwl.config.recipe import Recipe
from vwl.config.strict import describe_errors
from vwl.config.yaml_text import apply_overrides, merge, parse_yaml
from vwl.errors import VwlError

RENAMED = {
    "classifier.words": "classifier.codebook.strategy",
    "classifier.num_words": "classifier.codebook.num_codewords",
    "classifier.temperature": "classifier.codebook.temperature",
    "classifier.bank_momentum": "classifier.codebook.momentum",
    "classifier.histogram": "classifier.codebook.histogram",
    "classifier.decov": "classifier.codebook.decov",
    "classifier.absent_words": "classifier.codebook.unused_codewords",
    "classifier.bank_start": "classifier.codebook.init",
    "classifier.padding_takes_words": "classifier.codebook.assign_padding",
    "classifier.optimiser.head_factor": "classifier.optimiser.head_lr_mult",
    "irnet.optimiser.head_factor": "irnet.optimiser.head_lr_mult",
    "segmenter.optimiser.head_factor": "segmenter.optimiser.head_lr_mult",
    "segmenter.rates": "segmenter.atrous_rates",
    "cam.mirror": "cam.hflip",
    "cam.mirror_fusion": "cam.hflip_fusion",
    "segment.mirror": "segment.hflip",
}
"""Keys of earlier versions, with their names today."""


def builtin_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return names_in("vwl.config.recipes")


def recipe_summary(name: str) -> str:
    """Return the first paragraph of the comment at the top of a built-in recipe, as one line."""
    lines = takewhile(lambda line: line.removeprefix("#").strip() and line.startswith("#"), _text(name).splitlines())
    return " ".join(line.removeprefix("#").strip() for line in lines)


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by built-in name or file path and apply ``section.key=value`` overrides.

    Raises:
        VwlError: the recipe does not exist, is not a YAML mapping, or has unknown keys or values out of range; the message names all
            of them.
    """
    values = _read(name_or_path, seen=())
    apply_overrides(values, overrides)
    return recipe_from(values, name_or_path)


def overridden(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a recipe with ``section.key=value`` overrides.

    Raises:
        VwlError: as `load_recipe`.
    """
    values = recipe.model_dump(mode="json")
    apply_overrides(values, overrides)
    return recipe_from(values, recipe.name)


def recipe_from(values: Mapping[str, Any], source: str) -> Recipe:
    """Validate a mapping as a recipe; `source` names it in the error.

    Raises:
        VwlError: names every wrong key with the nearest known one, and every renamed key with its new name.
    """
    renamed = [f"'{key}' is now '{RENAMED[key]}'" for key, _ in _flat(values) if key in RENAMED]
    if renamed:
        raise VwlError(f"recipe {source}: {'; '.join(renamed)}")
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        raise VwlError(f"recipe {source}: {describe_errors(error, Recipe)}") from None


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Return a line ``section.key: old -> new`` for each key in which two recipes differ."""
    before, after = dict(_flat(old.model_dump(mode="json"))), dict(_flat(new.model_dump(mode="json")))
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in sorted({*before, *after}) if before.get(key) != after.get(key)]


def to_yaml(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML that `load_recipe` reads back."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _read(name_or_path: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name_or_path in seen:
        raise VwlError(f"bases of recipes form a circle: {' -> '.join([*seen, name_or_path])}")
    values = parse_yaml(_text(name_or_path), f"recipe {name_or_path}")
    if not isinstance(values, dict):
        raise VwlError(f"recipe {name_or_path} is not a mapping of sections")
    base = values.pop("base", None)
    if base is None:
        return values
    # a relative path is relative to the file that names it
    base = os.path.normpath(Path(name_or_path).parent / str(base)) if is_path(str(base)) else str(base)
    resolved = _read(base, (*seen, name_or_path))
    merge(resolved, values)
    return resolved


def _text(name_or_path: str) -> str:
    return read_named(name_or_path, "recipe", "vwl.config.recipes", "vwl recipe list")


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
