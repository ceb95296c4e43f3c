"""The CAM stage (Eq. 1): class activation maps at several scales with mirror, kept to the image's labels, at stride 4."""

import numpy as np
import torch

from vwl.data.index import Index, Row
from vwl.data.transforms import long_side_scale, scaled_size
from vwl.inference.stage import Stage, mirrored_pair
from vwl.maps.cam import normalise
from vwl.models.classifier import Classifier
from vwl.recipe import Recipe
from vwl.store import ScoreMap, map_size


class CamStage(Stage):
    """The trained classifier's maps: ReLU, mirror fused by maximum or sum, scales summed, each class divided by its maximum."""

    def __init__(self, recipe: Recipe, index: Index, model: Classifier) -> None:
        """Take a trained classifier."""
        self.index, self.settings, self.model = index, recipe.cam, model.eval()

    @torch.inference_mode()
    def __call__(self, row: Row) -> ScoreMap:
        """Return maps of the row's labels."""
        photo = np.asarray(self.index.read_image(row))
        height, width = photo.shape[:2]
        grid = map_size(height, width)
        labels = torch.tensor([label - 1 for label in row.labels], dtype=torch.int64)
        total = torch.zeros(len(labels), *grid)
        base = long_side_scale(photo.shape, self.settings.long_side)
        backbone, weight = self.model.backbone, self.model.image_head.weight
        for scale in self.settings.scales:
            size = scaled_size(photo.shape, base * scale)
            images = mirrored_pair(photo, size, backbone.mean, backbone.std, weight, self.settings.mirror)
            maps = self.model.activation_maps(images)[:, labels.to(weight.device)]
            if self.settings.mirror:
                straight, mirrored = maps[0], maps[1].flip(2)
                fused = torch.maximum(straight, mirrored) if self.settings.mirror_fusion == "max" else straight + mirrored
            else:
                fused = maps[0]
            if len(labels):
                total += torch.nn.functional.interpolate(fused[None], grid, mode="bilinear", align_corners=False)[0].float().cpu()
        values = normalise(total.numpy()).astype(np.float16)
        return ScoreMap(row.image_id, row.labels, height, width, values)
