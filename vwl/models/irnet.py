"""The boundary network, IRNet's edge branch: its boundaries stop the random walk on class activation maps (paper, section 4.1).

Confident labels (`vwl.inference.irnet_labels`) train it through affinities of pixel pairs (`vwl.training.irnet`); the walk stage
(`vwl.inference.walk`) uses it. IRNet's second branch, which predicts displacements to object centres, is left out: the backbone gets no
gradient, so the branches share no trainable parameter, and only instance masks use displacements.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from vwl.config import recipe
from vwl.constants import MAP_STRIDE
from vwl.models.backbones import build_backbone

SIDE_CHANNELS = 32


class BoundaryNet(nn.Module):
    """A frozen backbone and a head that predicts the boundaries between classes.

    Each feature level is reduced to 32 channels by a 1x1 convolution and group norm, resized to stride 4 and passed through a ReLU;
    a 1x1 convolution of all levels gives one logit.
    """

    def __init__(self, backbone: recipe.Backbone) -> None:
        """Build the network with random weights from torch's global generator.

        Raises:
            VwlError: the backbone cannot be built.
        """
        super().__init__()
        self.backbone = build_backbone(backbone)
        self.backbone.freeze(len(self.backbone.levels))
        self.sides = nn.ModuleList(
            nn.Sequential(nn.Conv2d(channels, SIDE_CHANNELS, 1, bias=False), nn.GroupNorm(4, SIDE_CHANNELS))
            for channels in self.backbone.channels
        )
        self.join = nn.Conv2d(SIDE_CHANNELS * len(self.sides), 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return boundary logits.

        Args:
            images: (B, 3, H, W) float, normalised for the backbone; any size.

        Returns:
            (B, 1, ceil(H / 4), ceil(W / 4)); the sigmoid is the probability of a boundary.
        """
        height, width = (-(-side // MAP_STRIDE) for side in images.shape[-2:])
        sides = []
        for features, side, stride in zip(self.backbone(images), self.sides, self.backbone.strides, strict=True):
            if stride < MAP_STRIDE:
                features = F.avg_pool2d(features, MAP_STRIDE // stride, ceil_mode=True)
            x = side(features)
            if stride > MAP_STRIDE:
                x = F.interpolate(x, scale_factor=stride // MAP_STRIDE, mode="bilinear", align_corners=False)
            sides.append(F.relu(_fit(x, height, width)))
        logits: Tensor = self.join(torch.cat(sides, dim=1))
        return logits

    def new_parameters(self) -> list[nn.Parameter]:
        """Return the parameters that train: all of the head, none of the backbone."""
        return [*self.sides.parameters(), *self.join.parameters()]


def _fit(x: Tensor, height: int, width: int) -> Tensor:
    """Crop features at the right and bottom, or repeat their last pixels there where a backbone rounds its sizes down."""
    x = x[..., :height, :width]
    missing = (width - x.shape[-1], height - x.shape[-2])
    return F.pad(x, (0, missing[0], 0, missing[1]), mode="replicate") if any(missing) else x
