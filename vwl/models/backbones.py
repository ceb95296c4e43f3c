"""Backbones: the convolutional networks of the classifier, the boundary network and the segmenter (the paper's E, section 3.1).

The paper uses torchvision's ResNets. EfficientNet-Lite0 (`lite0`) has its ImageNet weights in a package; any network of timm that comes in
stages can be used. Batch norm always uses its stored statistics, as in the published code, so that results do not depend on how a
batch is divided. Networks are built with random weights; `vwl.training.pretrained` loads others.
"""

from collections.abc import Iterable, Sequence
from typing import Any

import timm
import torch
import torchvision
from timm.models._features import FeatureListNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vwl.config import recipe
from vwl.errors import VwlError, did_you_mean
from vwl.models.caffe import CAFFE_MEAN, CAFFE_STD, set_caffe_structure

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LITE_MEAN = (127 / 255,) * 3
LITE_STD = (128 / 255,) * 3
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")


class BackboneNet(nn.Module):
    """A network divided into levels of features, each the input of the next.

    Batch norm never uses or changes batch statistics, also in training mode; its affine parameters train like others.

    Attributes:
        net: the network of torchvision or timm without its classification layers; weights load into it by their usual names.
        channels: feature channels of each level.
        strides: stride of each level, pixels of the image.
        mean, std: normalise RGB images in 0..1 for this network.
        frozen_stages: number of leading levels without gradient.
        caffe: whether structure and inputs are those of a Caffe ResNet (`vwl.models.caffe`). The weights require it, so it is saved and
            loaded with them.
    """

    def __init__(
        self,
        net: nn.Module,
        levels: Sequence[Sequence[str]],
        channels: Iterable[int],
        strides: Iterable[int],
        mean: Iterable[float] = IMAGENET_MEAN,
        std: Iterable[float] = IMAGENET_STD,
    ) -> None:
        """Divide `net` into levels; each names the modules of `net` to run in order."""
        super().__init__()
        self.net = net
        self.levels = tuple(tuple(level) for level in levels)
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.frozen_stages = 0
        self.caffe = False
        self.train()

    def freeze(self, stages: int) -> None:
        """Disable gradients of the first `stages` levels and enable those of all others.

        Raises:
            VwlError: the backbone has fewer levels.
        """
        if not 0 <= stages <= len(self.levels):
            raise VwlError(f"frozen_stages is {stages}, but the backbone has {len(self.levels)} stages")
        self.frozen_stages = stages
        for number, level in enumerate(self.levels):
            for name in level:
                self.net.get_submodule(name).requires_grad_(number >= stages)
        self.train(self.training)

    def use_caffe(self) -> None:
        """Take the structure and the input units that Caffe's weights require (ResNets with bottlenecks only)."""
        if not self.caffe:
            set_caffe_structure(self.net)
            self.caffe, self.mean, self.std = True, CAFFE_MEAN, CAFFE_STD

    def get_extra_state(self) -> Tensor:
        """Return what the state dict holds besides parameters and buffers: whether the weights are Caffe's."""
        return torch.tensor([self.caffe])

    def set_extra_state(self, state: Tensor) -> None:
        """Apply what `get_extra_state` returned.

        Raises:
            VwlError: the weights are a Caffe network's as saved by an earlier version, whose first convolution has other units.
        """
        if bool(state.any()):
            if state.dim() == 0:
                raise VwlError("these weights descend from a Caffe file and were trained by an earlier version of vwl; train them again")
            self.use_caffe()

    def train(self, mode: bool = True) -> "BackboneNet":
        """Set the training mode; batch norm and frozen levels stay in evaluation mode."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        for level in self.levels[: self.frozen_stages]:
            for name in level:
                self.net.get_submodule(name).eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features of each level.

        Args:
            images: (B, 3, H, W) float, normalised with `mean` and `std`.

        Returns:
            For each level i: (B, channels[i], about H / strides[i], about W / strides[i]).
        """
        features = []
        x = images
        for number, level in enumerate(self.levels):
            with torch.set_grad_enabled(torch.is_grad_enabled() and number >= self.frozen_stages):
                for name in level:
                    x = self.net.get_submodule(name)(x)
            features.append(x)
        return features


