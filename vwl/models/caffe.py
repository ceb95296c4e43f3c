"""The Caffe ResNet-101 that DeepLabV2 starts from, as a torchvision ResNet with normalised RGB inputs.

The initial checkpoint of DeepLabV2 (the segmentation model of the paper's section 4.1) was made with Caffe and is passed around as a
torch file with its own names. Its network differs from torchvision's in three ways: the stride of a bottleneck sits on the
first 1x1 convolution and not on the 3x3 one, the max-pool rounds its size up, and images come as BGR in 0..255 less a mean. The first
two are settings of the network (`set_stride_position`), the third is folded into the first layer (`caffe_to_torchvision`).
`vwl.models.backbones` does both when it meets such a file.
"""

import re
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torchvision.models import ResNet

CAFFE_MEAN = (122.675, 116.669, 104.008)
"""Subtracted from RGB values in 0..255 before the Caffe network."""

_STEM = re.compile(r"(?:.*\.)?layer1\.conv1\.(conv|bn)\.(\w+)")
_BLOCK = re.compile(r"(?:.*\.)?layer([2-5])\.block(\d+)\.(reduce|conv3x3|increase|proj|shortcut)\.(conv|bn)\.(\w+)")
_PLACES = {
    ("reduce", "conv"): "conv1",
    ("reduce", "bn"): "bn1",
    ("conv3x3", "conv"): "conv2",
    ("conv3x3", "bn"): "bn2",
    ("increase", "conv"): "conv3",
    ("increase", "bn"): "bn3",
    ("proj", "conv"): "downsample.0",
    ("proj", "bn"): "downsample.1",
    ("shortcut", "conv"): "downsample.0",
    ("shortcut", "bn"): "downsample.1",
}


def is_caffe_layout(state: Mapping[str, Tensor]) -> bool:
    """Return whether these are the tensors of a Caffe ResNet, under any prefix."""
    return any(_BLOCK.fullmatch(name) for name in state) and any(_STEM.fullmatch(name) for name in state)


def caffe_to_torchvision(state: Mapping[str, Tensor], mean: Sequence[float], std: Sequence[float]) -> dict[str, Tensor]:
    """Rename a Caffe ResNet's tensors to torchvision's names and fold the difference of the inputs into the first layer.

    With y = (rgb - mean) / std our input, the Caffe input is 255 std y + (255 mean - CAFFE_MEAN), in BGR order. Order and factor go
    into the first convolution, the constant, summed over the kernel, into the first batch norm's mean. That is exact except where the
    kernel reaches beyond the border: the zeros there stand for `mean` in our network and for CAFFE_MEAN in Caffe's, which
    differ by less than one grey level in 255 for ImageNet's mean.

    Args:
        state: tensors by name; those of other parts (ASPP) are left out.
        mean, std: of our inputs, RGB in 0..1.

    Raises:
        ValueError: the first layer is missing.
    """
    renamed = {new: tensor for name, tensor in state.items() if (new := _torchvision_name(name))}
    if not {"conv1.weight", "bn1.running_mean"} <= renamed.keys():
        raise ValueError("the Caffe tensors lack the first layer")
    kernel = renamed["conv1.weight"].double().flip(1)  # (64, 3, 7, 7), BGR to RGB
    factor = 255 * torch.tensor(std, dtype=torch.float64)
    shift = 255 * torch.tensor(mean, dtype=torch.float64) - torch.tensor(CAFFE_MEAN, dtype=torch.float64)
    running_mean = renamed["bn1.running_mean"].double() - (kernel.sum((2, 3)) * shift).sum(1)
    dtype = renamed["conv1.weight"].dtype
    folded = {"conv1.weight": (kernel * factor[:, None, None]).to(dtype), "bn1.running_mean": running_mean.to(dtype)}
    return renamed | folded


def set_stride_position(net: ResNet, on_1x1: bool) -> None:
    """Move the strides of a ResNet's bottlenecks to the first 1x1 convolution (Caffe) or to the 3x3 one (torchvision).

    What hangs on it follows. The max-pool's size is rounded up for Caffe, down for torchvision. Where dilation replaces a stride, the
    3x3 convolution of a layer's first bottleneck comes after the place of the stride for Caffe, so it is dilated like the
    rest of its layer; for torchvision it is the place itself, so it is dilated like the layer before.
    """
    net.maxpool.ceil_mode = on_1x1
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        first, dilation = layer[0], layer[1].conv2.dilation[0]
        stride = max(first.conv1.stride, first.conv2.stride)
        first.conv1.stride, first.conv2.stride = (stride, (1, 1)) if on_1x1 else ((1, 1), stride)
        before = dilation if on_1x1 else max(1, dilation // 2)
        first.conv2.dilation = first.conv2.padding = (before, before)


def _torchvision_name(name: str) -> str | None:
    if stem := _STEM.fullmatch(name):
        return f"{'conv1' if stem[1] == 'conv' else 'bn1'}.{stem[2]}"
    if block := _BLOCK.fullmatch(name):
        layer, number, branch, kind, tensor = block.groups()
        return f"layer{int(layer) - 1}.{int(number) - 1}.{_PLACES[branch, kind]}.{tensor}"
    return None
