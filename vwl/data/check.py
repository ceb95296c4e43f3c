"""Checks of a data set: opens every image and mask once and compares them with the rows of the index.

Meant to run after an index table was made and before a long training; `vwl data check` prints the problems.
"""

import hashlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.ndimage import binary_erosion

from vwl.constants import IGNORE
from vwl.data.index import Index, Row, decode_image
from vwl.errors import VwlError

_OUTLINE = 4
"""Pixels by which ignored areas are eroded: the ignored outlines of VOC's objects vanish, crowds and other areas remain."""

_ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Problem:
    """A problem with one image of a data set.

    Attributes:
        image_id: id of the image.
        kind: `unreadable-image`, `unreadable-mask`, `size`, `mask-id`, `label-not-in-mask`, `class-not-in-labels`, `duplicate`
            or `no-label`.
        message: one line for the user that names the file.
    """

    image_id: str
    kind: str
    message: str


def check_index(index: Index, progress: Callable[[int, int], None] | None = None) -> list[Problem]:
    """Open every image and mask of an index and return the problems.

    Problems are: files that cannot be decoded or lie outside the root, masks of another size than their upright image, mask ids outside
    0..C and 255, labels that do not occur in the mask (unless the mask has an ignored area that may hide them), classes in the mask
    that are not among the labels, training images that were not labelled, and identical image files under two ids.

    Args:
        index: the data set.
        progress: called with (done, total) after each image.

    Returns:
        The problems in the order of the rows, empty if there are none.
    """
    problems: list[Problem] = []
    first_numbers: dict[str, int] = {}
    with ThreadPoolExecutor() as pool:
        # A pool takes all that it is given at once; so many rows at a time keep it busy.
        slices = (index.rows[first : first + _ROWS_AT_ONCE] for first in range(0, len(index.rows), _ROWS_AT_ONCE))
        results = ((row, found) for rows in slices for row, found in zip(rows, pool.map(partial(_check_row, index), rows), strict=True))
        for done, (row, (digest, row_problems)) in enumerate(results, 1):
            problems += row_problems
            number = done - 1 if digest is None else first_numbers.setdefault(digest, done - 1)
            if number != done - 1:
                first = index.rows[number]
                text = f"image {row.image_id} ({row.split}) is the same file as image {first.image_id} ({first.split})"
                problems.append(Problem(row.image_id, "duplicate", text))
            if progress is not None:
                progress(done, len(index.rows))
    return problems


def _check_row(index: Index, row: Row) -> tuple[str | None, list[Problem]]:
    """Return the hash of the image file (None if it cannot be read) and the problems of one row."""
    problems: list[Problem] = []

    def report(kind: str, message: str) -> None:
        problems.append(Problem(row.image_id, kind, message))

    if not row.is_labelled and row.split in {"train", "aug"}:
        report("no-label", f"training image {row.image_id} has no label")
    digest = size = None
    try:
        index.root.require_inside(row.image)
        data = index.root.read(row.image)
        size = decode_image(data, row.image).size
        digest = hashlib.sha256(data).hexdigest()
    except VwlError as error:
        report("unreadable-image", str(error))
    if not row.has_truth:
        return digest, problems
    name = f"mask {row.mask}" if row.corrected is None else f"corrected mask of image {row.image_id}"
    try:
        mask = index.read_mask(row)
    except VwlError as error:
        report("unreadable-mask", str(error))
        return digest, problems
    if size is not None and mask.shape != size[::-1]:
        lying = "; a mask must fit the image as it is shown upright, with its EXIF orientation applied" if mask.shape == size else ""
        report("size", f"{name} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {row.image} {size[0]} x {size[1]}{lying}")
    classes = set(np.flatnonzero(np.bincount(mask.ravel(), minlength=256)).tolist()) - {0, IGNORE}
    unknown = sorted(label for label in classes if label > index.num_objects)
    if unknown:
        report(
            "mask-id",
            f"{name} holds the class id {unknown[0]}; valid ids are 0 to {index.num_objects}, and {IGNORE} for ignored pixels",
        )
    hidden = sorted({*row.labels} - classes)
    if hidden and not binary_erosion(mask == IGNORE, iterations=_OUTLINE).any():
        names = ", ".join(index.classes[label] for label in hidden)
        report("label-not-in-mask", f"image {row.image_id} is labelled {names}, but its {name} has no such pixels")
    unnamed = sorted(classes - {*row.labels, *unknown})
    if unnamed and row.split != "test":
        names = ", ".join(index.classes[label] for label in unnamed)
        report("class-not-in-labels", f"{name} has pixels of {names}, but image {row.image_id} is not labelled so")
    return digest, problems
