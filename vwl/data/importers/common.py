"""What importers share: label files as text, CSV and JSON, names of splits, and the image that a label file means."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from vwl.data.image_files import ImageFiles
from vwl.errors import VwlError
from vwl.storage.folder import Folder

_SPLITS = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation", "dev"),
    "test": ("test", "testing", "eval", "evaluation"),
}
SPLIT_NAMES = {name: split for split, names in _SPLITS.items() for name in names}
"""Names of splits in use, Hugging Face's, CVAT's and Roboflow's among them, and the split that each is."""


@dataclass(frozen=True)
class LabelFile:
    """A file of labels.

    Attributes:
        folder: the data set's folder, or the file's own.
        path: of the file, relative to it.
    """

    folder: Folder
    path: str

    def __str__(self) -> str:
        return self.folder.uri_of(self.path)

    @property
    def name(self) -> str:
        """The file's name without its folder."""
        return PurePosixPath(self.path).name

    @property
    def parent(self) -> str:
        """The folder that it lies in, relative to the data set's folder; empty if it is that folder."""
        parent = str(PurePosixPath(self.path).parent)
        return "" if parent == "." else parent

    @property
    def split(self) -> str:
        """The split that its folders or the words of its name state; empty if they state none."""
        words = [*PurePosixPath(self.path).parts[:-1], *re.split(r"[^a-z]+", PurePosixPath(self.path).stem.lower())]
        return next((SPLIT_NAMES[word.lower()] for word in words if word.lower() in SPLIT_NAMES), "")

    def text(self) -> str:
        """Return its content.

        Raises:
            VwlError: it is not text in UTF-8.
        """
        self.folder.require_inside(self.path)
        try:
            return self.folder.read(self.path).decode("utf-8-sig")
        except UnicodeDecodeError:
            raise VwlError(f"{self} is not a text file in UTF-8") from None

    def json(self) -> Any:
        """Return the value of a JSON file.

        Raises:
            VwlError: it is not JSON.
        """
        return parsed(self.text(), str(self))


def parsed(text: str, where: str) -> Any:
    """Return the value of JSON text; `where` begins the message of the `VwlError` if it is not valid."""
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:  # the second: brackets in brackets in brackets
        raise VwlError(f"{where} is not valid JSON: {error}") from None


def find_image(files: ImageFiles, name: str, folders: Sequence[str] = ()) -> str:
    """Return the path of the image that a label file calls `name`; `name` itself if there is none, which `tagged_index` then refuses.

    The name is looked for in `folders` (relative to the images' folder), then as it is, then without its first folders, since
    label files often hold paths of another machine.
    """
    plain = name.replace("\\", "/")
    parts = [part for part in plain.split("/") if part not in {"", "."}]
    tails = ["/".join(parts[start:]) for start in range(len(parts))]
    wanted = [*(f"{folder}/{tails[0]}" for folder in folders if folder and tails), plain, *tails]
    return next((path for path in map(files.find, wanted) if path is not None), name)


def split_for(label_files: Sequence[LabelFile]) -> list[str]:
    """Return the split of each of several files of labels; a single one that would be for training states none.

    Raises:
        VwlError: two files are of one split, or the split of one of several cannot be told.
    """
    if len(label_files) == 1:
        return ["" if label_files[0].split == "train" else label_files[0].split]
    splits = [file.split for file in label_files]
    for number, (file, split) in enumerate(zip(label_files, splits, strict=True)):
        if not split:
            raise VwlError(f"{file}: several files hold labels, and this one's name says neither train, val nor test; give one file")
        if split in splits[:number]:
            other = label_files[splits.index(split)]
            raise VwlError(f"{other} and {file} both hold labels of split {split}; give one file, or keep only one of them")
    return splits


def as_labels(value: Any, where: str) -> tuple[str, ...]:
    """Return the class names of a JSON value: a name, a number, or a list of these.

    Raises:
        VwlError: it is something else.
    """
    values = value if isinstance(value, list) else [] if value is None or value == "" else [value]
    for own in values:
        if isinstance(own, bool) or not isinstance(own, str | int):
            raise VwlError(f"{where}: the label {str(own)[:60]!a} is neither a name nor a whole number")
    return tuple(dict.fromkeys(str(own).strip() for own in values))
