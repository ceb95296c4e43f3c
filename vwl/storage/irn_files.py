"""Writes score maps as IRN's `.npy` files, which the code of most other methods reads."""

import io
import pickle
from typing import Any

import numpy as np
import torch


def encode_irn(keys: np.ndarray, cam: np.ndarray, high_res: np.ndarray) -> bytes:
    """Return a file that `numpy.load(FILE, allow_pickle=True).item()` reads as a dict, with numpy 1 and 2.

    Args:
        keys: objects (K,), counted from 0; becomes a LongTensor, as in IRN.
        cam: (K, h, w) at stride 4; becomes a float32 tensor.
        high_res: (K, H, W) at the image's size; stays an array, float32.
    """
    content = {
        "keys": torch.from_numpy(keys.astype(np.int64)),
        "cam": torch.from_numpy(cam.astype(np.float32)),
        "high_res": high_res.astype(np.float32),
    }
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "|O", "fortran_order": False, "shape": ()})
    array = np.empty((), object)
    array[()] = content
    _Numpy1Pickler(stream, protocol=4).dump(array)
    return stream.getvalue()


class _Numpy1Pickler(pickle._Pickler):
    """Names numpy's functions as numpy 1 did, which numpy 2 still understands; most methods' environments have numpy 1."""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        module = getattr(obj, "__module__", None) or ""
        if not module.startswith("numpy._core"):
            super().save_global(obj, name)  # type: ignore[misc]
            return
        write, memoize = self.write, self.memoize  # type: ignore[attr-defined]
        write(pickle.GLOBAL + f"{module.replace('numpy._core', 'numpy.core', 1)}\n{obj.__name__}\n".encode())
        memoize(obj)
