"""Unpickles arrays and tensors, and nothing else.

Score maps of other methods are pickled dicts of numpy arrays and torch tensors. A pickle is a program that may call any function, so this
reader looks up every name that a file asks for in a list of its own, which holds the few functions that build arrays.
"""

import codecs
import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from vwl.errors import VwlError

_DAMAGE = (ArithmeticError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError, TypeError, ValueError)
"""What reading a damaged pickle can raise."""


class UnsafePickle(Exception):
    """A file names something else than the builders of arrays and tensors; nothing of it was run."""


def load(data: bytes, source: str) -> Any:
    """Return the object of a pickle, with torch tensors as numpy arrays.

    Args:
        data: the pickle, of any protocol.
        source: name of the file for error messages.

    Raises:
        UnsafePickle: it names something that is no builder of arrays or tensors, e.g. a function that runs a command.
        VwlError: it is damaged.
    """
    try:
        return _Unpickler(data, source).load()
    except UnsafePickle:
        raise
    except (
        pickle.UnpicklingError,
        ArithmeticError,
        AttributeError,
        EOFError,
        LookupError,
        MemoryError,
        RuntimeError,
        TypeError,
        ValueError,
    ):
        raise VwlError(f"{source} is damaged: it is not a whole pickle of arrays or tensors") from None


def load_torch(data: bytes, source: str) -> Any:
    """Return the object of a file written by `torch.save`, with tensors as numpy arrays.

    Raises:
        UnsafePickle, VwlError: as `load`.
    """
    try:
        with torch.serialization.safe_globals(_TORCH_ALLOWED):
            return as_arrays(torch.load(io.BytesIO(data), map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        if named := _named(error):
            raise _unsafe(source, named) from None
        raise VwlError(f"{source} is damaged: it is not a whole file of torch.save") from None
    except _DAMAGE:
        raise VwlError(f"{source} is damaged: it is not a whole file of torch.save") from None


def as_arrays(value: Any) -> Any:
    """Return a value with the torch tensors in it, also in dicts and lists, as numpy arrays."""
    if isinstance(value, torch.Tensor):
        return _array(value)
    if isinstance(value, dict):
        return {key: as_arrays(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [as_arrays(entry) for entry in value]
    return value


def _array(tensor: torch.Tensor) -> np.ndarray:
    plain = tensor.detach().cpu()
    return (plain.float() if plain.dtype == torch.bfloat16 else plain).contiguous().numpy()


class _Unpickler(pickle.Unpickler):
    def __init__(self, data: bytes, source: str) -> None:
        super().__init__(io.BytesIO(data), encoding="latin1")
        self._source = source

    def find_class(self, module: str, name: str) -> Any:
        known = (module.replace("numpy._core", "numpy.core"), name)
        if known == ("torch.storage", "_load_from_bytes"):
            return self._storage
        if known not in _ALLOWED:
            raise _unsafe(self._source, f"{module}.{name}")
        return _ALLOWED[known]

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("persistent ids belong to torch's zip files")

    def _storage(self, data: bytes) -> Any:
        """Return the storage of a tensor, which torch pickles as a file within the file."""
        try:
            return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            raise _unsafe(self._source, f"{_named(error) or 'an unknown object'} within a tensor") from None


def _named(error: pickle.UnpicklingError) -> str:
    """Return the name that torch refused to look up, or an empty string if the file has another fault."""
    found = re.search(r"GLOBAL (\S+)", str(error))
    return found[1] if found else ""


def _unsafe(source: str, named: str) -> UnsafePickle:
    return UnsafePickle(f"{source} is refused: it names {named}, which is no array or tensor and could run code; nothing of it was run")


class _NdarrayType:
    """Stands for `numpy.ndarray`, which pickles only pass on to `_reconstruct`; it cannot be called."""


def _reconstruct(subtype: Any, shape: Sequence[int], dtype: Any) -> np.ndarray:
    """Return the empty array that a pickle of numpy starts from; its content follows."""
    if subtype is not _NdarrayType or prod(shape) != 0:
        raise pickle.UnpicklingError("an array starts empty")
    return np.ndarray((0,), np.int8)


def _dtype(text: str, align: bool = False, copy: bool = True) -> np.dtype:
    found = np.dtype(text, align, copy)
    if found.kind not in "?biufO":
        raise pickle.UnpicklingError("maps are numbers")
    return found


def _from_buffer(buffer: Any, dtype: np.dtype, shape: Sequence[int], order: Any) -> np.ndarray:
    return np.frombuffer(buffer, dtype).reshape(shape, order=order)


def _scalar(dtype: np.dtype, data: bytes) -> Any:
    return np.frombuffer(data, dtype)[0]


def _encode(text: str, encoding: str) -> bytes:
    """Return the bytes that old protocols of pickle write as text."""
    if codecs.lookup(encoding).name != "iso8859-1":
        raise pickle.UnpicklingError("bytes are latin1")
    return text.encode("latin1")


def _tensor(storage: Any, offset: int, size: Sequence[int], stride: Sequence[int], *_: Any) -> np.ndarray:
    """Return the array of a tensor, whose elements must all lie in its storage, each once."""
    untyped, dtype = storage._untyped_storage, storage.dtype
    length = untyped.nbytes() // dtype.itemsize
    end = offset + (1 + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) if prod(size) else 0)
    if min((offset, *size, *stride)) < 0 or prod(size) > length or end > length:
        raise pickle.UnpicklingError("a tensor lies in its storage")
    view = torch.empty(0, dtype=dtype).set_(untyped, offset, tuple(size), tuple(stride))
    return _array(view)


_ALLOWED: dict[tuple[str, str], Callable[..., Any] | type] = {
    ("numpy", "ndarray"): _NdarrayType,
    ("numpy", "dtype"): _dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
}
_TORCH_ALLOWED: list[Any] = [
    np._core.multiarray._reconstruct,  # type: ignore[attr-defined]
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    np.ndarray,
    np.dtype,
    *{type(np.dtype(name)) for name in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "?")},
]
"""Torch's own list holds no numpy; files of `torch.save` often hold both."""
