"""A line of `benchmarks/gpu.py`, and how its times are taken."""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Result:
    """One measurement.

    Attributes:
        what: was measured.
        speed: in words, with its unit.
        value: the speed: images per second of trainings, milliseconds of the others.
        parity: how far apart the results of device and CPU are, in words.
        right: whether that is within the bound.
        flop_share: operations per second, as a share of the measured peak of bf16 matrix products.
        data_wait: share of the time in which the device waited for images.
        peak_gib: largest memory of the device.
        cpu_ms: time of the CPU's form, one thread.
        ratio: how many times faster the device is.
    """

    what: str
    speed: str
    value: float
    parity: str
    right: bool
    flop_share: float | None = None
    data_wait: float | None = None
    peak_gib: float | None = None
    cpu_ms: float | None = None
    ratio: float | None = None


def milliseconds(work: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Return the median time of a function that may leave work on the device; it is called once before."""
    work()
    found = []
    for _ in range(repeats):
        wait_for(device)
        start = time.perf_counter()
        work()
        wait_for(device)
        found.append((time.perf_counter() - start) * 1e3)
    return statistics.median(found)


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def reset_peak(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(device)


def peak_gib(device: torch.device) -> float | None:
    return torch.cuda.max_memory_allocated(device) / 2**30 if device.type == "cuda" else None
