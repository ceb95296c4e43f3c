"""Random walk: spreads score maps over the image up to the boundaries (IRNet and PSA; paper section 4.1).

The transition matrix T is A^beta (affinities, diagonal 1, outside the image 0) divided by its column sums, and the result is
maps * T^steps; IRNet first multiplies the maps by 1 - edge. T is never built: it is a stencil of the pairs' weights, and its power is a
Chebyshev series. T is similar to the symmetric matrix S = D^-1/2 A^beta D^-1/2, whose eigenvalues lie in [-1, 1]; there
x^n = sum_k c_k T_k(x) with c_k = 2^(1-n) binomial(n, (n-k)/2), and the omitted c_k bound the error. 256 steps take 70 products instead of
256.
"""

from collections.abc import Callable
from functools import cache
from math import lgamma, log

import numpy as np

from vwl.errors import VwlError
from vwl.maps.affinity import affinities, pair_offsets
from vwl.maps.compiled import compiled

_BLOCK = 512
"""Cells processed at a time, so that the accumulator stays in the L1 cache."""
_UNROLLED = 4
"""Offsets per pass over the accumulator."""
_MIN_WEIGHT = 1e-20
"""Smaller weights are set to 0: arithmetic on denormal float32 numbers is several times slower."""


def walk(
    maps: np.ndarray,
    edge: np.ndarray,
    radius: int = 5,
    exponent: float = 10.0,
    steps: int = 256,
    tolerance: float = 1e-5,
    dtype: type[np.float32] | type[np.float64] = np.float32,
) -> np.ndarray:
    """Return the maps after `steps` steps of the random walk.

    Args:
        maps: (K, h, w) scores; K may be 0.
        edge: (h, w) boundary scores, 0..1.
        radius: pairs nearer than this many cells are connected.
        exponent: beta, the power of the affinities; above 0.
        steps: power of the transition matrix, 1 or more.
        tolerance: bound of the truncated series, see `chebyshev_coefficients`; about the largest error relative to the maps' maximum.
        dtype: of the arithmetic. float32 is within 1e-4 of the maps' maximum of the exact result.

    Returns:
        (K, h, w) of `dtype`.

    Raises:
        VwlError: the exponent is not above 0.
        ValueError: maps and boundary map differ in size.
    """
    if maps.shape[1:] != edge.shape:
        raise ValueError(f"maps of {maps.shape[1:]} cells, boundary map of {edge.shape}")
    # without a name here, so that the pairs are freed as soon as their weights are laid out: they are as large as all other arrays
    start = maps * (1 - edge.astype(np.float64))
    return walk_by_affinities(start, affinities(edge.astype(dtype), radius), radius, exponent, steps, tolerance)


def walk_by_affinities(
    maps: np.ndarray, pairs: np.ndarray, radius: int, exponent: float, steps: int = 256, tolerance: float = 1e-5
) -> np.ndarray:
    """Return maps * T^steps, the maps after a random walk by given affinities.

    Args:
        maps: (K, h, w) scores; K may be 0.
        pairs: (num_offsets, h, w) affinities 0..1, 0 where the partner is outside the image; see `pair_offsets`. Overwritten.
        radius, exponent, steps, tolerance: as `walk`.

    Returns:
        (K, h, w) of the dtype of `pairs`, in which the arithmetic is done.

    Raises:
        VwlError: the exponent is not above 0.
    """
    if exponent <= 0:
        raise VwlError(f"exponent = {exponent} of the walk must be above 0; 10 in IRNet, 8 in PSA")
    dtype = pairs.dtype.type
    height, width = maps.shape[1:]
    layout = _Layout(height, width, radius - 1)
    shifts = np.array([layout.shift(dy, dx) for dy, dx in pair_offsets(radius)], np.int64)
    pairs[pairs < _MIN_WEIGHT ** (1 / exponent)] = 0
    pairs **= dtype(exponent)
    weights = layout.flat(pairs, -len(pairs) % _UNROLLED)
    del pairs
    # In float64 for any `dtype`: a rounding error of the degrees would enter every step with the same sign.
    degrees = np.ones(layout.length)
    for weight, shift in zip(weights, shifts, strict=False):
        degrees += weight
        degrees[shift:] += weight[:-shift]
    inverse_root = 1 / np.sqrt(degrees)
    for weight, shift in zip(weights, shifts, strict=False):
        weight[:-shift] *= inverse_root[:-shift] * inverse_root[shift:]
    # Far from objects the maps would decay to denormal numbers (see `_MIN_WEIGHT`). A constant far below any tolerance is added; the walk
    # preserves it, since the columns of T sum to 1.
    start = maps.astype(np.float64)
    start += 1e-10 * start.max(axis=(1, 2), keepdims=True, initial=0)
    state = layout.flat(start.astype(dtype)) / inverse_root.astype(dtype)
    coefficients = chebyshev_coefficients(steps, tolerance).astype(dtype)
    shifts = np.pad(shifts, (0, len(weights) - len(shifts)))
    _expansion()(weights, (1 / degrees).astype(dtype), shifts, state, coefficients, layout.margin)
    return layout.cells(state * inverse_root).astype(dtype)


