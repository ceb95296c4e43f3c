"""The arithmetic of a training: TF32 and cuDNN settings of its process, and the record of them that the manifest keeps."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from vwl.config.layout import Layout
from vwl.errors import VwlError

_TF32 = {"none": (False, False), "convolutions": (True, False), "all": (True, True)}
"""Whether convolutions and matrix products use TF32."""
_CUDNN = {"heuristics": (False, False), "benchmark": (True, False), "deterministic": (False, True)}
"""Whether cuDNN times its algorithms, and whether it is kept to deterministic ones."""
_REDUCE = ("float32", "bf16")


@dataclass(frozen=True)
class Numerics:
    """What the last bits of a training's numbers depend on.

    Attributes:
        device: `cpu`, or the name of the GPU.
        precision, tf32, cudnn, gradient_reduce: as in `vwl.config.layout.Layout`.
    """

    device: str = "cpu"
    precision: str = "float32"
    tf32: str = "convolutions"
    cudnn: str = "heuristics"
    gradient_reduce: str = "float32"


def numerics_of(layout: Layout, device: torch.device) -> Numerics:
    """Return the arithmetic of a layout on a device.

    Raises:
        VwlError: the layout names a setting that does not exist.
    """
    for name, known in (("tf32", tuple(_TF32)), ("cudnn", tuple(_CUDNN)), ("gradient_reduce", _REDUCE)):
        if getattr(layout, name) not in known:
            raise VwlError(f"the layout's {name} = {getattr(layout, name)!r} is none of {', '.join(known)}")
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Numerics(name, layout.precision, layout.tf32, layout.cudnn, layout.gradient_reduce)


@contextmanager
def arithmetic(numerics: Numerics) -> Iterator[None]:
    """Set TF32 and cuDNN for this process while a training runs."""
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic
    cudnn.allow_tf32, matmul.allow_tf32 = _TF32[numerics.tf32]
    cudnn.benchmark, cudnn.deterministic = _CUDNN[numerics.cudnn]
    try:
        yield
    finally:
        cudnn.allow_tf32, matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic = before
