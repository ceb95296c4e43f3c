"""A folder of images with a CSV file of labels, as an index table.

One of the importers behind `vwl data prepare`, for data sets of one's own. Masks are optional; only images that have one can be scored.
"""

import hashlib
import os
from collections import Counter
from pathlib import Path

from vwl.data.class_names import BACKGROUND, check_object_names, key
from vwl.data.index import Index, Row, make_index
from vwl.data.labels_csv import LabelTable, read_labels
from vwl.data.row_checks import SPLITS
from vwl.errors import VwlError, did_you_mean
from vwl.storage.folder import Folder

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp", ".gif")
"""Endings of file names, in lower case, that mean an image."""


def prepare_folder(
    images: str | Path | Folder,
    labels_csv: str | Path,
    masks: str | Path | Folder | None = None,
    val_share: float = 0.0,
    classes: str | Path | None = None,
    separator: str | None = None,
) -> tuple[Index, list[str]]:
    """Return the index of a folder of images with a CSV file that has the columns `image`, `labels` and optionally `split`.

    `image` is the name of a file in `images`, with or without extension. `labels` are class names separated by ``;``, ``|`` or ``,``,
    whichever the file uses, or by blanks if it uses none of them (`vwl.data.labels_csv`). `split` is train, aug, val or test. Without that
    column a share `val_share` of the images is in val and the others are in train. The hash of an image's id decides, so that an image
    keeps its split on every machine and when others are added.

    Args:
        images: folder of the images.
        labels_csv: the CSV file, in UTF-8, with a header.
        masks: folder of indexed or grey PNG masks named like the images; images of split test need none.
        val_share: share of the images for val, at least 0 and below 1; only for a file without the column `split`.
        classes: text file with one class name per line, in the order of the mask ids 1..C; without it the names are sorted.
        separator: what separates labels, a key of `vwl.data.labels_csv.SEPARATORS`; without it, it is detected.

    Returns:
        The index, whose root is the deepest folder that holds images and masks, and notes for the user, one line each.

    Raises:
        VwlError: a column, image, label or mask is missing, an image is listed twice, a split or class is unknown, a class name is
            not allowed, two differ only in case or blanks, or a file is a link that leads out of its folder; the message names it.
    """
    images = images if isinstance(images, Folder) else Folder(images)
    masks = masks if masks is None or isinstance(masks, Folder) else Folder(masks)
    if not 0 <= val_share < 1:
        raise VwlError(f"the share of images for val is {val_share}; it must be at least 0 and below 1")
    table = read_labels(labels_csv, separator)
    if table.has_split and val_share:
        raise VwlError(f"{labels_csv} has a column 'split', so a share for val cannot be given as well; drop one of them")
    files = _files(images)
    names, notes = _class_names(classes, table, labels_csv)
    class_ids = {name: number for number, name in enumerate(names, 1)}
    if masks:
        images, masks = without_links(images), without_links(masks)
    root = common_root(images, *([masks] if masks else []))
    images_below, masks_below = below(root, images), below(root, masks) if masks else ""
    mask_files = set(masks.names(".png")) if masks else set()

    rows = []
    for line in table.rows:
        image, labels, where = line.image, line.labels, f"{labels_csv} line {line.line}"
        file = files.get(image)
        if file is None:
            raise VwlError(f"{where}: there is no image '{image}' in {images}{did_you_mean(image, files)}")
        image_id = _stem(file)
        split = line.split or ("val" if _unit_hash(image_id) < val_share else "train")
        if split not in SPLITS:
            raise VwlError(f"{where}: unknown split '{split}'{did_you_mean(split, SPLITS)} (splits are train, aug, val and test)")
        if not labels and split in {"train", "aug"}:
            raise VwlError(f"{where}: the training image '{image}' has no label; add one or remove the line")
        unknown = [name for name in labels if name not in class_ids]
        if unknown:
            raise VwlError(f"{where}: class '{unknown[0]}' is not in {classes}{did_you_mean(unknown[0], names)}")
        mask = None
        if f"{image_id}.png" in mask_files:
            mask = f"{masks_below}{image_id}.png"
        elif masks is not None and split != "test":
            raise VwlError(f"{where}: the mask {masks}/{image_id}.png of image '{image}' is missing; only images of split test need none")
        for path in filter(None, (f"{images_below}{file}", mask)):
            root.require_inside(path)
        rows.append(Row(image_id, f"{images_below}{file}", tuple(sorted({class_ids[name] for name in labels})), mask, split))
    if not names:
        raise VwlError(f"{labels_csv}: no image has a label; write class names into the column 'labels'")
    num_unlisted = len(set(files.values())) - len({row.image for row in rows})
    if num_unlisted:
        notes.append(f"{num_unlisted:,} images of {images} are not in {labels_csv} and are left out")
    return make_index(rows, [BACKGROUND, *names], root, f"folder {Path(images.path).name} with {Path(labels_csv).name}"), notes


