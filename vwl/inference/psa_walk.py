"""The walk stage with `refiner: psa`: class activation maps and their background after a random walk by learned affinities."""

import numpy as np
import torch
from torch.nn import functional as F

from vwl.config.recipe import Recipe
from vwl.constants import MAP_STRIDE, map_size
from vwl.data.index import Index, Row
from vwl.data.transforms import long_side_scale, normalise, resize, scaled_size
from vwl.inference.stage import Stage
from vwl.inference.walk import uses_torch
from vwl.maps import random_walk_torch
from vwl.maps.affinity import feature_affinities
from vwl.maps.cam import upsample, with_power_background
from vwl.maps.random_walk import walk_by_affinities
from vwl.models.folding import for_inference
from vwl.models.psa import AFFINITY_STRIDE, AffinityNet
from vwl.storage.score_maps import MapReader, ScoreMap
from vwl.training.distributed import device


class PsaWalkStage(Stage):
    """Maps and background (1 - the largest score) ** alpha at stride 8, the random walk, enlargement to stride 4.

    The result has a map of class 0, the background, and needs no threshold. All pairs inside the image are connected; the published code
    leaves out those that start within `radius` cells of the left, right and lower border.
    """

    def __init__(self, recipe: Recipe, index: Index, maps: MapReader, model: AffinityNet) -> None:
        """Take the CAM stage's maps and a trained affinity network."""
        self.index, self.settings, self.maps, self.model = index, recipe.psa_walk, maps, for_inference(model)

    @torch.inference_mode()
    def features(self, image: np.ndarray) -> np.ndarray:
        """Return the affinity features (448, ceil(H / 8), ceil(W / 8)) float32 of an image (H, W, 3) uint8."""
        view = resize(image, *scaled_size(image.shape, long_side_scale(image.shape, self.settings.long_side)))
        backbone, like = self.model.backbone, self.model.join.weight
        batch = normalise(view, backbone.mean, backbone.std)[None].to(like.device, like.dtype).contiguous(memory_format=torch.channels_last)
        features = self.model(batch).float().cpu()
        grid = _grid(*image.shape[:2])
        if features.shape[2:] != grid:
            features = F.interpolate(features, grid, mode="bilinear", align_corners=False)
        return np.ascontiguousarray(features[0].numpy())

    def __call__(self, row: Row) -> ScoreMap:
        """Return the maps of background and classes after the walk."""
        cam = self.maps.read(row.image_id)
        image = np.asarray(self.index.read_image(row))
        classes, scores = with_power_background(cam.classes, upsample(cam.values, cam.height, cam.width), self.settings.alpha)
        s = self.settings
        pairs = feature_affinities(self.features(image), s.radius)
        maps, settings = pooled(scores), (s.radius, s.exponent, s.steps, s.tolerance)
        if uses_torch(s.implementation):
            values = random_walk_torch.walk_by_affinities(maps, pairs, *settings, device())
        else:
            values = walk_by_affinities(maps, pairs, *settings)
        height, width = map_size(cam.height, cam.width)
        factor = AFFINITY_STRIDE // MAP_STRIDE
        enlarged = F.interpolate(torch.from_numpy(values)[None], scale_factor=factor, mode="bilinear", align_corners=False)[0]
        return ScoreMap(row.image_id, classes, cam.height, cam.width, enlarged[:, :height, :width].numpy().astype(np.float16))


def pooled(scores: np.ndarray) -> np.ndarray:
    """Return scores (K, H, W) averaged over 8 x 8 pixels, (K, ceil(H / 8), ceil(W / 8)) float32; outside the image they are 0."""
    height, width = scores.shape[1:]
    rows, columns = _grid(height, width)
    padded = np.zeros((len(scores), rows * AFFINITY_STRIDE, columns * AFFINITY_STRIDE), np.float32)
    padded[:, :height, :width] = scores
    return padded.reshape(len(scores), rows, AFFINITY_STRIDE, columns, AFFINITY_STRIDE).mean(axis=(2, 4))


def _grid(height: int, width: int) -> tuple[int, int]:
    return -(-height // AFFINITY_STRIDE), -(-width // AFFINITY_STRIDE)
