"""The walk stage (IRNet, paper section 4.1): class activation maps after a random walk that learned boundaries stop."""

import numpy as np
import torch
from torch.nn import functional as F

from vwl.config.recipe import Recipe
from vwl.constants import map_size
from vwl.data.index import Index, Row
from vwl.data.transforms import long_side_scale, resize, scaled_size
from vwl.inference.stage import Stage, hflip_pair
from vwl.inference.tiles import tiled
from vwl.maps import random_walk_torch
from vwl.maps.cam import upsample
from vwl.maps.random_walk import walk
from vwl.models.folding import for_inference
from vwl.models.irnet import BoundaryNet
from vwl.storage.score_maps import MapReader, ScoreMap
from vwl.training.distributed import device


def uses_torch(implementation: str) -> bool:
    """Return whether the walk is computed by torch: as the recipe says; `auto`: where this process has a GPU."""
    return implementation == "torch" or (implementation == "auto" and torch.cuda.is_available())


class WalkStage(Stage):
    """Boundary logits averaged over the image and its horizontal flip, the random walk, division by the image's largest score."""

    def __init__(self, recipe: Recipe, index: Index, maps: MapReader, model: BoundaryNet) -> None:
        """Take the CAM stage's maps and a trained boundary network."""
        self.index, self.settings, self.maps, self.model = index, recipe.walk, maps, for_inference(model)

    @torch.inference_mode()
    def boundaries(self, image: np.ndarray) -> np.ndarray:
        """Return the boundary map (ceil(H / 4), ceil(W / 4)) float32, 0..1, of an image (H, W, 3) uint8."""
        view = resize(image, *scaled_size(image.shape, long_side_scale(image.shape, self.settings.long_side)))
        logits = tiled(self._fused, view, self.settings.tile)[None]
        grid = map_size(*image.shape[:2])
        if logits.shape[2:] != grid:
            logits = F.interpolate(logits, grid, mode="bilinear", align_corners=False)
        return torch.sigmoid(logits)[0, 0].numpy()

    def _fused(self, view: np.ndarray) -> torch.Tensor:
        """Return boundary logits (1, h, w) float32 on the CPU of a view (H, W, 3), averaged with those of its horizontal flip."""
        backbone = self.model.backbone
        batch = hflip_pair(view, backbone.mean, backbone.std, self.model.join.weight)
        if self.settings.pad_to is not None:
            height, width = view.shape[:2]
            batch = F.pad(batch, (0, max(0, self.settings.pad_to - width), 0, max(0, self.settings.pad_to - height)))
        height, width = map_size(*view.shape[:2])
        logits = self.model(batch)[..., :height, :width].float().cpu()
        return (logits[0] + logits[1].flip(2)) / 2

    def __call__(self, row: Row) -> ScoreMap:
        """Return the maps after the walk, divided by their common maximum at stride 4 or at full size (`walk.normalise_at`)."""
        cam = self.maps.read(row.image_id)
        if not cam.classes:  # nothing to spread
            return cam
        edge = self.boundaries(np.asarray(self.index.read_image(row)))
        s = self.settings
        maps, settings = cam.values.astype(np.float32), (s.radius, s.exponent, s.steps, s.tolerance)
        values = random_walk_torch.walk(maps, edge, *settings, device()) if uses_torch(s.implementation) else walk(maps, edge, *settings)
        largest = values.max(axis=(1, 2))
        if s.normalise_at == "full_size":  # one class at a time, so that a large image needs less memory
            largest = np.array([upsample(own[None], cam.height, cam.width).max() for own in values])
        values = values / max(float(largest.max(initial=0)), 1e-12)
        return ScoreMap(row.image_id, cam.classes, cam.height, cam.width, values.astype(np.float16))
