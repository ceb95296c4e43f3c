"""The masks to export: of a stage of a run, or of a folder that `vwl predict` or another program has written. Read one at a time."""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
from pyarrow import fs

from vwl.constants import IGNORE
from vwl.data.class_names import BACKGROUND, check_object_names, key
from vwl.data.image_files import IMAGE_SUFFIXES
from vwl.errors import VwlError, did_you_mean
from vwl.storage.class_table import NAME as CLASS_FILE
from vwl.storage.class_table import ClassTable, read_class_table
from vwl.storage.folder import Folder, split_path, storage_error
from vwl.storage.masks import decode_mask, read_result, voc_palette

if TYPE_CHECKING:
    from vwl.workflow.run_folder import Run

ASSUMED_SUFFIX = ".jpg"
"""Of an image of which only the mask is known."""
_MASK, _OVERLAY = "_mask.png", "_overlay.png"
_RECORD = "predictions.jsonl"
"""What `vwl predict` has written beside its masks: a line of JSON for each image, with the name of its results."""


@dataclass(frozen=True)
class Entry:
    """A mask that can be read.

    Attributes:
        name: of the image without extension, unique, with the folders that it lies in.
        image: path of the image file relative to the folder of the images, with slashes.
        split: of a data set; `train` for a folder.
        file: of the mask, in the folder of the masks.
    """

    name: str
    image: str
    split: str
    file: str


@dataclass(frozen=True)
class MaskSource:
    """Masks, one at a time.

    Attributes:
        entries: the masks, in a fixed order.
        table: their classes.
        images: folder of the images; none if only the masks are known.
        title: what the masks are, for tools that show where annotations come from.
        read: returns the mask of an entry, (H, W) uint8.
    """

    entries: Sequence[Entry]
    table: ClassTable
    images: Folder | None
    title: str
    read: Callable[[Entry], np.ndarray]

    def __len__(self) -> int:
        return len(self.entries)

    def __iter__(self) -> Iterator[tuple[Entry, np.ndarray]]:
        """Yield entries and their masks.

        Raises:
            VwlError: a mask cannot be read, or has a class id that no class has.
        """
        last = len(self.table.classes) - 1
        for entry in self.entries:
            mask = self.read(entry)
            unknown = [int(value) for value in np.unique(mask) if last < value != IGNORE]
            if unknown:
                raise VwlError(f"mask {entry.file} has class id {unknown[0]}, but there are only {last} classes beside the background")
            yield entry, mask


def masks_of_run(run: "Run", stage: str, split: str | None = None) -> MaskSource:
    """Return the masks of a finished stage of a run.

    Args:
        run: the run.
        stage: crf, irnet-labels, masks or segment.
        split: a split of the index; none for all images that the stage has processed.

    Raises:
        VwlError: the stage writes no masks or is not done, or has no image of the split.
    """
    from vwl.workflow.stages import STAGES

    kinds = [name for name, spec in STAGES.items() if spec.kind == "masks"]
    if stage not in kinds:
        raise VwlError(f"'{stage}' is no stage that writes masks{did_you_mean(stage, kinds)} (these are {', '.join(kinds)})")
    if not run.is_done(stage):
        raise VwlError(f"{run.folder} has no finished masks of the {stage} stage; run: vwl infer {stage} --run {run.folder}")
    failed = set(run.failed_images(stage))
    rows = [row for row in run.stage_rows(stage) if row.image_id not in failed]
    splits = sorted({row.split for row in rows})
    wanted = {"train_aug": {"train", "aug"}, "all": set(splits), None: set(splits)}.get(split, {split})
    entries = [Entry(row.image_id, row.image, row.split, f"{row.image_id}.png") for row in rows if row.split in wanted]
    if not entries:
        raise VwlError(f"the {stage} stage of {run.folder} has no masks of split '{split}' (it has {', '.join(splits) or 'none'})")
    folder, index = run.stage_folder(stage), run.index

    def read(entry: Entry) -> np.ndarray:
        return decode_mask(read_result(folder, entry.name), folder.uri_of(entry.file))

    return MaskSource(entries, ClassTable(index.classes, index.palette), index.root, f"vwl {stage}", read)


