"""The classification network (paper Fig. 3): backbone, pooling, the image-label head and the two visual-word heads."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from vwl.config.recipe import Classifier as Settings
from vwl.maps.cam import class_activation
from vwl.models.backbones import build_backbone
from vwl.models.codebook import Codebook, Encoding
from vwl.models.hybrid_pooling import global_average, hybrid_pooling


class ClassifierOutput(NamedTuple):
    """Outputs of a batch; those of the visual words are none where the strategy has no such head.

    Attributes:
        image_logits: p_img (B, C).
        word_logits: p_word (B, k).
        word_to_image_logits: p_w2i (B, C).
        encoding: histogram, word labels and assignments.
        features: F (B, d, h, w).
    """

    image_logits: torch.Tensor
    word_logits: torch.Tensor | None
    word_to_image_logits: torch.Tensor | None
    encoding: Encoding | None
    features: torch.Tensor


class Classifier(nn.Module):
    """Backbone and linear heads. Only the image-label head can have a bias (`image_bias`)."""

    def __init__(self, settings: Settings, num_objects: int) -> None:
        """Build the network for `num_objects` classes, not counting the background."""
        super().__init__()
        self.settings = settings
        self.backbone = build_backbone(settings.backbone, output_stride=16, frozen_stages=settings.frozen_stages, tail=True)
        dim = self.backbone.channels[-1]
        self.image_head = nn.Linear(dim, num_objects, bias=settings.image_bias)
        self.codebook: Codebook | None = None
        self.word_head: nn.Linear | None = None
        self.word_to_image_head: nn.Linear | None = None
        if settings.codebook.strategy != "none":
            self.codebook = Codebook(settings.codebook, dim)
            self.word_head = nn.Linear(dim, settings.codebook.num_codewords, bias=False)
        if settings.codebook.strategy == "learning":
            self.word_to_image_head = nn.Linear(settings.codebook.num_codewords, num_objects, bias=False)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        """Return F (B, d, h, w) of normalised images (B, 3, H, W), at output stride 16."""
        return self.backbone(images)[-1]

    def pool(self, features: torch.Tensor) -> torch.Tensor:
        """Return what the image-label head classifies (B, d): features (B, d, h, w) pooled as the settings say, Eq. 9 or 10."""
        return hybrid_pooling(features, self.settings.gap_weight) if self.settings.pooling == "hybrid" else global_average(features)

    def forward(self, images: torch.Tensor, valid: torch.Tensor | None = None) -> ClassifierOutput:
        """Classify normalised images (B, 3, H, W); `valid` (B, H, W) bool is false in the padding of a crop."""
        features = self.features(images)
        # Before `pool`: the order of the graph is the order in which gradients add up, and thus their last bits.
        pooled = global_average(features)
        image = self.image_head(self.pool(features))
        if self.codebook is None or self.word_head is None:
            return ClassifierOutput(image, None, None, None, features)
        encoding = self.codebook(features, None if valid is None else cells_inside(valid, features))
        word_to_image = self.word_to_image_head(encoding.histogram) if self.word_to_image_head is not None else None
        return ClassifierOutput(image, self.word_head(pooled), word_to_image, encoding, features)

    @property
    def map_weight(self) -> torch.Tensor:
        """W (C, d) of Eq. 1: the weights of the image-label head, without its bias."""
        return self.image_head.weight

    def maps_of(self, features: torch.Tensor) -> torch.Tensor:
        """Return the class activation maps (B, C, h, w) of features (B, d, h, w): Eq. 1 with ReLU."""
        return class_activation(features, self.map_weight)

    def activation_maps(self, images: torch.Tensor) -> torch.Tensor:
        """Return the class activation maps (B, C, h, w) of normalised images (B, 3, H, W)."""
        return self.maps_of(self.features(images))


def cells_inside(valid: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Return (B, h, w) bool: the cells of the feature map of which at least half the pixels are `valid` (B, H, W)."""
    return F.adaptive_avg_pool2d(valid[:, None].float(), (features.shape[2], features.shape[3]))[:, 0] >= 0.5
