"""Selectors of a cluster's nodes by their labels, e.g. `market=spot`: where trainings and inference may run.

The forms of a value are those of Ray: `spot`, `!spot` (another or none), `in(a,b)` and `!in(a,b)`.
"""

import re
from collections.abc import Iterable, Mapping

from vwl.errors import VwlError, shortened

Selector = Mapping[str, str]
"""Values by key that a node must have; empty: any node."""

_NAME = r"[A-Za-z0-9](?:[A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?"
_KEY = re.compile(rf"(?:{_NAME}/)?{_NAME}")
_VALUE = re.compile(rf"!?(?:{_NAME}|in\({_NAME}(?:,{_NAME})*\))")


def is_label(key: str, value: str) -> bool:
    """Return whether a node can have this label."""
    return bool(_KEY.fullmatch(key) and re.fullmatch(_NAME, value))


def parse_selector(pairs: Iterable[str], option: str) -> dict[str, str]:
    """Return the selector of some KEY=VALUE; `option` is named in errors.

    Raises:
        VwlError: a pair has another form, or a key is there twice.
    """
    selector: dict[str, str] = {}
    for pair in pairs:
        key, _, value = pair.partition("=")
        if not _KEY.fullmatch(key) or not _VALUE.fullmatch(value):
            raise VwlError(
                f"{option} '{shortened(pair)}' is no label of nodes; write KEY=VALUE, with a value like spot, !spot or in(spot,other)"
            )
        if key in selector:
            raise VwlError(f"{option} names the label {key} twice; for one of several values write {key}=in({selector[key]},{value})")
        selector[key] = value
    return selector


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Return whether a node with these labels is selected."""
    return all(_is_one_of(wanted, labels.get(key)) for key, wanted in selector.items())


def _is_one_of(wanted: str, value: str | None) -> bool:
    negated, listed = wanted.startswith("!"), wanted.removeprefix("!")
    values = listed[3:-1].split(",") if listed.startswith("in(") else [listed]
    return (value in values) != negated


def describe(selector: Selector) -> str:
    """Return a selector or a node's labels as text, `key=value` with commas."""
    return ", ".join(f"{key}={value}" for key, value in selector.items())
