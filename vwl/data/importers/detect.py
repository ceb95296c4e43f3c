"""Finds out in which format labels are, and makes the index table of it: the work of `vwl data prepare auto`.

A format is told from names and content of files: the layout of VOC and of MS COCO, else a file of labels in the folder (or in its
subfolders), else a folder for each class. Where files of two formats are found, none is chosen.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vwl.data.coco import prepare_coco
from vwl.data.folder import read_labels_csv
from vwl.data.image_files import ImageFiles, as_folder
from vwl.data.importers.class_folders import read_class_folders
from vwl.data.importers.coco_labels import is_coco, read_coco_labels
from vwl.data.importers.common import LabelFile, find_image
from vwl.data.importers.cvat import parse, read_cvat
from vwl.data.importers.hugging_face import METADATA, read_hugging_face
from vwl.data.importers.label_studio import CSV_COLUMNS, read_label_studio
from vwl.data.importers.multi_hot import looks_multi_hot, read_multi_hot
from vwl.data.index import Index
from vwl.data.labels_csv import csv_records
from vwl.data.tagged import Choices, TaggedImages, tagged_index
from vwl.data.voc import prepare_voc
from vwl.errors import VwlError
from vwl.storage.folder import Folder, split_path

Format = Literal["labels-csv", "multi-hot", "label-studio", "cvat", "coco-json", "hugging-face", "class-folders", "voc", "coco"]
DESCRIBED: dict[str, str] = {
    "labels-csv": "CSV with the columns image,labels",
    "multi-hot": "CSV with a column of 0 and 1 for each class",
    "label-studio": "Label Studio's JSON, JSON-MIN or CSV with choices",
    "cvat": "CVAT for images 1.1 (XML)",
    "coco-json": "COCO JSON with any categories",
    "hugging-face": "metadata.csv or metadata.jsonl of Hugging Face",
    "class-folders": "a folder for each class",
    "voc": "PASCAL VOC",
    "coco": "MS COCO",
}
"""The formats by name."""
_SEVERAL = {"multi-hot", "cvat", "coco-json", "hugging-face"}
"""Formats that may have a file for each split."""
_SUFFIXES = (".csv", ".json", ".jsonl", ".xml")
_DEPTH = 2
"""Folders below the data set's that files of labels are looked for in."""


@dataclass(frozen=True)
class Prepared:
    """An index table and where it came from.

    Attributes:
        found: one line: the format that was found, in which file.
        index: the data set.
        notes: lines for the user.
    """

    found: str
    index: Index
    notes: list[str]


