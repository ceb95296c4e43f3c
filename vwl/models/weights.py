"""Weights into networks: files of tensors read without pickle, matched by name, with a report of what fitted.

The networks of `vwl.models` start from ImageNet weights or from a file the user names (`backbone.weights` of the recipe). A file
that fits nowhere is an error and never a silent start from noise.
"""

import io
import itertools
import pickle
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from vwl.errors import VwlError
from vwl.storage.folder import Folder

State = dict[str, Tensor]

_NESTS = ("state_dict", "model", "model_state_dict")
_PREFIXES = ("module.", "backbone.", "resnet.", "net.")
_COUNTER = "num_batches_tracked"


@dataclass(frozen=True)
class WeightReport:
    """Which tensors found their place.

    Attributes:
        source: the file, or what else the tensors came from.
        matched: names in the network that were filled.
        missing: names in the network that the file lacks; counters of seen batches, which old files do not have, are not named.
        unexpected: names in the file, after its prefix was taken off, that the network lacks.
        mismatched: names in both whose shapes differ; left as they were.
    """

    source: str
    matched: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    mismatched: tuple[str, ...]

    def __str__(self) -> str:
        counts = (("missing in it", self.missing), ("of no use", self.unexpected), ("of another shape", self.mismatched))
        others = "".join(f", {len(names)} {what} (e.g. {names[0]})" for what, names in counts if names)
        return f"weights {self.source}: {len(self.matched)} tensors matched{others}"


def weight_reports(model: nn.Module) -> list[WeightReport]:
    """Return the reports of all weights that were loaded into a network or its parts."""
    return [report for module in model.modules() for report in vars(module).get("weight_reports", ())]


def read_weights(path: str | Path) -> State:
    """Return the tensors of a torch or safetensors file, on the CPU.

    Torch files may hold the tensors directly or under `state_dict`, `model` or `model_state_dict`. Entries that are no
    tensors are passed over.

    Args:
        path: a local path or a URI.

    Raises:
        VwlError: the file cannot be read, holds pickled objects, or no tensors.
    """
    parent, _, name = str(path).rpartition("/")
    data = Folder(parent or ("/" if str(path).startswith("/") else ".")).read(name)
    try:
        held: Any = (
            safetensors.torch.load(data) if name.endswith(".safetensors") else torch.load(io.BytesIO(data), "cpu", weights_only=True)
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, safetensors.SafetensorError):
        raise VwlError(f"weights file {path} is no file of tensors alone; save its state dict with torch.save or as .safetensors") from None
    while isinstance(held, Mapping) and (nest := next((key for key in _NESTS if isinstance(held.get(key), Mapping)), None)):
        held = held[nest]
    state = {key: value for key, value in held.items() if isinstance(value, Tensor)} if isinstance(held, Mapping) else {}
    if not state:
        raise VwlError(f"weights file {path} holds no tensors under names; give a state dict")
    return state


def load_weights(module: nn.Module, state: Mapping[str, Tensor] | str | Path, source: str = "", strict: bool = False) -> WeightReport:
    """Fill a network's parameters and buffers by name.

    Prefixes that wrappers leave before the names (`module.`, `backbone.`, `resnet.`, `net.`, in any order) are taken off where
    more tensors fit without them.

    Args:
        module: the network; changed in place.
        state: tensors by name, or the path of a file (`read_weights`).
        source: names the weights in errors; the path if empty.
        strict: whether every tensor of the network must be filled. Further tensors in the file are allowed.

    Raises:
        VwlError: nothing fits, or with `strict` something of the network is missing or has another shape.
    """
    if isinstance(state, (str, Path)):
        source = source or str(state)
        state = read_weights(state)
    own = module.state_dict()
    state = _unwrapped(state, own)
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    matched = tuple(key for key in own if key in fitting)
    mismatched = tuple(key for key in own if key in state and key not in fitting)
    missing = tuple(key for key in own if key not in state and not key.endswith(_COUNTER))
    unexpected = tuple(key for key in state if key not in own)
    if not any(not key.endswith(_COUNTER) for key in matched):
        raise VwlError(
            f"weights file {source} is of another network: none of its {len(state)} tensors fits; "
            f"it has e.g. {_shown(state)}, the network has e.g. {_shown(own)}"
        )
    if strict and (missing or mismatched):
        absent = next(iter((*mismatched, *missing)))
        found = tuple(state[absent].shape) if absent in state else "nothing"
        raise VwlError(
            f"weights file {source} is of another network: {len(missing) + len(mismatched)} of {len(own)} tensors do not fit, "
            f"e.g. {absent} of shape {tuple(own[absent].shape)}, where the file has {found}; choose the network it was made for"
        )
    module.load_state_dict(fitting, strict=False)
    report = WeightReport(source, matched, missing, unexpected, mismatched)
    vars(module).setdefault("weight_reports", []).append(report)
    return report


def _unwrapped(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> State:
    def fits(candidate: Mapping[str, Tensor]) -> int:
        return sum(key in own and own[key].shape == value.shape for key, value in candidate.items())

    orders = itertools.chain.from_iterable(itertools.permutations(_PREFIXES, length) for length in range(4))
    # max() takes the first of equals: the names as they are, then the fewest prefixes
    return max((_without("".join(order), state) for order in orders), key=fits)


def _without(prefix: str, state: Mapping[str, Tensor]) -> State:
    stripped = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return stripped | {key: value for key, value in state.items() if not key.startswith(prefix) and key not in stripped}


def _shown(names: Iterable[str]) -> str:
    return next(iter(names), "nothing")
