"""What every format is written with: the options of an export, what it did, and the images beside it."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np

from vwl.constants import IGNORE
from vwl.errors import VwlError
from vwl.exporters.polygons import outlined
from vwl.exporters.regions import Numbered, Region, number_regions, regions_of
from vwl.exporters.source import Entry, MaskSource
from vwl.storage.folder import Folder

Geometry = Literal["polygon", "rle"]
OnImage = Callable[[int, int], None]
"""Called after each image with how many are done, and of how many."""


@dataclass(frozen=True)
class Options:
    """Options of an export.

    Attributes:
        geometry: `polygon`: outlines, which people can drag; `rle`: exact pixels.
        min_area: regions of fewer pixels are left out, and holes of fewer are filled.
        tolerance: of the outlines, pixels (`vwl.exporters.polygons.outlined`).
        copy_images: whether the images are copied beside the annotations.
        image_prefix: what Label Studio puts before the path of an image.
    """

    geometry: Geometry = "polygon"
    min_area: int = 0
    tolerance: float | None = None
    copy_images: bool = False
    image_prefix: str = "/data/local-files/?d="


@dataclass
class Summary:
    """What an export did.

    Attributes:
        format: its name.
        folder: that it was written to.
        images: number of images.
        empty: of these, without any region.
        regions: number of regions.
        left_out: number of regions smaller than the least area.
        filled: number of holes smaller than the least area.
        with_holes: number of outlined regions that have holes; all formats but YOLO's store them as pixels.
        share_with_holes: their share of the area of all regions.
        ignored: share of the pixels that are 255 (in no class), which the format leaves unannotated or keeps as 255.
    """

    format: str
    folder: str
    images: int = 0
    empty: int = 0
    regions: int = 0
    left_out: int = 0
    filled: int = 0
    with_holes: int = 0
    share_with_holes: float = 0.0
    ignored: float = 0.0


@dataclass
class Target:
    """Where an export goes; counts what passes.

    Attributes:
        source: the masks.
        out: the folder.
        options: of the export.
        summary: what was done so far.
        on_image: called after each image.
    """

    source: MaskSource
    out: Folder
    options: Options
    summary: Summary
    on_image: OnImage = lambda done, total: None
    _area: int = 0
    _area_with_holes: int = 0

    def check(self) -> None:
        """Raise a `VwlError` if images are to be copied and are not known, or would be overwritten by their own copies."""
        if not self.options.copy_images:
            return
        images = self.source.images
        if images is None:
            raise VwlError("the images are not known, so they cannot be copied; name their folder with --images")
        if images.path.rstrip("/") == self.out.path.rstrip("/"):
            raise VwlError(f"the images are in {self.out} itself, so they cannot be copied there; choose another --out folder")

    def masks(self) -> Iterator[tuple[Entry, np.ndarray]]:
        """Yield entries and their masks, and count them."""
        pixels = ignored = 0
        for entry, mask in self.source:
            yield entry, mask
            pixels, ignored = pixels + mask.size, ignored + int((mask == IGNORE).sum())
            self.summary.images += 1
            self.summary.ignored = ignored / pixels
            self.on_image(self.summary.images, len(self.source))

    def regions(self, mask: np.ndarray) -> list[Region]:
        """Return the regions of a mask, with outlines if the options ask for polygons, and count them."""
        numbered = self._numbered(mask)
        if self.options.geometry == "rle":
            return list(regions_of(numbered))
        regions = outlined(numbered, self.options.tolerance)
        self.summary.with_holes += sum(bool(region.holes) for region in regions)
        self._area += sum(region.area for region in regions)
        self._area_with_holes += sum(region.area for region in regions if region.holes)
        self.summary.share_with_holes = self._area_with_holes / max(self._area, 1)
        return regions

    def without_small_regions(self, mask: np.ndarray) -> np.ndarray:
        """Return a mask (H, W) uint8 in which small regions are background and small holes are filled, and count its regions."""
        numbered = self._numbered(mask)
        found = np.array([0, *numbered.class_ids], np.uint8)[numbered.numbers]
        return np.where(mask == IGNORE, mask, found)

    def _numbered(self, mask: np.ndarray) -> Numbered:
        numbered = number_regions(mask, self.options.min_area)
        self.summary.regions += len(numbered.class_ids)
        self.summary.left_out += numbered.left_out
        self.summary.filled += numbered.filled
        self.summary.empty += not numbered.class_ids
        return numbered

    def copy_image(self, entry: Entry, name: str) -> None:
        """Copy the image of an entry to `name` in the folder, if the options ask for it.

        Raises:
            VwlError: it is missing, or a link that leads out of its folder.
        """
        if not self.options.copy_images:
            return
        assert self.source.images is not None, "see check"
        self.source.images.require_inside(entry.image)
        self.out.write(name, self.source.images.read(entry.image))
