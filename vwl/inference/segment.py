"""The segment stage: the segmentation model's masks, multi-scale with horizontal flip, refined by a dense CRF.

`MaskPredictor` needs a network and settings only, so that a model file (`vwl.model_file`) predicts by the same code.
"""

from collections.abc import Sequence
from dataclasses import dataclass

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


@dataclass(frozen=True, eq=False)  # arrays have no truth value
class SoftMask:
    """The scores that a mask is the argmax of.

    Attributes:
        class_ids: (K,) class id of each score, ascending.
        scores: (K, h, w) float32 probabilities; smaller than the image where it has more than `kernels.max_pixels`.
    """

    class_ids: np.ndarray
    scores: np.ndarray

    def mask(self, height: int, width: int) -> np.ndarray:
        """Return the mask (height, width) uint8 of an image of this size."""
        return self.class_ids[upsampled_argmax(self.scores, height, width)].astype(np.uint8)


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

    @torch.inference_mode()
    def batch_probabilities(self, images: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Return `probabilities` of images of one size, which pass through the network together.

        The sums in a network are added up in another order than for one image, so the last bits differ. Images that are cut into tiles
        pass one by one.
        """
        shape, tile = images[0].shape, self.settings.tile
        base = long_side_scale(shape, self.settings.long_side)
        sizes = [scaled_size(shape, base * scale) for scale in self.settings.scales]
        if len(images) == 1 or max(map(max, sizes)) > tile:
            return [self.probabilities(image) for image in images]
        assert all(image.shape == shape for image in images), "images of one size"
        size = working_size(shape[0], shape[1], self.settings.kernels.max_pixels)
        backbone, weight = self.model.backbone, self.model.aspp_weights()[0]
        total = torch.zeros(len(images), weight.shape[0], *size)
        for height, width in sizes:
            views = [hflip_pair(resize(image, height, width), backbone.mean, backbone.std, weight, self.settings.hflip) for image in images]
            batch = torch.cat(views).contiguous(memory_format=torch.channels_last)
            logits = self.model.fused(batch).float().cpu()
            if self.settings.hflip:
                logits = (logits[0::2] + logits[1::2].flip(3)) / 2
            total += torch.softmax(F.interpolate(logits, size, mode="bilinear", align_corners=False), dim=1)
        return list((total / len(self.settings.scales)).numpy())

    def refined(
        self, image: np.ndarray, probabilities: np.ndarray, crf: bool | None = None, classes: Sequence[int] | None = None
    ) -> SoftMask:
        """Return the scores whose argmax is the mask: the probabilities of an image, by the CRF refined or not.

        Args:
            image: (H, W, 3) uint8.
            probabilities: of the image, see `probabilities`.
            crf: replaces the setting of that name, if given.
            classes: ids of the object classes that the image may hold; the probabilities of the others are left out, and those of these
                classes and the background divided by their sum. Default: all.
        """
        ids = np.arange(len(probabilities)) if classes is None else np.union1d([0], np.asarray(classes, np.int64))
        if classes is not None:
            probabilities = probabilities[ids]
            probabilities = probabilities / np.maximum(probabilities.sum(axis=0), np.finfo(np.float32).tiny)
        if not (self.settings.crf if crf is None else crf):
            return SoftMask(ids, probabilities)
        kept = crf_classes(probabilities)
        working = resize(image, *probabilities.shape[1:])
        return SoftMask(ids[kept], crf_probabilities(working, probabilities[kept], self.settings.kernels))

    def mask(self, image: np.ndarray, crf: bool | None = None) -> np.ndarray:
        """Return the mask (H, W) uint8 of an image (H, W, 3) uint8; `crf`, if given, replaces the setting of that name."""
        return self.refined(image, self.probabilities(image), crf).mask(*image.shape[:2])


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
