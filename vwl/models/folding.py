"""Folds batch norms into the convolutions before them: the same network for inference, with fewer operations.

Batch norm with stored statistics multiplies each channel by a factor and adds an offset; the convolution before it can do both. Results
differ from those of the network as trained by rounding only (some 1e-5 of a map's maximum). The stages of `vwl.inference` use it.
"""

from copy import deepcopy
from typing import TypeVar

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

_EXAMPLE = 64
"""Side of the image that the network is run on to find out which layer follows which, pixels."""
_CLOSE = 1e-3
"""Largest difference of folded features, relative to their maximum."""


Network = TypeVar("Network", bound=nn.Module)


def for_inference(network: Network) -> Network:
    """Return a copy of a network for inference: `backbone` folded, evaluation mode, weights in channels_last, no gradients."""
    copied = deepcopy(network).eval().requires_grad_(False)
    copied.backbone = folded(copied.get_submodule("backbone"))
    for parameter in copied.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return copied


@torch.no_grad()
def folded(network: nn.Module) -> nn.Module:
    """Return a copy of a backbone whose batch norms are folded into the convolutions that they directly follow; it cannot train.

    A run on a small image finds out which batch norm follows which convolution, so that any architecture works. If another layer uses
    the convolution's output too, the copy's features are wrong; a second run checks them, and the network itself is then returned.

    Args:
        network: from images (1, 3, H, W) to a list of features; in evaluation mode.
    """
    example = next(network.parameters())
    image = torch.rand(1, 3, _EXAMPLE, _EXAMPLE, generator=torch.Generator().manual_seed(0)).to(example)
    copied = deepcopy(network)
    names = {module: name for name, module in copied.named_modules()}
    for norm, convolution in _followers(copied, image).items():
        assert norm.running_mean is not None
        assert norm.running_var is not None
        factor = norm.weight.double() / torch.sqrt(norm.running_var.double() + norm.eps)
        offset = norm.bias.double() - norm.running_mean.double() * factor
        bias = 0 if convolution.bias is None else convolution.bias.double()
        weight = convolution.weight
        convolution.bias = nn.Parameter((offset + bias * factor).to(weight.dtype), requires_grad=False)
        weight.copy_(weight.double() * factor[:, None, None, None])
        # timm's batch norms contain the activation
        copied.set_submodule(names[norm], nn.Sequential(*(getattr(norm, part) for part in ("drop", "act") if hasattr(norm, part))))
    pairs = zip(copied(image), network(image), strict=True)
    return copied if all((copy - original).abs().max() <= _CLOSE * original.abs().max() for copy, original in pairs) else network


def _followers(network: nn.Module, image: torch.Tensor) -> dict[_BatchNorm, nn.Conv2d]:
    """Return each batch norm whose input is the output of a convolution, with that convolution; both must run once in a forward pass."""
    outputs: dict[int, tuple[torch.Tensor, nn.Conv2d]] = {}  # keeps the tensors, so that ids are unique
    pairs: dict[_BatchNorm, nn.Conv2d] = {}
    runs: dict[nn.Module, int] = {}

    def of_convolution(module: nn.Module, _: object, output: torch.Tensor) -> None:
        assert isinstance(module, nn.Conv2d)
        outputs[id(output)] = (output, module)
        runs[module] = runs.get(module, 0) + 1

    def of_norm(module: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        assert isinstance(module, _BatchNorm)
        runs[module] = runs.get(module, 0) + 1
        if id(inputs[0]) in outputs and module.affine and module.running_var is not None:
            pairs[module] = outputs[id(inputs[0])][1]

    hooks = [m.register_forward_hook(of_convolution) for m in network.modules() if isinstance(m, nn.Conv2d)]
    hooks += [m.register_forward_pre_hook(of_norm) for m in network.modules() if isinstance(m, _BatchNorm)]
    try:
        network(image)
    finally:
        for hook in hooks:
            hook.remove()
    return {norm: conv for norm, conv in pairs.items() if runs[norm] == runs[conv] == 1}
