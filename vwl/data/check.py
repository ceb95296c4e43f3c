"""Checks a data set: opens every image and mask once and compares it with its row.

Run after an index table was made and before a long training; `vwl data check` prints what is found here.
"""

import hashlib
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from scipy.ndimage import binary_erosion

from vwl.constants import IGNORE
from vwl.data.index import Index, Row, decode_image
from vwl.errors import VwlError

_OUTLINE = 4
"""Eroding by this many pixels removes ignored outlines of objects (VOC), but not ignored areas (crowds)."""


@dataclass(frozen=True)
class Problem:
    """A problem of one image.

    Attributes:
        image_id: the image.
        kind: `unreadable-image`, `unreadable-mask`, `size`, `mask-id`, `label-not-in-mask`, `class-not-in-labels`, `duplicate`
            or `no-label`.
        message: one line for the user.
    """

    image_id: str
    kind: str
    message: str


def check_index(index: Index, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Open every image and mask of an index.

    Found are files that cannot be decoded, masks of another size than their image or with ids outside 0..C and 255, labels
    that the mask does not show (unless an ignored area may hide them), classes of the mask that are not among the labels,
    training images without label, and one image under two ids.

    Args:
        index: the data set.
        progress: called with (done, total) after each image.

    Returns:
        the problems in the order of the rows; empty if all is well.
    """
    problems: list[Problem] = []
    copies: dict[str, list[Row]] = defaultdict(list)
    with ThreadPoolExecutor() as pool:
        results = pool.map(lambda row: _check_row(index, row), index.rows)
        for done, (row, (digest, found)) in enumerate(zip(index.rows, results, strict=True), 1):
            problems += found
            if digest is not None:
                if copies[digest]:
                    first = copies[digest][0]
                    text = f"{row.image_id} ({row.split}) is the same image as {first.image_id} ({first.split})"
                    problems.append(Problem(row.image_id, "duplicate", text))
                copies[digest].append(row)
            if progress is not None:
                progress(done, len(index.rows))
    return problems


def _check_row(index: Index, row: Row) -> tuple[str | None, list[Problem]]:
    """Return the hash of the image's bytes (none if unreadable) and the problems of one row."""
    found: list[Problem] = []

    def report(kind: str, message: str) -> None:
        found.append(Problem(row.image_id, kind, message))

    if not row.labels and row.split in {"train", "aug"}:
        report("no-label", f"the training image {row.image_id} has no label")
    digest = size = None
    try:
        data = index.root.read(row.image)
        size = decode_image(data, row.image).size
        digest = hashlib.sha256(data).hexdigest()
    except VwlError as error:
        report("unreadable-image", str(error))
    if row.mask is None:
        return digest, found
    try:
        mask = index.read_mask(row)
    except VwlError as error:
        report("unreadable-mask", str(error))
        return digest, found
    if size is not None and mask.shape != size[::-1]:
        report("size", f"mask {row.mask} has {mask.shape[1]} x {mask.shape[0]} pixels, its image {size[0]} x {size[1]}")
    classes = set(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()) - {0, IGNORE}
    strange = sorted(label for label in classes if label > index.num_objects)
    if strange:
        report("mask-id", f"mask {row.mask} holds the id {strange[0]}; the ids are 0 to {index.num_objects} and {IGNORE}")
    hidden = sorted({*row.labels} - classes)
    if hidden and not binary_erosion(mask == IGNORE, iterations=_OUTLINE).any():
        names = ", ".join(index.classes[label] for label in hidden)
        report("label-not-in-mask", f"image {row.image_id} is labelled {names}, which its mask {row.mask} does not show")
    unnamed = sorted(classes - {*row.labels, *strange})
    if unnamed and row.split != "test":
        names = ", ".join(index.classes[label] for label in unnamed)
        report("class-not-in-labels", f"mask {row.mask} shows {names}, which is not among the labels of {row.image_id}")
    return digest, found