def build_backbone(settings: recipe.Backbone, output_stride: int = 16, frozen_stages: int = 0, tail: bool = False) -> BackboneNet:
    """Build a backbone; its parameters are drawn from torch's global random generator.

    Args:
        settings: its name; `weights` is not used here.
        output_stride: of the last level, 8 or 16 pixels. ResNets reach 16 by removing the stride of layer4 without dilation, as the
            paper's classifier does, and 8 with dilations 2 in layer3 and 4 in layer4, as DeepLabV2 does. timm's networks use dilation
            for both.
        frozen_stages: number of leading levels without gradient.
        tail: include the layers up to the features that the network itself classifies: for lite0 its last 1x1 convolution
            (1,280 channels instead of 320). ResNets classify their last level; timm's other networks are left without.

    Raises:
        VwlError: the name is unknown, or the network does not come in stages.
    """
    if output_stride not in {8, 16}:
        raise ValueError(f"output stride {output_stride} is neither 8 nor 16")
    if settings.name in RESNETS:
        backbone = _resnet(settings, output_stride)
    elif settings.name == "lite0":
        backbone = _lite0(settings, output_stride, tail)
    elif settings.name.startswith("timm:"):
        backbone = _timm(settings, output_stride)
    else:
        raise VwlError(
            f"backbone.name '{settings.name}' is none of {', '.join(RESNETS)}, lite0, timm:<model name>"
            f"{did_you_mean(settings.name, [*RESNETS, 'lite0'])}"
        )
    backbone.freeze(frozen_stages)
    return backbone


def _resnet(settings: recipe.Backbone, output_stride: int) -> BackboneNet:
    net = torchvision.models.get_model(settings.name, weights=None)
    del net.avgpool, net.fc
    _set_stride(net.layer4, 1)
    if output_stride == 8:
        _set_stride(net.layer3, 1)
        _set_dilation(net.layer3, 2)
        _set_dilation(net.layer4, 4)
    widths = [64, 64, 128, 256, 512]
    channels = widths if settings.name in {"resnet18", "resnet34"} else [64, *(4 * width for width in widths[1:])]
    levels = [("conv1", "bn1", "relu", "maxpool"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    return BackboneNet(net, levels, channels, (4, 4, 8, min(16, output_stride), output_stride))


def _set_stride(layer: nn.Module, stride: int) -> None:
    for module in layer.modules():
        if isinstance(module, nn.Conv2d) and module.stride != (1, 1):
            module.stride = (stride, stride)


def _set_dilation(layer: nn.Module, dilation: int) -> None:
    """Dilate a layer's 3x3 convolutions; the first one, which had the stride, is dilated like the layer before."""
    convolutions = [m for m in layer.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    for number, convolution in enumerate(convolutions):
        step = dilation if number else dilation // 2
        convolution.dilation = convolution.padding = (step, step)


def _lite0(settings: recipe.Backbone, output_stride: int, tail: bool) -> BackboneNet:
    net = timm.create_model("tf_efficientnet_lite0", features_only=True, output_stride=output_stride)
    backbone = _cut(net, settings.name, LITE_MEAN, LITE_STD)
    if tail:
        whole = timm.create_model("tf_efficientnet_lite0", output_stride=output_stride)
        net.conv_head, net.bn2 = whole.conv_head, whole.bn2
        backbone.levels = (*backbone.levels[:-1], (*backbone.levels[-1], "conv_head", "bn2"))
        backbone.channels = (*backbone.channels[:-1], net.conv_head.out_channels)
        backbone.train()
    return backbone


def _timm(settings: recipe.Backbone, output_stride: int) -> BackboneNet:
    name = settings.name.removeprefix("timm:")
    if not timm.is_model(name):
        raise VwlError(f"backbone.name: timm has no network '{name}'{did_you_mean(name, timm.list_models())}")
    try:
        net = timm.create_model(name, features_only=True, output_stride=output_stride)
    except (AssertionError, RuntimeError, TypeError, AttributeError) as error:
        raise VwlError(f"timm's {name} has no features at stride {output_stride} ({error}); choose another backbone.name") from None
    return _cut(net, name, net.pretrained_cfg["mean"], net.pretrained_cfg["std"])


def _cut(net: Any, name: str, mean: Iterable[float], std: Iterable[float]) -> BackboneNet:
    """Divide one of timm's feature networks into levels: lists of modules, or networks with a stem and blocks."""
    if isinstance(net, FeatureListNet) and net.output_fmt == "NCHW":
        steps, ends = list(net), set(net.return_layers)
    elif hasattr(net, "_stage_out_idx") and hasattr(net, "blocks"):
        steps = [step for step, _ in net.named_children() if step != "blocks"]
        ends = {steps[-1]} if 0 in net._stage_out_idx else set()
        steps += [f"blocks.{number}" for number in range(len(net.blocks))]
        ends |= {f"blocks.{number - 1}" for number in net._stage_out_idx if number}
    else:
        raise VwlError(f"timm's {name} does not come in stages; choose a convolutional network as backbone.name")
    levels: list[list[str]] = [[]]
    for step in steps:
        levels[-1].append(step)
        if step in ends:
            levels.append([])
    info = net.feature_info
    return BackboneNet(net, levels[: len(ends)], info.channels(), info.reduction(), mean, std)
