"""The psa-labels stage: PSA's training labels of confident objects and confident background, 255 elsewhere."""

import numpy as np

from vwl.config.recipe import Recipe
from vwl.crf.dense_crf import check_implementation, psa_labels
from vwl.data.index import Index, Row
from vwl.inference.stage import Stage
from vwl.maps.cam import upsample
from vwl.storage.score_maps import MapReader


class PsaLabelsStage(Stage):
    """Two scores of the background beside the class activation maps, each followed by a dense CRF."""

    def __init__(self, recipe: Recipe, index: Index, maps: MapReader) -> None:
        """Take the CAM stage's maps."""
        self.index, self.settings, self.maps = index, recipe.psa_labels, maps
        check_implementation(self.settings.kernels)

    def __call__(self, row: Row) -> np.ndarray:
        """Return the labels (H, W) uint8, 255 where unsure."""
        image, found = np.array(self.index.read_image(row)), self.maps.read(row.image_id)
        maps = upsample(found.values, found.height, found.width, self.settings.kernels.max_pixels)
        return psa_labels(image, maps, found.classes, self.settings)