def chebyshev_coefficients(steps: int, tolerance: float) -> np.ndarray:
    """Return c_0..c_d of x^steps in Chebyshev polynomials, float64; the omitted ones sum to at most `tolerance`.

    Since every polynomial is at most 1 on [-1, 1], this sum bounds the error of the series there. d is at most `steps`.
    """
    if steps < 1 or tolerance < 0:
        raise ValueError("steps must be 1 or more, and the tolerance not negative")
    coefficients = np.zeros(steps + 1)
    for k in range(steps % 2, steps + 1, 2):
        logarithm = (1 - steps) * log(2) + lgamma(steps + 1) - lgamma((steps - k) / 2 + 1) - lgamma((steps + k) / 2 + 1)
        coefficients[k] = np.exp(logarithm) / (2 if k == 0 else 1)
    tails = coefficients[::-1].cumsum()[::-1]  # tails[k]: the error if c_k is the first left out
    left_out = np.flatnonzero(tails <= tolerance)
    return coefficients[: max(int(left_out[0]), 1) if len(left_out) else steps + 1]


class _Layout:
    """Grids as flat arrays with empty cells between rows and at both ends, so that each offset is a shift."""

    def __init__(self, height: int, width: int, border: int) -> None:
        self.height, self.width, self.pitch = height, width, width + border
        self.margin = self.shift(border, border)
        self.length = 2 * self.margin + -(-height * self.pitch // _BLOCK) * _BLOCK

    def shift(self, dy: int, dx: int) -> int:
        """Return the distance in the flat array to the cell `dy` rows below and `dx` columns to the right."""
        return dy * self.pitch + dx

    def flat(self, grids: np.ndarray, num_empty: int = 0) -> np.ndarray:
        """Return (N, h, w) as (N + num_empty, length)."""
        filled = np.zeros((len(grids) + num_empty, self.length), grids.dtype)
        self.cells(filled)[: len(grids)] = grids
        return filled

    def cells(self, flat: np.ndarray) -> np.ndarray:
        """Return a view (N, h, w) of (N, length)."""
        rows = flat[:, self.margin : self.margin + self.height * self.pitch]
        return rows.reshape(len(flat), self.height, self.pitch)[..., : self.width]


@cache
def _expansion() -> Callable[..., None]:
    """Return the compiled `_expand`."""
    return compiled(_expand, fastmath={"contract"})


def _expand(
    weights: np.ndarray, diagonal: np.ndarray, shifts: np.ndarray, state: np.ndarray, coefficients: np.ndarray, margin: int
) -> None:
    """Replace `state` x (K, L) by sum_k c_k T_k(S) x; compiled, see `_expansion`.

    Args:
        weights: (P, L), P a multiple of 4: S between each cell and the one `shifts` further on.
        diagonal: (L,) of S.
        shifts: (P,) cells.
        state: (K, L), 0 outside the image.
        coefficients: (d + 1,).
        margin: empty cells at both ends of a row of L, at least the largest shift; the rest is a multiple of the block.
    """
    num_maps, length = state.shape
    current, previous = state.copy(), np.zeros_like(state)
    state *= coefficients[0]
    factor = coefficients.dtype.type(1)
    total = np.empty(_BLOCK, state.dtype)
    for k in range(1, len(coefficients)):
        for start in range(margin, length - margin, _BLOCK):
            stop = start + _BLOCK
            for m in range(num_maps):
                x = current[m]
                here, middle = x[start:stop], diagonal[start:stop]
                for i in range(_BLOCK):
                    total[i] = middle[i] * here[i]
                for p in range(0, len(shifts), 4):
                    s0, s1, s2, s3 = shifts[p], shifts[p + 1], shifts[p + 2], shifts[p + 3]
                    a0, b0 = weights[p, start:stop], weights[p, start - s0 : stop - s0]
                    a1, b1 = weights[p + 1, start:stop], weights[p + 1, start - s1 : stop - s1]
                    a2, b2 = weights[p + 2, start:stop], weights[p + 2, start - s2 : stop - s2]
                    a3, b3 = weights[p + 3, start:stop], weights[p + 3, start - s3 : stop - s3]
                    x0, y0 = x[start + s0 : stop + s0], x[start - s0 : stop - s0]
                    x1, y1 = x[start + s1 : stop + s1], x[start - s1 : stop - s1]
                    x2, y2 = x[start + s2 : stop + s2], x[start - s2 : stop - s2]
                    x3, y3 = x[start + s3 : stop + s3], x[start - s3 : stop - s3]
                    for i in range(_BLOCK):
                        total[i] += (
                            a0[i] * x0[i] + b0[i] * y0[i] + a1[i] * x1[i] + b1[i] * y1[i]
                            + a2[i] * x2[i] + b2[i] * y2[i] + a3[i] * x3[i] + b3[i] * y3[i]
                        )  # fmt: skip
                before, result, c = previous[m, start:stop], state[m, start:stop], coefficients[k]
                for i in range(_BLOCK):
                    before[i] = factor * total[i] - before[i]
                    result[i] += c * before[i]
        current, previous = previous, current
        factor = coefficients.dtype.type(2)
