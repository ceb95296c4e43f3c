"""DeepLabV2, the segmentation model that is trained on the masks of the random walk (paper, section 4.1).

It is a backbone at output stride 8 and parallel dilated convolutions whose logits are added (ASPP). The same network also runs on
smaller copies of the image; the maximum of all logits is the prediction.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vwl.config import recipe
from vwl.models.backbones import build_backbone


class DeepLabV2(nn.Module):
    """The segmentation network.

    Batch norm keeps its stored statistics and its affine parameters do not train, as in the published models.
    """

    def __init__(self, settings: recipe.Segmenter, num_classes: int) -> None:
        """Build the network with random weights from torch's global generator.

        Args:
            settings: backbone, output stride, dilations and input scales.
            num_classes: including the background (21 for VOC).

        Raises:
            VwlError: the backbone cannot be built.
        """
        super().__init__()
        self.input_scales = settings.input_scales
        self.backbone = build_backbone(settings.backbone, settings.output_stride, tail=True)
        for module in self.backbone.modules():
            if isinstance(module, _BatchNorm):
                module.requires_grad_(False)
        self.aspp = nn.ModuleList(
            nn.Conv2d(self.backbone.channels[-1], num_classes, 3, padding=rate, dilation=rate) for rate in settings.atrous_rates
        )
        for weight, bias in zip(self.aspp_weights(), self.aspp_biases(), strict=True):
            nn.init.normal_(weight, std=0.01)
            nn.init.zeros_(bias)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the logits of all input scales; each has a loss of its own.

        Sides of scaled copies are rounded down, as in the published code: a crop of 321 pixels is scaled to 160 and 240.

        Args:
            images: (B, 3, H, W) float, normalised for the backbone; any size.

        Returns:
            Logits (B, num_classes, h, w) of the images, of each scaled copy at its own size, and the maximum of all at the size of the
            first; without `input_scales` only the first.
        """
        logits = [self._logits(images)]
        for scale in self.input_scales:
            logits.append(self._logits(_scaled(images, scale)))
        if not self.input_scales:
            return logits
        fused = logits[0]
        for smaller in logits[1:]:
            fused = torch.maximum(fused, F.interpolate(smaller, fused.shape[-2:], mode="bilinear", align_corners=False))
        return [*logits, fused]

    def fused(self, images: Tensor) -> Tensor:
        """Return the logits (B, num_classes, h, w) for prediction: the maximum over the input scales.

        Args:
            images: (B, 3, H, W) float, normalised for the backbone; any size.
        """
        return self.forward(images)[-1]

    def backbone_parameters(self) -> list[nn.Parameter]:
        """Return the backbone's parameters that train: its convolutions."""
        return [parameter for parameter in self.backbone.parameters() if parameter.requires_grad]

    def aspp_weights(self) -> list[nn.Parameter]:
        """Return the ASPP's weights, which learn faster than the backbone."""
        return [parameter for name, parameter in self.aspp.named_parameters() if name.endswith("weight")]

    def aspp_biases(self) -> list[nn.Parameter]:
        """Return the ASPP's biases, which learn fastest and have no weight decay."""
        return [parameter for name, parameter in self.aspp.named_parameters() if name.endswith("bias")]

    def _logits(self, images: Tensor) -> Tensor:
        features = self.backbone(images)[-1]
        logits: Tensor = self.aspp[0](features)
        for branch in self.aspp[1:]:
            logits = logits + branch(features)
        return logits


def _scaled(images: Tensor, scale: float) -> Tensor:
    """Return images (B, C, H, W) scaled as in the published code, with sides rounded down; a side keeps at least one pixel."""
    if min(images.shape[-2:]) * scale < 1:
        size = [max(1, int(side * scale)) for side in images.shape[-2:]]
        return F.interpolate(images, size, mode="bilinear", align_corners=False)
    return F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
