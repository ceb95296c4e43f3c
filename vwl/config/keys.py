"""Every key of a recipe as text: its type, its default and what it means; for `vwl recipe keys` and the documentation."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from vwl.config.recipe import Recipe, Section


@dataclass(frozen=True)
class Key:
    """A setting of a recipe.

    Attributes:
        key: its name with its sections, e.g. `classifier.codebook.num_codewords`.
        type: what it can be, e.g. `number 0..1`, `gap | hybrid`.
        default: its default as JSON, text without quotes.
        about: what it means.
    """

    key: str
    type: str
    default: str
    about: str


def recipe_keys(section: Section | None = None, prefix: str = "") -> Iterator[Key]:
    """Yield the keys of a section (default: of a recipe) and its sub-sections, in the order of their definition."""
    section = Recipe() if section is None else section
    properties = type(section).model_json_schema()["properties"]
    for name, value in section:
        if isinstance(value, Section):
            yield from recipe_keys(value, f"{prefix}{name}.")
        else:
            default = json.dumps(value) if not isinstance(value, str) else value
            yield Key(f"{prefix}{name}", _type(properties[name]), default, " ".join(properties[name].get("description", "").split()))


def _type(schema: dict[str, Any]) -> str:
    """Return a JSON schema as text, e.g. `number 0..1`, `gap | hybrid`, `list of number > 0`."""
    if "anyOf" in schema:
        return " | ".join(_type(option) for option in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return " | ".join(str(value) for value in schema.get("enum", [schema.get("const")]))
    if schema["type"] == "array":
        if "prefixItems" in schema:
            return f"[{', '.join(_type(item) for item in schema['prefixItems'])}]"
        return f"list of {_type(schema['items'])}"
    low, high = schema.get("minimum"), schema.get("maximum")
    if low is not None and high is not None:
        return f"{schema['type']} {low:g}..{high:g}"
    signs = {"exclusiveMinimum": ">", "minimum": ">=", "exclusiveMaximum": "<", "maximum": "<="}
    return " ".join([schema["type"], *(f"{sign} {schema[bound]:g}" for bound, sign in signs.items() if bound in schema)])
