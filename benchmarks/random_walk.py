"""Random walk: the Chebyshev series of a stencil and the dense matrix that the published code squares eight times, one thread each.

The dense form is timed at 32 x 32 and 64 x 64 cells; at 94 x 125 (a VOC image at stride 4) its time is extrapolated from
64 x 64 by its exact number of operations, 8 squarings of 2 n^3 and the maps' product of 2 n^2 each, and its memory by n^2.
Parity in the same run: within 1e-6 of the dense form in float64, within 1e-4 of the maps' maximum in float32; otherwise
the benchmark exits with an error.
"""

import argparse
import tracemalloc
from collections.abc import Callable

import numpy as np
import torch
from _paired import Line, paired, seconds_of, show

from vwl.maps.affinity import affinities, pair_offsets
from vwl.maps.random_walk import walk

NUM_MAPS, RADIUS, EXPONENT, SQUARINGS = 3, 5, 10, 8
SMALL, MEDIUM, IMAGE = (32, 32), (64, 64), (94, 125)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=9, help="of the walk; the dense form at 64 x 64 is timed once")
    options = parser.parse_args()
    torch.set_num_threads(1)
    apart, right = parity()
    lines = []
    maps, edge = drawn(SMALL, np.float32)
    pair = paired(lambda: dense(maps, edge), lambda: walk(maps, edge), options.repeats)
    lines += both("32 x 32", pair.first, pair.second, peak(lambda: dense(maps, edge)), walk_peak(SMALL), apart)
    slow, held = seconds_of(lambda: dense(*drawn(MEDIUM, np.float32))), peak(lambda: dense(*drawn(MEDIUM, np.float32), squarings=1))
    lines += both("64 x 64", slow, walk_seconds(MEDIUM, options.repeats), held, walk_peak(MEDIUM), apart)
    slow *= operations(IMAGE) / operations(MEDIUM)
    held *= (np.prod(IMAGE) / np.prod(MEDIUM)) ** 2
    quick = walk_seconds(IMAGE, options.repeats)
    lines += both("94 x 125, dense by count", slow, quick, held, walk_peak(IMAGE), apart, "5,000", "500")
    show("Random walk, 3 maps: dense matrix, stencil", lines, right)


def both(
    cells: str, slow: float, quick: float, much: float, little: float, apart: str, faster: str = "", smaller: str = ""
) -> tuple[Line, Line]:
    """Return the lines of time and memory (MiB)."""
    return (
        Line(f"walk, {cells}: dense, ours", f"{slow:,.2f} s", f"{quick * 1e3:.1f} ms", slow / quick, faster, apart),
        Line(f"walk, {cells}: memory", f"{much:,.0f} MiB", f"{little:.1f} MiB", much / little, smaller, apart),
    )


def dense(maps: np.ndarray, edge: np.ndarray, squarings: int = SQUARINGS) -> np.ndarray:
    """Walk 2^squarings steps as the published code does: affinities of all pairs, their power, columns normalised, squared."""
    num = edge.size
    pairs, position = affinities(edge, RADIUS), np.arange(num).reshape(edge.shape)
    matrix = np.eye(num, dtype=edge.dtype)
    for values, (dy, dx) in zip(pairs, pair_offsets(RADIUS), strict=True):
        height, width = edge.shape
        here = position[: max(height - dy, 0), max(0, -dx) : width - max(0, dx)]
        there = here + dy * width + dx
        matrix[here, there] = matrix[there, here] = values[: max(height - dy, 0), max(0, -dx) : width - max(0, dx)]
    powers = matrix**EXPONENT
    transition = powers / powers.sum(axis=0)  # there, too, the first two matrices live on in the callers
    for _ in range(squarings):
        square = np.empty_like(transition)
        torch.mm(torch.from_numpy(transition), torch.from_numpy(transition), out=torch.from_numpy(square))
        transition = square
    return ((maps * (1 - edge)).reshape(len(maps), num) @ transition).reshape(maps.shape)


def operations(shape: tuple[int, int]) -> int:
    """Return the additions and multiplications of the dense form's matrix products."""
    num = shape[0] * shape[1]
    return SQUARINGS * 2 * num**3 + NUM_MAPS * 2 * num**2


def parity() -> tuple[str, bool]:
    """Return the differences between the walk and the dense form in float64, relative to the maps' maximum, and whether they are small."""
    said, right = [], True
    for shape, dtype, bound in ((SMALL, np.float64, 1e-6), ((23, 30), np.float32, 1e-4), ((1, 1), np.float32, 1e-4)):
        maps, edge = drawn(shape, np.float64)
        found = walk(maps.astype(dtype), edge.astype(dtype), tolerance=1e-10 if dtype is np.float64 else 1e-5, dtype=dtype)
        apart = float(np.abs(found - dense(maps, edge)).max() / maps.max())
        said.append(f"{np.dtype(dtype).name} {apart:.0e}")
        right = right and apart <= bound
    return ", ".join(said[:2]), right


def drawn(shape: tuple[int, int], dtype: type) -> tuple[np.ndarray, np.ndarray]:
    """Draw maps and a boundary map with ridges and noise."""
    rng = np.random.default_rng(0)
    ridges = np.abs(np.sin(np.linspace(0, 9, shape[0]))[:, None] * np.cos(np.linspace(0, 7, shape[1]))) ** 8
    return rng.random((NUM_MAPS, *shape)).astype(dtype), (0.9 * ridges + 0.1 * rng.random(shape)).astype(dtype)


def walk_seconds(shape: tuple[int, int], repeats: int) -> float:
    maps, edge = drawn(shape, np.float32)
    walk(maps, edge)
    return float(np.median([seconds_of(lambda: walk(maps, edge)) for _ in range(repeats)]))


def peak(work: Callable[[], object]) -> float:
    """Return the peak memory of a function's NumPy arrays, MiB."""
    tracemalloc.start()
    work()
    found = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return found / 2**20


def walk_peak(shape: tuple[int, int]) -> float:
    """Return the walk's peak memory, MiB, with the two copies of the maps that numba makes, which tracemalloc does not count."""
    maps, edge = drawn(shape, np.float32)
    return peak(lambda: walk(maps, edge)) + 2 * maps.nbytes / 2**20


if __name__ == "__main__":
    main()