def without_links(folder: Folder) -> Folder:
    """Return a folder that the user has named under its real path, so that no link lies between it and a root above it."""
    return Folder(os.path.realpath(folder.path)) if folder.is_local else folder


def common_root(*folders: Folder) -> Folder:
    """Return the deepest folder that holds all of the given folders.

    Raises:
        VwlError: they are on different file systems or in different buckets.
    """
    bases = [folder.uri.partition("?") for folder in folders]
    shared = []
    for level in zip(*(base.split("/") for base, _, _ in bases), strict=False):
        if len(set(level)) > 1:
            break
        shared.append(level[0])
    num_fixed = 3 if "://" in bases[0][0] else 1  # "s3:", "" and the bucket are not folders
    if len(shared) < num_fixed or len({query for _, _, query in bases}) > 1:
        raise VwlError(f"{' and '.join(map(str, folders))} have no folder in common; put them on one file system")
    return Folder(("/".join(shared) or "/") + "".join(bases[0][1:]))


def below(root: Folder, folder: Folder) -> str:
    """Return the path from `root` to `folder`, empty or with a slash at its end."""
    path = folder.path.removeprefix(root.path).strip("/")
    return f"{path}/" if path else ""


def _files(folder: Folder) -> dict[str, str]:
    """Return the name of each image file, by that name and, where only one file has it, by the name without extension."""
    names = [name for name in folder.names() if Path(name).suffix.lower() in IMAGE_SUFFIXES]
    if not names:
        raise VwlError(f"{folder} holds no images ({', '.join(IMAGE_SUFFIXES)})")
    counts = Counter(_stem(name) for name in names)
    return {**{_stem(name): name for name in names if counts[_stem(name)] == 1}, **{name: name for name in names}}


def _class_names(file: str | Path | None, table: LabelTable, labels_csv: str | Path) -> tuple[list[str], list[str]]:
    """Return the names of the classes 1..C, from the file or else the sorted names in use, and notes for the user."""
    used = table.first_lines
    notes = []
    if any(len(row.labels) > 1 for row in table.rows):
        blanks = "blanks; if a class name has blanks, separate labels by ';' or put the name in quotes"
        notes.append(f"labels are separated by {blanks if table.separator == ' ' else repr(table.separator)}")
    if file is None:
        check_object_names(list(used), str(labels_csv), used)
        names = sorted(used)
        return names, [f"classes 1 to {len(names)} are the label names in alphabetical order: {', '.join(names)}", *notes]
    path = Path(file)
    try:
        text = Folder(path.parent).read(path.name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise VwlError(f"{file} is not a text file in UTF-8") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    names = names[1:] if names and key(names[0]) == BACKGROUND else names
    if not names:
        raise VwlError(f"{file} holds no class names; write one per line")
    check_object_names(names, str(file))
    unused = sorted({*names} - {*used})
    return names, [*notes, *([f"no image is labelled {', '.join(unused)}"] if unused else [])]


def _unit_hash(image_id: str) -> float:
    """Return a hash of the id as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") / 2**64


def _stem(name: str) -> str:
    return name.rpartition(".")[0]
