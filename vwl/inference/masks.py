"""The masks stage: pseudo masks for the segmentation model, from the walk's maps and the background threshold."""

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
        """Return the mask (H, W) uint8."""
        found = self.maps.read(row.image_id)
        return argmax_with_background(upsample(found.values, found.height, found.width), found.classes, self.threshold)
