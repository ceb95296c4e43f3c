"""The walk stage (IRNet): class activation maps spread along the learned affinities, stopped by the learned boundaries."""

import numpy as np
import torch
from torch.nn import functional as F

from vwl.config.recipe import Recipe
from vwl.constants import map_size
from vwl.data.index import Index, Row
from vwl.data.transforms import long_side_scale, resize, scaled_size
from vwl.inference.stage import Stage, hflip_pair
from vwl.inference.tiles import tiled
from vwl.maps.random_walk import walk
from vwl.models.folding import for_inference
from vwl.models.irnet import BoundaryNet
from vwl.storage.score_maps import MapReader, ScoreMap


class WalkStage(Stage):
    """Boundaries of photograph and mirror image averaged; the walk; division by the image's largest score."""

    def __init__(self, recipe: Recipe, index: Index, maps: MapReader, model: BoundaryNet) -> None:
        """Take the CAM stage's maps and a trained boundary network."""
        self.index, self.settings, self.maps, self.model = index, recipe.walk, maps, for_inference(model)

    @torch.inference_mode()
    def boundaries(self, photo: np.ndarray) -> np.ndarray:
        """Return the boundary map (ceil(H / 4), ceil(W / 4)) float32 of a photograph (H, W, 3)."""
        view = resize(photo, *scaled_size(photo.shape, long_side_scale(photo.shape, self.settings.long_side)))
        logits = tiled(self._fused, view, self.settings.tile)[None]
        grid = map_size(*photo.shape[:2])
        if logits.shape[2:] != grid:
            logits = F.interpolate(logits, grid, mode="bilinear", align_corners=False)
        return torch.sigmoid(logits)[0, 0].numpy()

    def _fused(self, view: np.ndarray) -> torch.Tensor:
        """Boundary logits (1, h, w) float32 on the CPU of a photograph (H, W, 3) at some size, the mean with those of its mirror image."""
        backbone = self.model.backbone
        logits = self.model(hflip_pair(view, backbone.mean, backbone.std, self.model.join.weight)).float().cpu()
        return (logits[0] + logits[1].flip(2)) / 2

    def __call__(self, row: Row) -> ScoreMap:
        """Return the maps after the walk, 0..1."""
        found = self.maps.read(row.image_id)
        edge = self.boundaries(np.asarray(self.index.read_image(row)))
        s = self.settings
        values = walk(found.values.astype(np.float32), edge, s.radius, s.exponent, s.steps, s.tolerance)
        values = values / max(float(values.max(initial=0)), 1e-12)
        return ScoreMap(row.image_id, found.classes, found.height, found.width, values.astype(np.float16))
