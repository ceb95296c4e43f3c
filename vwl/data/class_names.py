"""The rules for class names, the same for every source of a data set and for index tables edited by hand."""

import unicodedata
from collections.abc import Mapping, Sequence

from vwl.constants import IGNORE
from vwl.errors import VwlError, did_you_mean

BACKGROUND = "background"
MAX_OBJECTS = IGNORE - 1
"""Object classes that a mask has ids for: 1 to 254, beside the background (0) and ignored pixels (255)."""
_MAX_LENGTH = 100


def key(name: str) -> str:
    """Return what a class name is compared by: two names of one key differ only in case or blanks."""
    return "".join(unicodedata.normalize("NFKC", name).casefold().split())


def class_ids(classes: Sequence[str], names: Sequence[str]) -> list[int]:
    """Return the ids of class names, their places in `classes`.

    Raises:
        VwlError: a name is unknown; the message suggests the most similar one.
    """
    for name in names:
        if name not in classes:
            raise VwlError(f"unknown class '{name}'{did_you_mean(name, classes)}")
    return [classes.index(name) for name in names]


def check_object_names(names: Sequence[str], source: str, lines: Mapping[str, int] | None = None) -> None:
    """Check the names of the object classes, without the background.

    Args:
        names: class names 1..C.
        source: what a message starts with: the file or the data set.
        lines: the line of the file that a name stands in, for messages.

    Raises:
        VwlError: there are more than 254 names, one cannot be a class name, or two are equal or differ only in case or blanks.
    """

    def quoted(name: str) -> str:
        return f"'{name}' (line {lines[name]})" if lines else f"'{name}'"

    seen: dict[str, str] = {}
    for name in names:
        check_object_name(name, f"{source} line {lines[name]}" if lines else source)
        other = seen.get(key(name))
        if other == name:
            raise VwlError(f"{source}: the class name '{name}' occurs more than once; remove one of them")
        if other is not None:
            raise VwlError(
                f"{source}: the class names {quoted(other)} and {quoted(name)} differ only in case or blanks; write one class in one way"
            )
        seen[key(name)] = name
    if len(names) > MAX_OBJECTS:
        raise VwlError(
            f"{source}: there are {len(names):,} classes ('{names[0]}', '{names[1]}', ...), but masks have ids for {MAX_OBJECTS} beside "
            "the background (0) and ignored pixels (255); use fewer, and see whether labels are separated as you meant"
        )


def check_object_name(name: str, where: str) -> None:
    """Raise a `VwlError` that starts with `where` if a string cannot be the name of an object class."""
    if key(name) == BACKGROUND:
        raise VwlError(f"{where}: '{name}' is id 0 of every mask and cannot be an object class; remove it or choose another name")
    if not name or name != name.strip():
        raise VwlError(f"{where}: the class name '{name}' is empty or has blanks around it; write it without")
    if not name.isprintable():
        raise VwlError(f"{where}: the class name {name[:_MAX_LENGTH]!a} holds characters that cannot be printed; write plain text")
    if len(name) > _MAX_LENGTH:
        raise VwlError(f"{where}: the class name '{name[:30]}...' has {len(name):,} characters; {_MAX_LENGTH} are allowed")
