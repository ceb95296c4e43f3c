"""YAML that users write: parsed safely, and changed by overrides ``section.key=value``."""

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import yaml

from vwl.errors import VwlError


def parse_yaml(text: str, source: str) -> Any:
    """Return the value of YAML text; 1e-4 is a number, and a key must not be given twice.

    Args:
        text: YAML without tags.
        source: names it in the error.

    Raises:
        VwlError: it is not valid YAML.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise VwlError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from None


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Change nested values, in place, by overrides of the form ``section.key=value``; the value is YAML.

    Raises:
        VwlError: an override is not of this form.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals:
            raise VwlError(f"override '{override}' is not of the form section.key=value")
        value = parse_yaml(text, f"override '{override}'")
        for name in reversed(key.strip().split(".")):
            value = {name: value}
        merge(values, value)


def merge(values: dict[str, Any], changes: Mapping[str, Any]) -> None:
    """Merge nested changes into nested values, in place."""
    for key, value in changes.items():
        if isinstance(value, Mapping) and isinstance(values.get(key), dict):
            merge(values[key], value)
        else:
            values[key] = value


class _Loader(yaml.SafeLoader):
    """YAML 1.1 reads 1e-4 as a string, and silently takes the last of two equal keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names = [key.value for key, _ in node.value]
        for position, (key, _) in enumerate(node.value):
            if key.value in names[:position]:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{key.value}' is given twice", key.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
