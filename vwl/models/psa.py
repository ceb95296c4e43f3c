"""The affinity network of PSA (Ahn and Kwak 2018, AffinityNet): features whose distance is the affinity of two pixels.

An alternative to the boundary network of IRNet (`vwl.models.irnet`): confident labels (`vwl.inference.psa_labels`) train it
(`vwl.training.psa`), and the walk stage spreads score maps by its affinities (`vwl.inference.psa_walk`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vwl.config import recipe
from vwl.models.backbones import build_backbone

AFFINITY_STRIDE = 8
"""Stride of the affinity features, pixels."""
SIDE_CHANNELS = (64, 128, 256)
"""Channels to which the backbone's last three levels are reduced, as published."""


class AffinityNet(nn.Module):
    """A backbone and a head of 1x1 convolutions without bias, each followed by an ELU.

    The last three levels are reduced to 64, 128 and 256 channels, resized to stride 8 and joined by one more convolution. The published
    network has these levels at stride 8 already (a dilated ResNet-38).
    """

    def __init__(self, settings: "recipe.Psa") -> None:
        """Build the network with random weights from torch's global generator.

        Raises:
            VwlError: the backbone cannot be built, or has fewer stages than are to be frozen.
        """
        super().__init__()
        self.backbone = build_backbone(settings.backbone)
        self.backbone.freeze(settings.frozen_stages)
        self.sides = nn.ModuleList(
            nn.Conv2d(channels, side, 1, bias=False)
            for channels, side in zip(self.backbone.channels[-len(SIDE_CHANNELS) :], SIDE_CHANNELS, strict=True)
        )
        self.join = nn.Conv2d(sum(SIDE_CHANNELS), sum(SIDE_CHANNELS), 1, bias=False)
        for side in self.sides:
            assert isinstance(side, nn.Conv2d)
            nn.init.kaiming_normal_(side.weight)
        nn.init.xavier_uniform_(self.join.weight, gain=4)

    def forward(self, images: Tensor) -> Tensor:
        """Return the affinity features.

        Args:
            images: (B, 3, H, W) float, normalised for the backbone; any size.

        Returns:
            (B, 448, ceil(H / 8), ceil(W / 8)).
        """
        size = tuple(-(-side // AFFINITY_STRIDE) for side in images.shape[-2:])
        levels = self.backbone(images)[-len(SIDE_CHANNELS) :]
        sides = [F.elu(side(level)) for level, side in zip(levels, self.sides, strict=True)]
        fitted = [x if x.shape[-2:] == size else F.interpolate(x, size, mode="bilinear", align_corners=False) for x in sides]
        features: Tensor = F.elu(self.join(torch.cat(fitted, dim=1)))
        return features

    def new_parameters(self) -> list[nn.Parameter]:
        """Return the parameters of the head, which start from random values."""
        return [*self.sides.parameters(), *self.join.parameters()]
