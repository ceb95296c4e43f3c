"""Training of PSA's affinity network (Ahn and Kwak 2018) with the affinity loss on confident labels; used with `refiner: psa`."""

from typing import Any

import torch

from vwl.config.recipe import Psa
from vwl.models.affinity_loss import pair_feature_affinities
from vwl.models.psa import AFFINITY_STRIDE, AffinityNet
from vwl.training.affinity import AffinityTask
from vwl.training.task import Forward


class PsaTask(AffinityTask):
    """Learns features that are alike for pixels of the same label and unlike for pixels of different labels.

    Published PSA also changes the colours of training images (brightness, contrast, saturation, hue) and scores labels by soft CRF
    probabilities averaged over 8 x 8 pixels; here the labels are those of the stage's masks.
    """

    name = "psa"
    stride = AFFINITY_STRIDE
    settings: Psa

    def network(self) -> AffinityNet:
        """Return the affinity network with random weights."""
        return AffinityNet(self.settings)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the backbone's parameters and, at `head_lr_mult` times their learning rate, those of the head."""
        rate, decay = self.optimiser.learning_rate, self.optimiser.weight_decay
        backbone = [parameter for parameter in self.model.backbone.parameters() if parameter.requires_grad]
        return [
            {"params": backbone, "lr": rate, "weight_decay": decay},
            {"params": self.model.new_parameters(), "lr": rate * self.optimiser.head_lr_mult, "weight_decay": decay},
        ]

    def affinities(self, forward: Forward, images: torch.Tensor) -> torch.Tensor:
        """Return exp(-mean absolute difference) of the features of each pair."""
        return pair_feature_affinities(forward(images), self.settings.radius)