def masks_of_folder(folder: Folder, table: ClassTable | None = None, images: Folder | None = None) -> MaskSource:
    """Return the masks in a folder and its subfolders: `NAME_mask.png` of `vwl predict`, or any indexed PNG files.

    Args:
        folder: of the masks. `NAME_overlay.png` beside `NAME_mask.png` is left out.
        table: the classes; none for the folder's `classes.json`.
        images: folder of the images, in the same subfolders; without it, they have the endings that `predictions.jsonl` states, or `.jpg`.

    Raises:
        VwlError: the folder has no masks, the classes are not known, or an image is missing or ambiguous.
    """
    known = table or read_class_table(folder)
    if known is None:
        raise VwlError(f"{folder} has no {CLASS_FILE} with the names of the classes; give --classes FILE or --model FILE")
    check_object_names(known.classes[1:], str(folder.uri_of(CLASS_FILE)) if table is None else "the class names")
    pngs = set(_files(folder, (".png",)))
    files: dict[str, str] = {}
    for file in sorted(pngs):
        if file.endswith(_OVERLAY) and f"{file.removesuffix(_OVERLAY)}{_MASK}" in pngs:
            continue
        name = file.removesuffix(_MASK) if file.endswith(_MASK) else file.removesuffix(".png")
        if name in files:
            raise VwlError(f"{folder} has two masks of one image: {files[name]} and {file}; remove one of them")
        files[name] = file
    if not files:
        raise VwlError(f"{folder} holds no masks (NAME_mask.png of vwl predict, or other indexed PNG files)")
    by_name = None if images is None else _by_name(images)
    suffixes = _recorded_suffixes(folder) if images is None else {}
    paths = {name: _assumed(name, suffixes) if by_name is None else _found(name, by_name, str(images)) for name in files}
    entries = [Entry(name, paths[name], "train", file) for name, file in files.items()]

    def read(entry: Entry) -> np.ndarray:
        folder.require_inside(entry.file)
        return decode_mask(folder.read(entry.file), folder.uri_of(entry.file))

    return MaskSource(entries, known, images, "vwl predict", read)


def read_class_names(file: str) -> ClassTable:
    """Return the classes in a text file with one name per line, in the order of their ids; `background` may come first.

    Raises:
        VwlError: it cannot be read, or a name is not allowed.
    """
    folder, name = split_path(file)
    try:
        lines = [line.strip() for line in folder.read(name).decode("utf-8-sig").splitlines() if line.strip()]
    except UnicodeDecodeError:
        raise VwlError(f"{file} is not a text file in UTF-8") from None
    names = lines[1:] if lines and key(lines[0]) == BACKGROUND else lines
    if not names:
        raise VwlError(f"{file} holds no class names; write one per line")
    check_object_names(names, file)
    return ClassTable((BACKGROUND, *names), tuple(voc_palette()))


def _files(folder: Folder, suffixes: Sequence[str]) -> list[str]:
    """Return the paths, relative to a folder, of the files in it and its subfolders with one of these endings (lower case)."""
    try:
        infos = folder.filesystem.get_file_info(fs.FileSelector(folder.path, recursive=True))
    except (OSError, pa.ArrowInvalid, UnicodeError) as error:  # the last: a file name that is not UTF-8
        raise storage_error(f"cannot list {folder}", error) from None
    start = f"{folder.path.rstrip('/')}/"
    names = [info.path.removeprefix(start) for info in infos if info.is_file and not info.base_name.startswith(".part-")]
    return [name for name in names if name.lower().endswith(tuple(suffixes))]


def _by_name(images: Folder) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for file in _files(images, IMAGE_SUFFIXES):
        found.setdefault(file.rpartition(".")[0], []).append(file)
        found.setdefault(file, []).append(file)  # a mask may be named after the whole name of its image
    return found


def _found(name: str, by_name: dict[str, list[str]], folder: str) -> str:
    files = by_name.get(name, [])
    if len(files) != 1:
        what = f"two images named {name}: {files[0]} and {files[1]}" if files else f"no image named {name}{did_you_mean(name, by_name)}"
        raise VwlError(f"{folder} has {what}; masks are named after their images")
    return files[0]


def _assumed(name: str, suffixes: dict[str, str]) -> str:
    if name.lower().endswith(IMAGE_SUFFIXES):
        return name
    return f"{name}{suffixes.get(name, ASSUMED_SUFFIX)}"


def _recorded_suffixes(folder: Folder) -> dict[str, str]:
    """Return the endings of the images by the name of their results; lines that say nothing of an image are left out."""
    found: dict[str, str] = {}
    for line in folder.read(_RECORD).splitlines() if folder.exists(_RECORD) else ():
        with suppress(ValueError, TypeError, KeyError, AttributeError):
            stored = json.loads(line)
            suffix = PurePosixPath(stored["image"]).suffix
            if suffix.lower() in IMAGE_SUFFIXES:  # not of a video
                found[stored["name"]] = suffix
    return found
