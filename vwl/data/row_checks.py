"""Checks of the values of an index table, which anyone can edit: a row's columns, and the classes and palette beside the rows.

The functions take plain values of any type and return what is wrong with them, so that `vwl.data.index` can say of which data set or
file and row it is true.
"""

import unicodedata
from pathlib import PurePosixPath
from typing import Any

from vwl.errors import did_you_mean

SPLITS = ("train", "aug", "val", "test")
MAX_ID = 200
"""Bytes of an image id: stages write files named after it, and most file systems allow 255 bytes with what is added."""


def row_problem(image_id: Any, image: Any, labels: Any, mask: Any, split: Any, num_objects: int, negative: Any = False) -> str | None:
    """Return what is wrong with the columns of a row, None if nothing is.

    Args:
        image_id, image, labels, mask, split, negative: the columns, see `vwl.data.index.Row`.
        num_objects: number of object classes C.
    """
    if not isinstance(image_id, str):
        return f"the image id {_shown(image_id)} is not text"
    if not image_id or image_id.startswith(".") or any(_is_unsafe(character) or character in "/\\" for character in image_id):
        rule = "it must not be empty, start with '.' or hold '/', '\\' or control characters"
        return f"image id {_shown(image_id)} is not a file name; {rule}"
    if len(image_id.encode()) > MAX_ID:
        return f"image id {_shown(image_id)} has {len(image_id.encode()):,} bytes, and {MAX_ID} are allowed; shorten the file's name"
    name = f"image {image_id if image_id.isprintable() else _shown(image_id)}"
    if problem := _path_problem(image, f"of {name}") or (_path_problem(mask, f"of {name}") if mask is not None else None):
        return problem
    if split not in SPLITS:
        near = did_you_mean(split, SPLITS) if isinstance(split, str) else ""
        return f"{name} is in the unknown split {_shown(split)}{near} (splits are train, aug, val and test)"
    if not isinstance(labels, list | tuple):
        return f"the labels {_shown(labels)} of {name} are not a list of class ids"
    for label in labels:
        if not isinstance(label, int) or isinstance(label, bool):
            return f"{name} has label {_shown(label)}, which is not a whole number"
        if not 1 <= label <= num_objects:
            return f"{name} has label {label}, but the classes are 1 to {num_objects}"
    if sorted(set(labels)) != [*labels]:
        return f"the labels {_shown([*labels])} of {name} are not in ascending order, each once"
    if not isinstance(negative, bool):
        return f"{name} has {_shown(negative)} in the column 'negative', which is neither true nor false"
    if negative and labels:
        return f"{name} is negative (shows no object) and yet has the labels {_shown([*labels])}; correct one of the two columns"
    return None


def metadata_problem(about: Any) -> str | None:
    """Return what is wrong with the metadata of an index table, None if nothing is.

    Args:
        about: the value of the JSON that is stored beside the rows.
    """
    if not isinstance(about, dict):
        return f"its metadata is {_shown(about)} and not an object"
    if about.get("format", 1) != 1:
        return f"its format is {_shown(about['format'])}; this version of vwl reads format 1"
    for key in ("root", "source"):
        if not isinstance(about.get(key), str) or not about[key] or any(map(_is_unsafe, about[key])):
            return f"'{key}' in its metadata is {_shown(about.get(key))} and not a line of text"
    classes, palette = about.get("classes"), about.get("palette")
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        return f"'classes' in its metadata is {_shown(classes)} and not a list of names"
    if not isinstance(palette, list) or len(palette) != 768 or not all(type(value) is int and 0 <= value <= 255 for value in palette):
        return f"'palette' in its metadata is {_shown(palette)} and not 768 whole numbers from 0 to 255"
    return None


def _path_problem(path: Any, of: str) -> str | None:
    if not isinstance(path, str):
        return f"the path {_shown(path)} {of} is not text"
    parts = PurePosixPath(path).parts
    if ".." in parts or path.startswith("/"):
        return f"the path {_shown(path)} {of} leads out of the root folder; use a path below it"
    if not parts or any(map(_is_unsafe, path)):
        return f"the path {_shown(path)} {of} is empty or holds control characters"
    return None


def _is_unsafe(character: str) -> bool:
    """Return whether a character is a control character, a line separator or half of a surrogate pair."""
    return unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"}


def _shown(value: Any) -> str:
    """Return a value for a message of one line."""
    text = f"'{value}'" if isinstance(value, str) and value.isprintable() else repr(value)
    return text if len(text) <= 80 else f"{text[:60]}..."
