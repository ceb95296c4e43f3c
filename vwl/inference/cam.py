"""The CAM stage (Eq. 1): class activation maps at several scales with horizontal flip, of the image's labels, at stride 4."""

from functools import partial

import numpy as np
import torch

from vwl.config.recipe import Recipe
from vwl.constants import map_size
from vwl.data.index import Index, Row
from vwl.data.transforms import long_side_scale, resize, scaled_size
from vwl.inference.stage import Stage, hflip_pair
from vwl.inference.tiles import tiled
from vwl.maps.cam import normalise
from vwl.models.classifier import Classifier
from vwl.models.folding import for_inference
from vwl.storage.score_maps import ScoreMap


class CamStage(Stage):
    """The classifier's maps with ReLU, fused with those of the flipped image, summed over scales, divided by each class's maximum."""

    def __init__(self, recipe: Recipe, index: Index, model: Classifier) -> None:
        """Take a trained classifier."""
        self.index, self.settings, self.model = index, recipe.cam, for_inference(model)

    @torch.inference_mode()
    def __call__(self, row: Row) -> ScoreMap:
        """Return the score maps of the image's labels."""
        image = np.asarray(self.index.read_image(row))
        height, width = image.shape[:2]
        grid = map_size(height, width)
        total = torch.zeros(len(row.labels), *grid)
        base = long_side_scale(image.shape, self.settings.long_side)
        for scale in self.settings.scales if row.labels else ():
            view = resize(image, *scaled_size(image.shape, base * scale))
            maps = tiled(partial(self._fused, labels=row.labels), view, self.settings.tile)
            total += torch.nn.functional.interpolate(maps[None], grid, mode="bilinear", align_corners=False)[0]
        values = normalise(total.numpy()).astype(np.float16)
        return ScoreMap(row.image_id, row.labels, height, width, values)

    def _fused(self, view: np.ndarray, labels: tuple[int, ...]) -> torch.Tensor:
        """Return the labels' maps (K, h, w) float32 on the CPU of a view (H, W, 3), fused with those of its horizontal flip."""
        backbone, weight = self.model.backbone, self.model.image_head.weight
        images = hflip_pair(view, backbone.mean, backbone.std, weight, self.settings.hflip)
        # of all classes, since the last bit of a matrix product depends on its number of rows: a map must not depend on the other labels
        maps = self.model.activation_maps(images)[:, [label - 1 for label in labels]].float().cpu()
        if not self.settings.hflip:
            return maps[0]
        upright, flipped = maps[0], maps[1].flip(2)
        return torch.maximum(upright, flipped) if self.settings.hflip_fusion == "max" else upright + flipped
