"""The segment stage: the segmentation model's masks, multi-scale with mirror, refined by a dense CRF."""

import numpy as np
import torch
from torch.nn import functional as F

from vwl.data.index import Index, Row
from vwl.data.transforms import long_side_scale, scaled_size
from vwl.inference.stage import Stage, mirrored_pair
from vwl.maps.dense_crf import crf_probabilities
from vwl.models.deeplab import DeepLabV2
from vwl.recipe import Recipe


class SegmentStage(Stage):
    """Probabilities averaged over scales and mirror images, the CRF, argmax. Image labels are not used."""

    def __init__(self, recipe: Recipe, index: Index, model: DeepLabV2) -> None:
        """Take a trained segmentation model."""
        self.index, self.settings, self.model = index, recipe.segment, model.eval()

    @torch.inference_mode()
    def probabilities(self, photo: np.ndarray) -> np.ndarray:
        """Return class probabilities (C + 1, H, W) float32 of a photograph (H, W, 3) uint8, before the CRF."""
        height, width = photo.shape[:2]
        base = long_side_scale(photo.shape, self.settings.long_side)
        backbone, weight = self.model.backbone, self.model.aspp_weights()[0]
        total = torch.zeros(1, weight.shape[0], height, width)
        for scale in self.settings.scales:
            size = scaled_size(photo.shape, base * scale)
            logits = self.model.fused(mirrored_pair(photo, size, backbone.mean, backbone.std, weight, self.settings.mirror))
            if self.settings.mirror:
                logits = (logits[:1] + logits[1:].flip(3)) / 2
            total += torch.softmax(F.interpolate(logits.float(), (height, width), mode="bilinear", align_corners=False), dim=1).cpu()
        return (total[0] / len(self.settings.scales)).numpy()

    def mask(self, photo: np.ndarray) -> np.ndarray:
        """Return the mask (H, W) uint8 of a photograph (H, W, 3) uint8."""
        probabilities = self.probabilities(photo)
        likeliest = probabilities.argmax(axis=0).astype(np.uint8)
        if not self.settings.crf:
            return likeliest
        # Classes that no pixel prefers even a little only cost time: the CRF cannot raise them.
        present = np.union1d(likeliest, np.flatnonzero(probabilities.max(axis=(1, 2)) > 0.05))
        refined = crf_probabilities(photo, probabilities[present], self.settings.kernels)
        return present[refined.argmax(axis=0)].astype(np.uint8)

    def __call__(self, row: Row) -> np.ndarray:
        """Return the mask (H, W) uint8."""
        return self.mask(np.array(self.index.read_image(row)))
