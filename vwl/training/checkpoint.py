"""Checkpoints of a training: the state that the next step depends on, written atomically; the last few are kept.

Files are read with `weights_only=True`, so that no pickled object is loaded.
"""

import io
import re
import zipfile
from typing import Any

import torch

from vwl.errors import Damaged, VwlError
from vwl.storage.folder import Folder

_NAME = re.compile(r"step-(\d{8})\.pt")
KEEP = 2
"""Number of checkpoints kept; an older one is deleted after a newer one is written."""


def save(folder: Folder, name: str, state: dict[str, Any]) -> None:
    """Write a state atomically; it may hold tensors, numbers, strings and containers of them."""
    sink = io.BytesIO()
    torch.save(state, sink)
    folder.write(name, sink.getvalue())


def load(folder: Folder, name: str) -> dict[str, Any]:
    """Read a state onto the CPU.

    Raises:
        Damaged: the file is cut off or was changed, or holds anything but tensors and plain values.
        VwlError: it is not there or cannot be read.
    """
    data, path = folder.read(name), folder.uri_of(name)
    if not _has_its_checksums(data):
        raise Damaged(f"{path} is damaged: its content does not fit its checksums")
    try:
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, OSError, KeyError) as error:
        raise Damaged(f"{path} is damaged: {_first_line(error)}") from None
    except Exception:  # torch raises pickle.UnpicklingError for what weights_only refuses
        raise Damaged(f"{path} holds other objects than tensors and plain values") from None
    if not isinstance(state, dict):
        raise Damaged(f"{path} is not a checkpoint")
    return state


def _has_its_checksums(data: bytes) -> bool:
    """Return whether the parts of a zip have their checksums, which torch does not compare; true for files that are no zip."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as parts:
            return parts.testzip() is None
    except zipfile.BadZipFile:
        return not data.startswith(b"PK")  # torch says what else it is
    except (OSError, EOFError, NotImplementedError, RuntimeError, ValueError):
        return False


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), "it is cut off")


def save_step(folder: Folder, step: int, state: dict[str, Any]) -> None:
    """Write the checkpoint after `step` steps and delete all but the last `KEEP`."""
    save(folder, f"step-{step:08d}.pt", state)
    for old in steps(folder)[:-KEEP]:
        folder.delete(f"step-{old:08d}.pt")


def steps(folder: Folder) -> list[int]:
    """Return the step numbers of the checkpoints in the folder, ascending."""
    return sorted(int(m.group(1)) for m in map(_NAME.fullmatch, folder.names(".pt")) if m)


def load_last(folder: Folder) -> dict[str, Any] | None:
    """Return the newest undamaged checkpoint, or none if the folder has no checkpoints.

    Raises:
        VwlError: all checkpoints are damaged (the training does not restart from the beginning by itself), or one cannot be read.
    """
    damage: Damaged | None = None
    for step in reversed(steps(folder)):
        try:
            return load(folder, f"step-{step:08d}.pt")
        except Damaged as error:
            damage = damage or error
    if damage is not None:
        raise VwlError(f"{damage}; there is no undamaged checkpoint before it: delete {folder} to train from the beginning")
    return None
