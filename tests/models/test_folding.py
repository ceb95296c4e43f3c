"""Folded networks: no batch norm is left behind a convolution, and their features are those of the unfolded ones."""

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from vwl.config.recipe import Backbone
from vwl.models.backbones import build_backbone
from vwl.models.folding import folded


@pytest.mark.parametrize("name", ["lite0", "resnet18", "resnet50", "timm:test_resnet"])
@pytest.mark.parametrize("output_stride", [8, 16])
def test_a_folded_backbone_has_the_features_of_the_unfolded_one(name, output_stride):
    torch.manual_seed(0)
    backbone = build_backbone(Backbone(name=name, weights="none"), output_stride, tail=True).eval()
    for module in backbone.modules():
        if isinstance(module, _BatchNorm):  # as after a training
            torch.nn.init.uniform_(module.running_mean, -0.3, 0.3)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.3, 0.3)
    images = torch.rand(2, 3, 65, 97)
    found = folded(backbone)
    assert not any(isinstance(module, _BatchNorm) for module in found.modules())
    with torch.inference_mode():
        for whole, own in zip(backbone(images), found(images), strict=True):
            torch.testing.assert_close(own, whole, atol=1e-4 * float(whole.abs().max()), rtol=0)
            assert whole.std() > 0


class Branching(nn.Module):
    """A network in which something else than the batch norm reads the convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.constant_(self.norm.running_var, 4.0)

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        x = self.convolution(images)
        return [x + self.norm(x)]


def test_a_network_that_cannot_be_folded_is_left_as_it_is():
    network = Branching().eval()
    assert folded(network) is network
