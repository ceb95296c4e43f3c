"""YAML that users write: parsed safely, and changed by overrides ``section.key=value``."""

import re
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import yaml

from vwl.errors import VwlError, shortened

_DEEPEST = 20
"""Levels of lists and mappings."""
_MOST_ALIASED = 20_000
"""Values that the aliases of a text stand for."""


def parse_yaml(text: str, source: str) -> Any:
    """Return the value of YAML text; 1e-4 is a number, 24:00:00 is text, and a key must not be given twice.

    Args:
        text: YAML without tags.
        source: names it in the error.

    Raises:
        VwlError: it is not valid YAML, nested more than 20 deep, or its aliases stand for more than 20,000 values.
    """
    try:
        return yaml.load(text, Loader=_Loader)  # a SafeLoader
    except yaml.YAMLError as error:
        raise VwlError(f"{source} is not valid YAML: {' '.join(str(error).split())}") from None
    except ValueError as error:  # a date that does not exist, a number of thousands of digits
        raise VwlError(f"{source} is not valid YAML: {error}") from None


def apply_overrides(values: dict[str, Any], overrides: Sequence[str]) -> None:
    """Change nested values, in place, by overrides of the form ``section.key=value``; the value is YAML.

    Raises:
        VwlError: an override is not of this form.
    """
    for override in overrides:
        key, equals, text = override.partition("=")
        if not equals or key.count(".") >= _DEEPEST:
            raise VwlError(f"override '{shortened(override)}' is not of the form section.key=value")
        value = parse_yaml(text, f"override '{shortened(override)}'")
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
    """YAML 1.1 reads 1e-4 as a string and 24:00:00 as 86400, takes the last of two equal keys, and bounds neither depth nor aliases."""

    def __init__(self, stream: str) -> None:
        super().__init__(stream)
        self._depth = 0
        self._sizes: dict[int, int] = {}
        self._aliased = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        if getattr(event, "tag", None) is not None:
            raise yaml.composer.ComposerError(None, None, f"the tag '{event.tag}' is not allowed", event.start_mark)
        if self._depth == _DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"it is nested more than {_DEEPEST} deep", event.start_mark)
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        if isinstance(event, yaml.AliasEvent):
            self._count_alias(node, event)
        else:
            self._sizes[id(node)] = self._size(node)
        return node

    def _size(self, node: yaml.Node | None) -> int:
        """Return the number of values in a node, those behind aliases included."""
        parts = node.value if isinstance(node, yaml.CollectionNode) else []
        flat = (part for entry in parts for part in (entry if isinstance(entry, tuple) else (entry,)))
        return 1 + sum(self._sizes[id(part)] for part in flat)

    def _count_alias(self, node: yaml.Node | None, event: Any) -> None:
        if id(node) not in self._sizes:
            raise yaml.composer.ComposerError(None, None, "an alias of a value inside it never ends", event.start_mark)
        self._aliased += self._sizes[id(node)]
        if self._aliased > _MOST_ALIASED:
            raise yaml.composer.ComposerError(None, None, f"its aliases stand for more than {_MOST_ALIASED} values", event.start_mark)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        names: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):  # refused by the constructor
                continue
            if key.value in names:
                raise yaml.constructor.ConstructorError(None, None, f"the key '{shortened(key.value)}' is given twice", key.start_mark)
            names.add(key.value)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)[eE][-+]?\d+$"),
    list("-+0123456789."),
)
for _digit in "0123456789":  # before the resolver of numbers
    _Loader.yaml_implicit_resolvers[_digit].insert(0, ("tag:yaml.org,2002:str", re.compile(r"^\d+(?::\d+)+$")))
