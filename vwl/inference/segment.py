"""The segment stage: the segmentation model's masks, multi-scale with horizontal flip, refined by a dense CRF.

`MaskPredictor` needs a network and settings only, so that a model file (`vwl.model_file`) predicts by the same code.
"""

import numpy as np
import torch
from torch.nn import functional as F

from vwl.config.recipe import Recipe, Segment
from vwl.crf.dense_crf import check_implementation, crf_probabilities
from vwl.data.index import Index, Row
from vwl.data.transforms import long_side_scale, resize, scaled_size
from vwl.inference.stage import Stage, hflip_pair
from vwl.inference.tiles import tiled
from vwl.maps.cam import upsampled_argmax, working_size
from vwl.models.deeplab import DeepLabV2
from vwl.models.folding import for_inference

_MIN_PEAK = 0.05
"""Probability that a class must reach in at least one pixel to take part in the CRF."""


class MaskPredictor:
    """Probabilities averaged over scales and horizontal flips, the CRF, argmax. Image labels are not used."""

    def __init__(self, settings: Segment, model: DeepLabV2) -> None:
        """Take a trained segmentation model."""
        self.settings, self.model = settings, for_inference(model)
        if self.settings.crf:
            check_implementation(self.settings.kernels)

    @torch.inference_mode()
    def probabilities(self, image: np.ndarray) -> np.ndarray:
        """Return class probabilities of an image (H, W, 3) uint8 before the CRF.

        Returns:
            (C + 1, H, W) float32; smaller, see `working_size`, where the image has more than `kernels.max_pixels`.
        """
        size = working_size(image.shape[0], image.shape[1], self.settings.kernels.max_pixels)
        base = long_side_scale(image.shape, self.settings.long_side)
        total = torch.zeros(1, self.model.aspp_weights()[0].shape[0], *size)
        for scale in self.settings.scales:
            logits = tiled(self._fused, resize(image, *scaled_size(image.shape, base * scale)), self.settings.tile)[None]
            total += torch.softmax(F.interpolate(logits, size, mode="bilinear", align_corners=False), dim=1)
        return (total[0] / len(self.settings.scales)).numpy()

    def _fused(self, view: np.ndarray) -> torch.Tensor:
        """Return logits (C + 1, h, w) float32 on the CPU of a view (H, W, 3), averaged with those of its horizontal flip."""
        backbone, weight = self.model.backbone, self.model.aspp_weights()[0]
        logits = self.model.fused(hflip_pair(view, backbone.mean, backbone.std, weight, self.settings.hflip)).float().cpu()
        return (logits[0] + logits[1].flip(2)) / 2 if self.settings.hflip else logits[0]

    def mask(self, image: np.ndarray, crf: bool | None = None) -> np.ndarray:
        """Return the mask (H, W) uint8 of an image (H, W, 3) uint8; `crf`, if given, replaces the setting of that name."""
        probabilities = self.probabilities(image)
        if not (self.settings.crf if crf is None else crf):
            return upsampled_argmax(probabilities, *image.shape[:2])
        kept = crf_classes(probabilities)
        working = resize(image, *probabilities.shape[1:])
        refined = crf_probabilities(working, probabilities[kept], self.settings.kernels)
        return kept[upsampled_argmax(refined, *image.shape[:2])].astype(np.uint8)


class SegmentStage(MaskPredictor, Stage):
    """The masks of a data set's images."""

    def __init__(self, recipe: Recipe, index: Index, model: DeepLabV2) -> None:
        """Take a trained segmentation model."""
        super().__init__(recipe.segment, model)
        self.index = index

    def __call__(self, row: Row) -> np.ndarray:
        """Return the mask (H, W) uint8."""
        return self.mask(np.array(self.index.read_image(row)))


def crf_classes(probabilities: np.ndarray) -> np.ndarray:
    """Return the ids of the classes that take part in the CRF: the most probable in at least one pixel, or above 0.05.

    The CRF's time grows with the number of classes, and it cannot raise a class that no pixel favours (`benchmarks/pruning.py`).
    """
    return np.union1d(probabilities.argmax(axis=0), np.flatnonzero(probabilities.max(axis=(1, 2)) > _MIN_PEAK))
