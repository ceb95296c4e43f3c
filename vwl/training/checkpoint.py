"""Checkpoints of a training: everything that the next step depends on, written atomically, the last few kept.

No pickled object is ever loaded: files are read with `weights_only=True`.
"""

import io
import re
from typing import Any

import torch

from vwl.errors import VwlError
from vwl.storage.folder import Folder

_NAME = re.compile(r"step-(\d{8})\.pt")
KEEP = 2
"""Checkpoints kept; an older one is deleted after a newer one is whole."""


class Damaged(VwlError):
    """A file that is no checkpoint, or no longer one."""


def save(folder: Folder, name: str, state: dict[str, Any]) -> None:
    """Write a state of tensors, numbers, strings and containers of them, atomically."""
    sink = io.BytesIO()
    torch.save(state, sink)
    folder.write(name, sink.getvalue())


def load(folder: Folder, name: str) -> dict[str, Any]:
    """Read a state onto the CPU.

    Raises:
        Damaged: the file is not whole, or holds more than tensors and plain values.
        VwlError: it is not there or cannot be read.
    """
    data = folder.read(name)
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError) as error:
        raise Damaged(f"{folder}/{name} is damaged: {_first_line(error)}") from None
    except Exception:  # torch raises pickle.UnpicklingError for what weights_only refuses
        raise Damaged(f"{folder}/{name} is no checkpoint of plain tensors") from None
    if not isinstance(state, dict):
        raise Damaged(f"{folder}/{name} is no checkpoint")
    return state


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "it is cut off")


def save_step(folder: Folder, step: int, state: dict[str, Any]) -> None:
    """Write the checkpoint after `step` steps and delete all but the last `KEEP`."""
    save(folder, f"step-{step:08d}.pt", state)
    for old in steps(folder)[:-KEEP]:
        folder.delete(f"step-{old:08d}.pt")


def steps(folder: Folder) -> list[int]:
    """Return the step numbers of the checkpoints that are there, ascending."""
    return sorted(int(m.group(1)) for m in map(_NAME.fullmatch, folder.names(".pt")) if m)


def load_last(folder: Folder) -> dict[str, Any] | None:
    """Return the newest checkpoint that is whole, or none where there are no checkpoints.

    Raises:
        VwlError: none of the checkpoints is whole (a training is not begun anew without the user's word), or one cannot be read.
    """
    damage: Damaged | None = None
    for step in reversed(steps(folder)):
        try:
            return load(folder, f"step-{step:08d}.pt")
        except Damaged as error:
            damage = damage or error
    if damage is not None:
        raise VwlError(f"{damage}; no earlier checkpoint is whole: delete {folder} to train from the beginning")
    return None