def prepare_any(
    path: str | Path,
    images: str | Path | None = None,
    choices: Choices | None = None,
    label_format: Format | None = None,
    field: str | None = None,
    separator: str | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Prepared:
    """Return the index of a data set whose labels are in any of the formats of `DESCRIBED`.

    Args:
        path: the data set's folder, or its file of labels.
        images: folder of the images; without it, the data set's folder, or the one that the file lies in.
        choices: masks, share for val, classes, negatives.
        label_format: the format, where it is not to be detected.
        field: the choices (Label Studio) or column (Hugging Face) that holds the labels, where there are several.
        separator: what separates labels in a CSV file, a key of `vwl.data.labels_csv.SEPARATORS`.
        progress: called with (done, total) while masks of MS COCO are painted.

    Raises:
        VwlError: no format or more than one is found, or the files have a fault; the message names it.
    """
    choices = choices or Choices()
    folder, label_files = _label_files(path)
    if label_format in {None, "voc", "coco"} and not label_files:
        layout = label_format or _layout(folder)
        if layout is not None:
            _refuse_choices(layout, choices)
            index, notes = prepare_voc(folder) if layout == "voc" else prepare_coco(folder, progress=progress)
            return Prepared(f"{DESCRIBED[layout]} in {folder}", index, notes)
    name, chosen = _choose(folder, label_files, label_format)
    masks = None if choices.masks is None else as_folder(choices.masks)
    files = ImageFiles(folder if images is None else as_folder(images), without=masks)
    tagged = _read(name, chosen, files, field, separator)
    index, notes = tagged_index(tagged, files, choices)
    num_files = f" and {len(chosen) - 1} more" if len(chosen) > 1 else ""
    num_negatives = int(index.rows.negative.sum())
    counts = f"{len(index.rows):,} images, {index.num_objects} classes" + (f", {num_negatives:,} without objects" if num_negatives else "")
    return Prepared(f"{tagged.source}{num_files}: {counts}", index, notes)


def _read(name: str, chosen: Sequence[LabelFile], files: ImageFiles, field: str | None, separator: str | None) -> TaggedImages:
    if field is not None and name not in {"label-studio", "hugging-face"}:
        raise VwlError(f"--field is for Label Studio and Hugging Face, and this is {DESCRIBED[name]}; leave it out")
    readers: dict[str, Callable[[], TaggedImages]] = {
        "labels-csv": lambda: _read_labels_csv(chosen[0], files, separator),
        "multi-hot": lambda: read_multi_hot(chosen, files),
        "label-studio": lambda: read_label_studio(chosen[0], files, field),
        "cvat": lambda: read_cvat(chosen, files),
        "coco-json": lambda: read_coco_labels(chosen, files),
        "hugging-face": lambda: read_hugging_face(chosen, files, field, separator),
        "class-folders": lambda: read_class_folders(files),
    }
    return readers[name]()


def _read_labels_csv(file: LabelFile, files: ImageFiles, separator: str | None) -> TaggedImages:
    def path_of(name: str) -> str:
        return find_image(files, name, (file.parent, "images"))

    return read_labels_csv(str(file), f"CSV of labels {file.name}", separator, path_of)


def _label_files(path: str | Path) -> tuple[Folder, list[LabelFile]]:
    """Return the folder of a data set, and the file of labels if `path` is a file and not a folder."""
    text = str(path)
    folder, name = split_path(path)
    if "://" not in text and not os.path.exists(os.path.expanduser(text)):
        raise VwlError(f"there is no {text}; give the folder of a data set or its file of labels")
    if Path(name).suffix.lower() in _SUFFIXES and not os.path.isdir(text):
        return folder, [LabelFile(folder, name)]
    return Folder(path), []


def _layout(folder: Folder) -> Literal["voc", "coco"] | None:
    """Return the data set whose layout a folder has."""
    if folder.exists("JPEGImages") and folder.exists("ImageSets/Segmentation"):
        return "voc"
    names = [f"annotations/instances_{split}{year}.json" for split in ("train", "val") for year in ("2014", "2017")]
    return "coco" if any(map(folder.exists, names)) else None


def _refuse_choices(layout: str, choices: Choices) -> None:
    if choices != Choices():
        raise VwlError(f"this is {DESCRIBED[layout]}, which has splits, classes and masks of its own; use: vwl data prepare {layout}")


def _choose(folder: Folder, given: list[LabelFile], wanted: str | None) -> tuple[str, list[LabelFile]]:
    """Return the format and its files.

    Raises:
        VwlError: there is none, or more than one.
    """
    if wanted == "class-folders":
        return wanted, []
    candidates = given or [LabelFile(folder, path) for path in folder.paths() if _may_hold_labels(path)]
    found: dict[str, list[LabelFile]] = {}
    for file in candidates:
        name = wanted if wanted is not None and given else format_of(file)
        if name is not None and wanted in {None, name}:
            found.setdefault(name, []).append(file)
    if not found and not given and wanted is None:
        return "class-folders", []
    if not found:
        known = "; ".join(DESCRIBED[name] for name in ([wanted] if wanted else [*DESCRIBED][:6]))
        raise VwlError(f"{given[0] if given else folder} holds no labels of a known format ({known}); name one with --format")
    if len(found) > 1:
        shown = ", ".join(f"{files[0].path} ({DESCRIBED[name]})" for name, files in found.items())
        raise VwlError(f"{folder} holds labels of {len(found)} formats: {shown}; give one of the files, or name the format with --format")
    ((name, files),) = found.items()
    if len(files) > 1 and name not in _SEVERAL:
        raise VwlError(f"{folder} holds {len(files)} files of labels: {files[0].path}, {files[1].path}; give one of them")
    return name, files


def _may_hold_labels(path: str) -> bool:
    parts = path.split("/")
    return path.lower().endswith(_SUFFIXES) and len(parts) <= 1 + _DEPTH and not any(part.startswith(".") for part in parts)


def format_of(file: LabelFile) -> str | None:
    """Return the name of the format of a file of labels; none if it has none of them."""
    name = file.name.lower()
    if name in METADATA:
        return "hugging-face"
    try:
        if name.endswith(".csv"):
            return _format_of_csv(file)
        if name.endswith(".json"):
            return _format_of_json(file.json())
        if name.endswith(".xml"):
            return "cvat" if parse(file).find("image") is not None else None
    except VwlError:  # a file that is no label file may hold anything
        return None
    return None


def _format_of_csv(file: LabelFile) -> str | None:
    records = csv_records(file.text(), str(file))
    header = [column.strip() for column in next(records, (1, list[str]()))[1]]
    if {*header} >= CSV_COLUMNS:
        return "label-studio"
    if {"image", "labels"} <= {*header}:
        return "labels-csv"
    if "file_name" in header and {"label", "labels"} & {*header}:
        return "hugging-face"
    return "multi-hot" if looks_multi_hot(header, next(records, (2, list[str]()))[1]) else None


def _format_of_json(content: Any) -> str | None:
    if is_coco(content):
        return "coco-json"
    if isinstance(content, list) and content and isinstance(content[0], dict):
        task = content[0]
        return "label-studio" if {"data", "annotations"} <= {*task} or {*task} >= CSV_COLUMNS else None
    return None
