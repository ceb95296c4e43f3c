"""The masks stage: masks to train the segmentation model on, from the walk's maps and the background threshold, or corrected by people."""

import numpy as np

from vwl.data.index import Index, Row
from vwl.inference.stage import Stage
from vwl.maps.cam import argmax_with_background, upsample
from vwl.storage.score_maps import MapReader


class MasksStage(Stage):
    """Argmax over a constant background and the maps at full size."""

    def __init__(self, maps: MapReader, threshold: float, index: Index) -> None:
        """Take maps and the resolved threshold."""
        self.maps, self.threshold, self.index = maps, threshold, index

    def __call__(self, row: Row) -> np.ndarray:
        """Return the mask (H, W) uint8; the corrected mask of an image that has one."""
        if row.corrected is not None:
            return self.index.read_mask(row)
        found = self.maps.read(row.image_id)
        return argmax_with_background(upsample(found.values, found.height, found.width), found.classes, self.threshold)
