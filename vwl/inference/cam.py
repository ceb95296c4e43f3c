"""The CAM stage (Eq. 1): class activation maps at several scales with horizontal flip, of the image's labels, at stride 4.

`CamPredictor` needs a network and settings only, so that a model file (`vwl.model_file`) computes maps by the same code.
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch

from vwl.config.recipe import Cam, Recipe
from vwl.constants import map_size
from vwl.data.index import Index, Row
from vwl.data.transforms import long_side_scale, resize, scaled_size
from vwl.inference.stage import Stage, hflip_pair
from vwl.inference.tiles import tiled
from vwl.maps.advcam import climbed_map, steps_at
from vwl.maps.cam import normalise
from vwl.models.classifier import Classifier
from vwl.models.folding import for_inference
from vwl.storage.score_maps import ScoreMap


class CamPredictor:
    """The classifier's maps with ReLU, fused with those of the flipped image, summed over scales, divided by each class's maximum."""

    def __init__(self, settings: Cam, model: Classifier) -> None:
        """Take a trained classifier."""
        self.settings, self.model = settings, for_inference(model)
        if settings.advcam.steps:  # gradients of the image pass through all levels; the weights still have none
            self.model.backbone.freeze(0)
            self.model.requires_grad_(False)

    @torch.inference_mode()
    def maps(self, image: np.ndarray, labels: Sequence[int]) -> np.ndarray:
        """Return the score maps (K, ceil(H / 4), ceil(W / 4)) float16 of the K labels, class ids 1..C, of an image (H, W, 3) uint8."""
        grid = map_size(*image.shape[:2])
        total = torch.zeros(len(labels), *grid)
        base = long_side_scale(image.shape, self.settings.long_side)
        for scale in self.settings.scales if labels else ():
            view = resize(image, *scaled_size(image.shape, base * scale))
            steps = steps_at(scale, self.settings.advcam)
            network = partial(self._climbed, labels=labels, steps=steps) if steps else partial(self._fused, labels=labels)
            maps = tiled(network, view, self.settings.tile)
            total += torch.nn.functional.interpolate(maps[None], grid, mode="bilinear", align_corners=False)[0]
        return normalise(total.numpy()).astype(np.float16)

    def _fused(self, view: np.ndarray, labels: Sequence[int]) -> torch.Tensor:
        """Return the labels' maps (K, h, w) float32 on the CPU of a view (H, W, 3), fused with those of its horizontal flip."""
        return self._fused_pair(self.model.maps_of(self._features(view)), labels)

    def _features(self, view: np.ndarray) -> torch.Tensor:
        """Return the features (2, d, h, w) of a view (H, W, 3) and of its horizontal flip, if the settings say so."""
        return self.model.features(self._images(view))

    def _images(self, view: np.ndarray) -> torch.Tensor:
        """Return a view, and its horizontal flip if the settings say so, as a batch for the network."""
        backbone = self.model.backbone
        return hflip_pair(view, backbone.mean, backbone.std, self.model.image_head.weight, self.settings.hflip)

    def _fused_pair(self, all_maps: torch.Tensor, labels: Sequence[int]) -> torch.Tensor:
        """Return the labels' maps (K, h, w) float32 on the CPU, from those of all classes (2, C, h, w) of a view and its flip."""
        # of all classes, since the last bit of a matrix product depends on its number of rows: a map must not depend on the other labels
        return self._fuse(all_maps[:, [label - 1 for label in labels]].float().cpu())

    def _fuse(self, maps: torch.Tensor) -> torch.Tensor:
        """Return one map (..., h, w) of those of a view and of its horizontal flip (2, ..., h, w)."""
        if not self.settings.hflip:
            return maps[0]
        upright, flipped = maps[0], maps[1].flip(-1)
        return torch.maximum(upright, flipped) if self.settings.hflip_fusion == "max" else upright + flipped

    @torch.inference_mode(mode=False)
    def _climbed(self, view: np.ndarray, labels: Sequence[int], steps: int) -> torch.Tensor:
        """Return the labels' maps of AdvCAM, as `_fused`; the image climbs towards each label by itself."""
        model, images = self.model, self._images(view)
        positive = (model.map_weight > 0).sum(dim=1).tolist()
        climbed = [
            climbed_map(model.activation_maps, model.pool, self._fuse, images, n, positive[n], self.settings.advcam, steps)
            for n in (label - 1 for label in labels)
        ]
        return torch.stack(climbed).float().cpu()


class CamStage(CamPredictor, Stage):
    """The score maps of a data set's images."""

    def __init__(self, recipe: Recipe, index: Index, model: Classifier) -> None:
        """Take a trained classifier."""
        super().__init__(recipe.cam, model)
        self.index = index

    def __call__(self, row: Row) -> ScoreMap:
        """Return the score maps of the image's labels."""
        image = np.asarray(self.index.read_image(row))
        return ScoreMap(row.image_id, row.labels, image.shape[0], image.shape[1], self.maps(image, row.labels))
