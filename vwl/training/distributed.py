"""The collective operations that training needs. Uses torch.distributed and knows nothing of Ray."""

import torch
from torch import distributed as dist


def rank() -> int:
    """Return this worker's rank; 0 outside a process group."""
    return dist.get_rank() if dist.is_initialized() else 0


def world_size() -> int:
    """Return the number of workers; 1 outside a process group."""
    return dist.get_world_size() if dist.is_initialized() else 1


def all_reduce(values: torch.Tensor) -> torch.Tensor:
    """Sum a tensor over all workers, in place, and return it."""
    if world_size() > 1:
        dist.all_reduce(values)
    return values


def is_collective_error(error: BaseException) -> bool:
    """Return whether an exception says that a collective operation failed: another worker died or hung, or the network did."""
    backends = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and any(name in str(error) for name in backends))


class PendingSum:
    """An asynchronous all-reduce."""

    def __init__(self, values: torch.Tensor) -> None:
        """Start summing `values` over workers, in place."""
        self._values = values
        self._work = dist.all_reduce(values, async_op=True) if world_size() > 1 else None

    def result(self) -> torch.Tensor:
        """Wait for the sum and return it."""
        if self._work is not None:
            self._work.wait()
        return self._values


def device() -> torch.device:
    """Return this worker's device: its GPU, or the CPU where it has none."""
    return torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else torch.device("cpu")
