"""Unpickles arrays and tensors, and nothing else.

Score maps of other methods are pickled dicts of numpy arrays and torch tensors. A pickle is a program that may call any function, so this
reader looks up every name that a file asks for in a list of its own, which holds the few functions that build arrays.
"""

import codecs
import io
import pickle
import re
from collections import OrderedDict
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch

from vwl.errors import VwlError

_CORES = ("numpy.core", "numpy._core")
"""The package of numpy's builders, in versions 1 and 2."""
_DAMAGE = (
    pickle.UnpicklingError,
    ArithmeticError,
    AssertionError,
    AttributeError,
    EOFError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    SystemError,
    TypeError,
    ValueError,
)
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
        return as_arrays(_Unpickler(data, source).load())
    except _DAMAGE:
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
    """Return a value with the tensors and arrays in it, also in dicts and lists, as numpy arrays."""
    if isinstance(value, _Array):
        return value.array()
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
    """Stands for `numpy.ndarray`, which pickles only pass on to `_reconstruct`; it does nothing if it is called."""


class _Dtype:
    """A numpy dtype while it is unpickled; numpy's own trusts the state that a file gives it, and damaged ones crash the process."""

    def __init__(self, text: str, align: bool = False, copy: bool = True) -> None:
        if not re.fullmatch(r"f[248]|[iu][1248]|b1|O8?", text):
            raise pickle.UnpicklingError("maps are numbers")
        self.text, self.byte_order = text[:1] if text.startswith("O") else text, "="

    def __setstate__(self, state: Any) -> None:
        if state[1] not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError("unknown byte order")
        self.byte_order = state[1]

    def dtype(self) -> np.dtype:
        return np.dtype(self.text if self.byte_order == "|" else self.byte_order + self.text)


class _Array:
    """A numpy array while it is unpickled."""

    def __init__(self) -> None:
        self.state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state

    def array(self) -> Any:
        """Return the array; of an array of objects the object, or a list of several."""
        _, shape, kind, by_column, data = self.state
        if kind.text == "O":
            return as_arrays(data[0] if len(data) == 1 else list(data))
        return _from_buffer(data.encode("latin1") if isinstance(data, str) else data, kind, shape, "F" if by_column else "C")


def _reconstruct(subtype: Any, shape: Any, dtype: Any) -> _Array:
    """Return the empty array that a pickle of numpy starts from; its content follows."""
    return _Array()


def _from_buffer(buffer: Any, kind: _Dtype, shape: Sequence[int], order: Any) -> np.ndarray:
    return np.frombuffer(bytes(buffer), kind.dtype()).reshape(tuple(shape), order=order)


def _scalar(kind: _Dtype, data: Any) -> Any:
    return _from_buffer(data.encode("latin1") if isinstance(data, str) else data, kind, (1,), "C")[0]


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


_NUMPY: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): _NdarrayType,
    ("numpy", "dtype"): _Dtype,
    ("numpy.core.multiarray", "_reconstruct"): _reconstruct,
    ("numpy.core.multiarray", "scalar"): _scalar,
    ("numpy.core.numeric", "_frombuffer"): _from_buffer,
    ("_codecs", "encode"): _encode,
}
_ALLOWED: dict[tuple[str, str], Any] = {
    **_NUMPY,
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _tensor,
}
_TORCH_ALLOWED: list[Any] = [
    *((builder, f"{module.replace('numpy.core', core)}.{name}") for (module, name), builder in _NUMPY.items() for core in _CORES),
    _Array,
]
"""Torch's own list holds no numpy; files of `torch.save` often hold both."""
