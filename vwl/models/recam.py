"""ReCAM (Chen et al., CVPR 2022): a classifier whose class activation maps are re-activated by a second head, trained with a softmax.

The multi-label loss judges each class by itself, so that the features of classes that occur together stay confused. ReCAM pools features
within the map of each class of an image, and a new head has to tell that class from all others. The maps then take the product of
both heads' weights. Visual words, hybrid pooling and their losses stay as they are.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from vwl.config.recipe import Classifier as Settings
from vwl.maps.cam import class_activation
from vwl.models.classifier import Classifier, ClassifierOutput

_EPSILON = 1e-5
"""Added to the maximum that a map is divided by."""


class RecamOutput(NamedTuple):
    """Outputs of a batch.

    Attributes:
        classifier: those of the classifier.
        class_logits: (B, C, C); row c is what the new head makes of the features within the map of class c.
    """

    classifier: ClassifierOutput
    class_logits: torch.Tensor


class ReactivatedClassifier(Classifier):
    """A classifier with ReCAM's head."""

    def __init__(self, settings: Settings, num_objects: int) -> None:
        """Build the network for `num_objects` classes, not counting the background."""
        super().__init__(settings, num_objects)
        self.recam_head = nn.Linear(self.image_head.in_features, num_objects, bias=False)

    @property
    def map_weight(self) -> torch.Tensor:
        """W (C, d) of Eq. 1: the product of the weights of both heads."""
        return self.image_head.weight * self.recam_head.weight

    def forward(self, images: torch.Tensor, valid: torch.Tensor | None = None) -> RecamOutput:  # type: ignore[override]
        """Classify normalised images (B, 3, H, W); `valid` as in `Classifier.forward`."""
        output = super().forward(images, valid)
        return RecamOutput(output, self.recam_head(class_features(output.features, self.image_head.weight)))


def class_features(features: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the feature of each class (B, C, d): the mean of the features, each times its score in the map of the class.

    Args:
        features: F, (B, d, h, w).
        weight: of the image-label head, (C, d); the class activation maps that it gives are divided by their maximum.
    """
    maps = class_activation(features, weight)
    scores = maps / (maps.amax(dim=(2, 3), keepdim=True) + _EPSILON)
    return scores.flatten(2) @ features.flatten(2).transpose(1, 2) / scores[0, 0].numel()


def softmax_loss(class_logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the softmax cross entropy (B,) of each image: the mean over its positive classes, and 0 if it has none.

    Args:
        class_logits: (B, C, C), as `RecamOutput` has them.
        targets: (B, C) of 0 and 1.
    """
    own = functional.log_softmax(class_logits, dim=2).diagonal(dim1=1, dim2=2)
    return -(targets * own).sum(dim=1) / targets.sum(dim=1).clamp(min=1)
