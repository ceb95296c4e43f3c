"""The content of a model file: safetensors with the weights, and in their metadata one JSON text, the description.

Nothing is unpickled. The same model gives the same bytes: there is one entry of metadata (the order of several is not defined), and the
tensors are sorted by name. The description holds a digest of the tensors and a checksum of its own, so that a changed bit is noticed.
"""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from vwl.errors import Damaged, VwlError
from vwl.model_file.description import AnyDescription, Description, parse_description
from vwl.storage.checked import checked_bytes, parse_checked
from vwl.storage.folder import split_path

_KEY = "vwl"
_REMAKE = "copy it again, or make it again with: vwl export model"
State = Mapping[str, Tensor]


def digest_of(state: State) -> str:
    """Return 32 hex digits of a hash of names, types, shapes and values of tensors."""
    found = hashlib.blake2b(digest_size=16)
    for name in sorted(state):
        value = state[name].contiguous()
        found.update(json.dumps([name, str(value.dtype), list(value.shape)]).encode())
        found.update(value.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def encode_model(description: Description, state: State) -> bytes:
    """Return the content of a model file; `description.weights` is the digest of `state`."""
    tensors = {name: state[name].detach().cpu().contiguous() for name in sorted(state)}
    return safetensors.torch.save(tensors, {_KEY: checked_bytes(description.as_json()).decode()})


def decode_model(data: bytes, source: str) -> tuple[AnyDescription, dict[str, Tensor]]:
    """Return the description and the tensors in the content of a model file; `source` is its name in messages.

    Raises:
        Damaged: the content is cut off or was changed.
        VwlError: it is no model file of vwl, or of a later version.
    """
    try:
        state = safetensors.torch.load(data)
        text = _metadata(data).get(_KEY)
    except (safetensors.SafetensorError, ValueError, RecursionError, KeyError, TypeError, AttributeError, RuntimeError, OverflowError):
        raise Damaged(f"{source} is damaged or no model file: it is not safetensors; {_REMAKE}") from None
    if not isinstance(text, str):
        raise VwlError(
            f"{source} is a safetensors file without a description by vwl; make a model file of a run with: vwl export model --run RUN"
        )
    description = parse_description(parse_checked(text.encode(errors="replace"), source, required=True), source)
    if digest_of(state) != description.weights:
        raise Damaged(f"{source} is damaged: its tensors do not fit their digest; {_REMAKE}")
    return description, state


def _metadata(data: bytes) -> dict[str, Any]:
    """Return the metadata of a safetensors file that was parsed before: after 8 bytes with its length, a JSON header has it."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, Any] = json.loads(data[8 : 8 + length]).get("__metadata__") or {}
    return metadata


def write_model(path: str | Path, content: bytes) -> None:
    """Write the content of a model file, atomically.

    Raises:
        VwlError: the path names no .safetensors file, or it cannot be written.
    """
    require_name(path)
    folder, name = split_path(path)
    folder.write(name, content)


def require_name(path: str | Path) -> None:
    """Raise a `VwlError` if a path cannot be that of a model file, because it does not end in .safetensors."""
    if not split_path(path)[1].endswith(".safetensors"):
        raise VwlError(f"'{path}' is not the name of a model file; choose one that ends in .safetensors")


def read_model(path: str | Path) -> tuple[AnyDescription, dict[str, Tensor]]:
    """Return the description and the tensors of a model file at a path or URI.

    Raises:
        VwlError: it cannot be read, or as `decode_model`.
    """
    folder, name = split_path(path)
    return decode_model(folder.read(name), str(path))
