"""Reads weights files, of torch or safetensors, without unpickling objects."""

import io
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from vwl.errors import VwlError
from vwl.storage.folder import Folder

_NESTS = ("state_dict", "model", "model_state_dict")


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Return the tensors of a torch or safetensors file, on the CPU.

    Torch files may hold the tensors directly or under `state_dict`, `model` or `model_state_dict`. Entries that are not tensors are
    ignored.

    Args:
        path: a local path or a URI.

    Raises:
        VwlError: the file cannot be read, or holds pickled objects or no tensors.
    """
    parent, _, name = str(path).rpartition("/")
    data = Folder(parent or ("/" if str(path).startswith("/") else ".")).read(name)
    try:
        held: Any = (
            safetensors.torch.load(data) if name.endswith(".safetensors") else torch.load(io.BytesIO(data), "cpu", weights_only=True)
        )
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, safetensors.SafetensorError):
        raise VwlError(
            f"weights file {path} is damaged or holds other objects than tensors; save its state dict by torch.save or as safetensors"
        ) from None
    while isinstance(held, Mapping) and (nest := next((key for key in _NESTS if isinstance(held.get(key), Mapping)), None)):
        held = held[nest]
    state = {key: value for key, value in held.items() if isinstance(value, Tensor)} if isinstance(held, Mapping) else {}
    if not state:
        raise VwlError(f"weights file {path} holds no named tensors; it must be a state dict")
    return state
