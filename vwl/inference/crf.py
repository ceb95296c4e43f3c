"""The CRF stage: masks of the class activation maps refined by a dense CRF on the image (Table 1, column +CRF)."""

import numpy as np

from vwl.config.recipe import Recipe
from vwl.crf.dense_crf import cam_crf, check_implementation
from vwl.data.index import Index, Row
from vwl.inference.stage import Stage
from vwl.maps.cam import upsample
from vwl.storage.score_maps import MapReader


class CrfStage(Stage):
    """Softmax over a constant background and the maps, ten mean-field iterations, argmax."""

    def __init__(self, recipe: Recipe, index: Index, maps: MapReader, background: float) -> None:
        """Take the CAM stage's maps; `background` is the resolved `crf.background`."""
        self.index, self.settings, self.maps, self.background = index, recipe.crf, maps, background
        check_implementation(self.settings.kernels)

    def __call__(self, row: Row) -> np.ndarray:
        """Return the mask (H, W) uint8."""
        image, found = np.array(self.index.read_image(row)), self.maps.read(row.image_id)
        maps = upsample(found.values, found.height, found.width, self.settings.kernels.max_pixels)
        return cam_crf(image, maps, found.classes, self.background, self.settings.sharpness, self.settings.kernels)
