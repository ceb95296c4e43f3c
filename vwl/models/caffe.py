"""The Caffe ResNet-101 that DeepLabV2 starts from (paper section 4.1), in torchvision's structure and names.

The initial checkpoint of DeepLabV2 was made with Caffe and exists as a torch file with its own names. Its network differs from
torchvision's in three ways: the stride of a bottleneck is on the first 1x1 convolution instead of the 3x3 one, the max-pool rounds its size
up, and inputs are BGR values in 0..255 minus a mean. Structure and input units follow the weights (`BackboneNet.use_caffe`); only the
order of the input channels is changed in the first convolution. The input units are kept because a first convolution rescaled to
normalised inputs would train some 3,000 times more slowly than the other layers.
"""

import re
from collections.abc import Mapping

from torch import Tensor
from torchvision.models import ResNet

CAFFE_MEAN = (122.675 / 255, 116.669 / 255, 104.008 / 255)
"""Mean of RGB values in 0..1 that is subtracted before the Caffe network."""
CAFFE_STD = (1 / 255,) * 3
"""Divisor of RGB values in 0..1: the Caffe network works in units of 0..255."""

_STEM = re.compile(r"(?:.*\.)?layer1\.conv1\.(conv|bn)\.(\w+)")
_BLOCK = re.compile(r"(?:.*\.)?layer([2-5])\.block(\d+)\.(reduce|conv3x3|increase|proj|shortcut)\.(conv|bn)\.(\w+)")
_NAMES = {
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


def caffe_to_torchvision(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename a Caffe ResNet's tensors to torchvision's names, with the input channels of the first layer in RGB order.

    Args:
        state: tensors by name; those of other parts (ASPP) are left out.

    Raises:
        ValueError: the first layer is missing.
    """
    renamed = {new: tensor for name, tensor in state.items() if (new := _torchvision_name(name))}
    if "conv1.weight" not in renamed:
        raise ValueError("the Caffe tensors lack the first layer")
    return renamed | {"conv1.weight": renamed["conv1.weight"].flip(1)}  # (64, 3, 7, 7), BGR to RGB


def set_caffe_structure(net: ResNet) -> None:
    """Move the strides of a ResNet's bottlenecks to the first 1x1 convolution, and round the max-pool's size up.

    Where dilation replaces a stride, the 3x3 convolution of a layer's first bottleneck is after the removed stride, so it is dilated like
    the rest of its layer.
    """
    net.maxpool.ceil_mode = True
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        first, dilation = layer[0], layer[1].conv2.dilation[0]
        first.conv1.stride, first.conv2.stride = first.conv2.stride, (1, 1)
        first.conv2.dilation = first.conv2.padding = (dilation, dilation)


def _torchvision_name(name: str) -> str | None:
    if stem := _STEM.fullmatch(name):
        return f"{'conv1' if stem[1] == 'conv' else 'bn1'}.{stem[2]}"
    if block := _BLOCK.fullmatch(name):
        layer, number, branch, kind, tensor = block.groups()
        return f"layer{int(layer) - 1}.{int(number) - 1}.{_NAMES[branch, kind]}.{tensor}"
    return None
