"""The CAM stage (Eq. 1): class activation maps at several scales with mirror, kept to the image's labels, at stride 4."""

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
    """The trained classifier's maps: ReLU, mirror fused by maximum or sum, scales summed, each class divided by its maximum."""

    def __init__(self, recipe: Recipe, index: Index, model: Classifier) -> None:
        """Take a trained classifier."""
        self.index, self.settings, self.model = index, recipe.cam, for_inference(model)

    @torch.inference_mode()
    def __call__(self, row: Row) -> ScoreMap:
        """Return maps of the row's labels."""
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
        """Maps (K, h, w) float32 on the CPU of the labels in an image (H, W, 3) at some size, fused with those of its mirror image."""
        backbone, weight = self.model.backbone, self.model.image_head.weight
        images = hflip_pair(view, backbone.mean, backbone.std, weight, self.settings.hflip)
        # of all classes: the last bit of a product depends on the number of its rows, and a map is not to depend on the other labels
        maps = self.model.activation_maps(images)[:, [label - 1 for label in labels]].float().cpu()
        if not self.settings.hflip:
            return maps[0]
        straight, mirrored = maps[0], maps[1].flip(2)
        return torch.maximum(straight, mirrored) if self.settings.hflip_fusion == "max" else straight + mirrored
