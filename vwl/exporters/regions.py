"""The connected regions of a mask: what an annotation tool shows as one object each.

A mask has classes and no instances, so an object that others cover in the middle becomes two regions, and two objects of one class that
touch become one.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from pycocotools import mask as coco_mask
from scipy import ndimage

from vwl.constants import IGNORE


@dataclass(frozen=True, eq=False)  # arrays have no truth value
class Outline:
    """A closed line around a region, or around a hole in it.

    Attributes:
        corners: (N, 2) float64 x, y on the edges of pixels: 0 is the left or upper border of the image, its width or height the other one.
        pixels: (N, 2) int64 x, y of the region's own pixel at each corner. Readers that fill a polygon with its border (OpenCV, Pillow)
            take these.
    """

    corners: np.ndarray
    pixels: np.ndarray


@dataclass(frozen=True, eq=False)
class Region:
    """A connected region of a class; pixels that touch at a corner only are not connected.

    Attributes:
        class_id: 1..C.
        area: its pixels.
        left, top: first column and row of its box, pixels.
        bitmap: (h, w) bool, the box.
        outline: around it; none if outlines were not asked for.
        holes: the outlines of its holes.
    """

    class_id: int
    area: int
    left: int
    top: int
    bitmap: np.ndarray
    outline: Outline | None = None
    holes: tuple[Outline, ...] = field(default=())

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Left, top, width and height in pixels."""
        height, width = self.bitmap.shape
        return self.left, self.top, width, height

    def full_size(self, height: int, width: int) -> np.ndarray:
        """Return the region in an image of this size, (height, width) bool."""
        full = np.zeros((height, width), bool)
        full[self.top : self.top + self.bitmap.shape[0], self.left : self.left + self.bitmap.shape[1]] = self.bitmap
        return full


@dataclass(frozen=True, eq=False)
class Numbered:
    """The regions of a mask as numbers.

    Attributes:
        numbers: (H, W) int64, 1.. in a region, 0 elsewhere.
        class_ids: the class of each region.
        left_out: how many regions were smaller than the least area.
        filled: how many holes were.
    """

    numbers: np.ndarray
    class_ids: list[int]
    left_out: int
    filled: int


def number_regions(mask: np.ndarray, min_area: int = 0) -> Numbered:
    """Number the regions of the object classes of a mask.

    Args:
        mask: (H, W) uint8 class ids; 0 and 255 belong to no region.
        min_area: regions of fewer pixels are left out, and holes of fewer are filled unless they hold ignored pixels.
    """
    numbers, left_out = np.zeros(mask.shape, np.int64), 0
    class_ids: list[int] = []
    for class_id in np.unique(mask):
        if class_id in (0, IGNORE):
            continue
        labelled, count = ndimage.label(mask == class_id)
        kept = np.bincount(labelled.ravel(), minlength=count + 1) >= min_area
        kept[0] = False
        new = np.where(kept, np.cumsum(kept) + len(class_ids), 0)
        numbers += new[labelled]
        class_ids += [int(class_id)] * int(kept.sum())
        left_out += count - int(kept.sum())
    filled = _fill_holes(numbers, mask == IGNORE, min_area)
    return Numbered(numbers, class_ids, left_out, filled)


def _fill_holes(numbers: np.ndarray, ignored: np.ndarray, min_area: int) -> int:
    """Give each small area of no region that only one region surrounds to that region, and return how many there were."""
    if min_area <= 1:
        return 0
    height, width = numbers.shape
    labelled, count = ndimage.label(numbers == 0)
    areas = np.bincount(labelled.ravel(), minlength=count + 1)
    filled = 0
    for number, box in enumerate(ndimage.find_objects(labelled), 1):
        (top, bottom), (left, right) = ((side.start, side.stop) for side in box)
        if areas[number] >= min_area or top == 0 or left == 0 or bottom == height or right == width:
            continue
        around = (slice(top - 1, bottom + 1), slice(left - 1, right + 1))
        hole = labelled[around] == number
        neighbours = np.unique(numbers[around][ndimage.binary_dilation(hole) & ~hole])
        if len(neighbours) == 1 and not ignored[around][hole].any():
            numbers[around][hole] = neighbours[0]
            filled += 1
    return filled


def regions_of(numbered: Numbered) -> Iterator[Region]:
    """Yield the regions that `number_regions` has numbered, without outlines."""
    for number, (class_id, box) in enumerate(zip(numbered.class_ids, ndimage.find_objects(numbered.numbers), strict=True), 1):
        assert box is not None
        bitmap = numbered.numbers[box] == number
        yield Region(class_id, int(bitmap.sum()), box[1].start, box[0].start, bitmap)


def coco_rle(bitmap: np.ndarray) -> dict[str, object]:
    """Return a bitmap (H, W) bool as COCO's compressed run lengths, ready for JSON."""
    encoded = coco_mask.encode(np.asfortranarray(bitmap, dtype=np.uint8))
    return {"size": [int(side) for side in encoded["size"]], "counts": encoded["counts"].decode("ascii")}


def run_lengths(values: np.ndarray) -> np.ndarray:
    """Return the lengths of the runs of a flat bool array, the first of False, which may be 0."""
    changes = np.flatnonzero(np.diff(values)) + 1
    lengths = np.diff(np.concatenate([[0], changes, [len(values)]]))
    return np.concatenate([[0], lengths]) if values[0] else lengths
