"""Training of the boundary network (IRNet; paper section 4.1, "CAMs refinement") with the affinity loss on confident labels."""

from typing import Any

import numpy as np
import torch

from vwl.config.recipe import Irnet
from vwl.constants import MAP_STRIDE
from vwl.models.affinity_loss import pair_affinities
from vwl.models.irnet import BoundaryNet
from vwl.training.affinity import AffinityTask
from vwl.training.task import Forward


class IrnetTask(AffinityTask):
    """Learns boundaries between pixels of different labels: no boundary on the path between pixels of the same label."""

    name = "irnet"
    stride = MAP_STRIDE
    settings: Irnet

    def network(self) -> BoundaryNet:
        """Return the boundary network with random weights."""
        return BoundaryNet(self.settings.backbone)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the parameters of the head; the backbone does not train."""
        rate = self.optimiser.learning_rate * self.optimiser.head_lr_mult
        return [{"params": self.model.new_parameters(), "lr": rate, "weight_decay": self.optimiser.weight_decay}]

    def rescale(self, rng: np.random.Generator) -> float:
        """Return a factor drawn uniformly from `irnet.rescale`."""
        low, high = self.settings.rescale
        return rng.uniform(low, high)

    def affinities(self, forward: Forward, images: torch.Tensor) -> torch.Tensor:
        """Return 1 minus the largest boundary score on the path of each pair."""
        edge = torch.sigmoid(forward(images).to(torch.promote_types(images.dtype, torch.float32)))
        return pair_affinities(edge, self.settings.radius)
