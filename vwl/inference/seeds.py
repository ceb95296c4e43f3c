"""The stage that imports score maps of another method: from the files of an image to its score map, instead of the CAM stage."""

from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from vwl.constants import map_size
from vwl.data.index import Index, Row
from vwl.errors import Unreachable, VwlError
from vwl.inference.stage import Stage
from vwl.maps.seed_formats import Content, detect, has_background, read_seeds
from vwl.maps.seed_scores import with_background
from vwl.storage.folder import Folder
from vwl.storage.score_maps import ScoreMap
from vwl.storage.seed_files import read_arrays, read_png_map

SeedBackground = Literal["own", "fixed", "one-minus-max"]
"""The background beside the objects' maps: the file's own map, a constant chosen later, or 1 minus the largest score."""

NO_FILE = "no map was imported"
"""Why an image without a file has no map; it was left out on purpose, and does not count as failed."""


class SeedStage(Stage):
    """Reads one file at a time.

    Attributes:
        left_out: number of maps that were left out because their class is not a label of their image.
        example: the first of these.
    """

    def __init__(
        self, index: Index, folder: Folder, files: Mapping[str, tuple[str, ...]], seed_format: str, background: SeedBackground
    ) -> None:
        """Take the names of the files in `folder` by image id, their format, and what becomes the background."""
        self.index, self.folder, self.files = index, folder, files
        self.format, self.background = seed_format, background
        self.left_out, self.example = 0, ""

    def __call__(self, row: Row) -> ScoreMap:
        """Return the score map of the image's labels.

        Raises:
            UnsafePickle: the file would run code.
        """
        if row.negative:
            width, height = self.index.read_image(row).size
            own = () if self.background == "fixed" else (0,)
            return ScoreMap(row.image_id, own, height, width, np.ones((len(own), *map_size(height, width)), np.float16))
        if row.image_id not in self.files:
            raise VwlError(NO_FILE)
        names = self.files[row.image_id]
        width, height = self.index.read_image(row).size
        content = read_content(self.folder, names)
        try:
            seeds = read_seeds(content, self.format, row.labels, self.index.num_objects, height, width)
        except VwlError as error:
            raise VwlError(f"{names[0]} {error}") from None
        if seeds.left_out:
            self.left_out += len(seeds.left_out)
            self.example = self.example or f"{self.index.classes[seeds.left_out[0]]} in {names[0]}"
        classes, maps = seeds.classes, seeds.maps
        if classes[:1] == (0,) and self.background != "own":
            classes, maps = classes[1:], maps[1:]
        if self.background == "one-minus-max":
            classes, maps = with_background(classes, maps)
        elif self.background == "own" and classes[:1] != (0,):
            raise VwlError(f"{names[0]} has no map of the background; import it with --background fixed")
        return ScoreMap(row.image_id, classes, height, width, maps.astype(np.float16))


def read_content(folder: Folder, names: tuple[str, ...]) -> Content:
    """Return what the files of an image hold: an array, or a dict of arrays.

    Raises:
        UnsafePickle: one would run code.
        VwlError: one is damaged.
    """
    if names[0].endswith(".png"):
        return {int(name.rpartition("_")[2].removesuffix(".png")): read_png_map(folder.read(name), name) for name in names}
    return read_arrays(folder.read(names[0]), names[0])


def probe(
    index: Index, folder: Folder, files: Mapping[str, tuple[str, ...]], rows: Sequence[Row], seed_format: str | None
) -> tuple[str, bool]:
    """Return the format of the first file that can be read, and whether it has a map of the background.

    Args:
        index: the data set.
        folder: of the files.
        files: names by image id.
        rows: the images that have files.
        seed_format: the format if the user has named it.

    Raises:
        UnsafePickle: a file would run code.
        VwlError: no file can be read; says why of the first.
    """
    first: VwlError | None = None
    for row in rows:
        names = files[row.image_id]
        try:
            content = read_content(folder, names)
            found = seed_format or ("png" if names[0].endswith(".png") else detect(content, row.labels))
        except Unreachable:
            raise
        except VwlError as error:
            first = first or (error if str(error).startswith(names[0]) else VwlError(f"{names[0]} {error}"))
        else:
            return found, has_background(content, found, index.num_objects)
    assert first is not None
    raise VwlError(f"{folder}: {first}")
