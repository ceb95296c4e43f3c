"""Recipes as YAML: `vwl/config/recipes/*.yaml` or the user's own; a file may name a `base` recipe and change some of its keys.

Single keys are changed with ``section.key=value``. Unknown keys are refused with a suggestion.
"""

import os
import re
from collections.abc import Hashable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from vwl.config.named_files import is_path, names_in, read_named
from vwl.config.recipe import Recipe, Section
from vwl.errors import VwlError, did_you_mean


def builtin_recipes() -> list[str]:
    """Return the names of the recipes that come with the package."""
    return names_in("vwl.config.recipes")


def recipe_summary(name: str) -> str:
    """Return the first line of a built-in recipe's comment."""
    return _text(name).partition("\n")[0].removeprefix("#").strip()


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe by built-in name or file path and apply ``section.key=value`` overrides.

    Raises:
        VwlError: the recipe does not exist, is no YAML mapping, or has unknown keys or values out of range; all
            problems are named in one message.
    """
    values = _read(name_or_path, seen=())
    return _overridden(values, overrides, source=name_or_path)


def overridden(recipe: Recipe, overrides: Sequence[str]) -> Recipe:
    """Return a recipe with ``section.key=value`` overrides.

    Raises:
        VwlError: as `load_recipe`.
    """
    return _overridden(recipe.model_dump(mode="json"), overrides, source=recipe.name)


def _overridden(values: dict[str, Any], overrides: Sequence[str], source: str) -> Recipe:
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise VwlError(f"override '{override}' is not of the form section.key=value")
        _merge(values, _nested(key.strip().split("."), parse_yaml(text, f"override '{override}'")))
    return recipe_from(values, source)


def recipe_from(values: Mapping[str, Any], source: str) -> Recipe:
    """Validate a mapping as a recipe; `source` names it in the error.

    Raises:
        VwlError: naming every wrong key with the nearest known one.
    """
    try:
        return Recipe.model_validate(values)
    except ValidationError as error:
        problems: dict[str, list[Any]] = {}
        for item in error.errors():
            problems.setdefault(".".join(_path(item["loc"])), []).append(item)
        listed = "; ".join(_problem(key, items) for key, items in problems.items())
        raise VwlError(f"recipe {source}: {listed}") from None


def differences(old: Recipe, new: Recipe) -> list[str]:
    """Return lines ``section.key: old -> new`` of the keys in which two recipes differ."""
    before, after = dict(_flat(old.model_dump(mode="json"))), dict(_flat(new.model_dump(mode="json")))
    return [f"{key}: {before.get(key)} -> {after.get(key)}" for key in sorted({*before, *after}) if before.get(key) != after.get(key)]


def to_yaml(recipe: Recipe) -> str:
    """Return the resolved recipe as YAML that `load_recipe` reads back."""
    return yaml.safe_dump(recipe.model_dump(mode="json"), sort_keys=False)


def _read(name_or_path: str, seen: tuple[str, ...]) -> dict[str, Any]:
    if name_or_path in seen:
        raise VwlError(f"recipes name each other as base in a circle: {' -> '.join([*seen, name_or_path])}")
    values = parse_yaml(_text(name_or_path), f"recipe {name_or_path}")
    if not isinstance(values, dict):
        raise VwlError(f"recipe {name_or_path} holds no mapping of sections")
    base = values.pop("base", None)
    if base is None:
        return values
    # as in any file that names another one, a relative path starts at the file that names it
    base = os.path.normpath(Path(name_or_path).parent / str(base)) if is_path(str(base)) else str(base)
    below = _read(base, (*seen, name_or_path))
    _merge(below, values)
    return below


def _text(name_or_path: str) -> str:
    return read_named(name_or_path, "recipe", "vwl.config.recipes", "vwl recipe list")


def parse_yaml(text: str, source: str) -> Any:
    """Return the value of YAML in which 1e-4 is a number and no key is given twice.

    Raises:
        VwlError: naming `source`.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise VwlError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from None


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-4 as a string, and of a key given twice silently takes the last: here a number, and an error."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value]
        for place, (key, _) in enumerate(node.value):
            if key.value in names[:place]:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key.value}' is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)


def _nested(keys: Sequence[str], value: Any) -> dict[str, Any]:
    return {keys[0]: value if len(keys) == 1 else _nested(keys[1:], value)}


def _merge(below: dict[str, Any], above: Mapping[str, Any]) -> None:
    for key, value in above.items():
        if isinstance(value, Mapping) and isinstance(below.get(key), dict):
            _merge(below[key], value)
        else:
            below[key] = value


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _path(loc: Sequence[str | int]) -> list[str]:
    """Return the key of an error without the names of the types that were tried."""
    section, path = _section(loc)
    rest = loc[len(path) :]
    return [*path, *(str(part) for part in rest if isinstance(part, int) or section is not None)]


def _section(loc: Sequence[str | int]) -> tuple[type[Section] | None, list[str]]:
    """Return the known keys at the start of `loc` and the section they lead to; none if it is a value."""
    section: Any = Recipe
    path: list[str] = []
    for part in loc:
        if section is None or part not in section.model_fields:
            break
        kind = section.model_fields[part].annotation
        section = kind if isinstance(kind, type) and issubclass(kind, Section) else None
        path.append(str(part))
    return section, path


def _problem(key: str, errors: Sequence[Any]) -> str:
    """Return a sentence about the errors of one key; a key of several types (a number or 'auto') has one error a type."""
    first = errors[0]
    if first["type"] == "extra_forbidden":
        section, _ = _section(first["loc"])
        assert section is not None
        return f"unknown key '{key}'{did_you_mean(str(first['loc'][-1]), section.model_fields)}"
    messages = " or ".join(error["msg"].removeprefix("Input ").removeprefix("Value error, ") for error in errors)
    hint = "; write null for none" if first["input"] == "none" and first["type"].endswith(("_parsing", "_type")) else ""
    return f"{key} {messages[0].lower()}{messages[1:]} (given: {first['input']!r}{hint})"
