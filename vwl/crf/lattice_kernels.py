"""The dense CRF's inner loops, compiled by numba; imported where they are first run, because numba takes a second to import.

Rows of values (one row a pixel or lattice vertex, one lane a label) are as long as a vector register, so that each step is one
instruction whatever the number of labels. Numba vectorises no loop as short as this, hence the `intrinsic`s, which spell out
the instructions of one row. A tuple argument stands for its length, which is then known to the compiler: `lanes` is as long
as a row, `corners` has an entry a vertex of a simplex (d + 1 of them for d features).
"""

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.extending import intrinsic

from vwl.maps.compiled import compiled

_BLOCK = 64
"""Pixels whose simplices are found at a time, in vector registers."""
_MULTIPLIER = np.int64(-7046029254386353131)
"""2^64 over the golden ratio, odd: spreads the keys over the hash table."""
_EMPTY = np.int64(-1)


class _Rows:
    """Writes the instructions on one row of float32."""

    def __init__(self, context: Any, builder: Any, lanes: int) -> None:
        self.context, self.builder, self.lanes = context, builder, lanes
        self.vector = ir.VectorType(ir.FloatType(), lanes)

    def pointer(self, kind: Any, array: Any, index: Any) -> Any:
        """Where entry `index` of a flat array is."""
        return self.builder.gep(self.context.make_array(kind)(self.context, self.builder, array).data, [index])

    def row(self, kind: Any, array: Any, index: Any) -> Any:
        """Where row `index` of a flat array is."""
        start = self.builder.mul(index, ir.Constant(ir.IntType(64), self.lanes))
        return self.builder.bitcast(self.pointer(kind, array, start), self.vector.as_pointer())

    def load(self, pointer: Any) -> Any:
        """The row there; rows are aligned as single numbers are."""
        return self.builder.load(pointer, align=4)

    def store(self, row: Any, pointer: Any) -> None:
        """Write a row there."""
        self.builder.store(row, pointer, align=4)

    def times(self, number: Any, row: Any) -> Any:
        """The row multiplied by a number."""
        undefined, first = ir.Constant(self.vector, ir.Undefined), ir.Constant(ir.IntType(32), 0)
        everywhere = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        numbers = self.builder.shuffle_vector(self.builder.insert_element(undefined, number, first), undefined, everywhere)
        return self.builder.fmul(numbers, row)

    def corner(self, offsets: tuple[Any, Any], weights: tuple[Any, Any], first: Any, k: int) -> tuple[Any, Any]:
        """Vertex and weight in entry first + k of the flat arrays, each given with its kind."""
        address = self.builder.add(first, ir.Constant(ir.IntType(64), k))
        vertex = self.builder.load(self.pointer(*offsets, address))
        return self.builder.sext(vertex, ir.IntType(64)), self.builder.load(self.pointer(*weights, address))


@intrinsic
def _splat_row(
    typing_context: Any, lanes: Any, corners: Any, values: Any, source: Any, pixel: Any, offsets: Any, weights: Any, norm: Any
) -> Any:
    """Add weight * (norm * source[pixel]) to each of the pixel's vertices."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, kinds = _Rows(context, builder, len(lanes)), signature.args
        row = rows.times(args[7], rows.load(rows.row(kinds[3], args[3], args[4])))
        first = builder.mul(args[4], ir.Constant(ir.IntType(64), len(corners)))
        for k in range(len(corners)):
            vertex, weight = rows.corner((kinds[5], args[5]), (kinds[6], args[6]), first, k)
            target = rows.row(kinds[2], args[2], vertex)
            rows.store(builder.fadd(rows.load(target), rows.times(weight, row)), target)
        return context.get_dummy_value()

    return types.void(lanes, corners, values, source, types.int64, offsets, weights, types.float32), generate


@intrinsic
def _slice_row(
    typing_context: Any,
    lanes: Any,
    corners: Any,
    target: Any,
    pixel: Any,
    values: Any,
    offsets: Any,
    weights: Any,
    alpha: Any,
    norm: Any,
    strength: Any,
) -> Any:
    """Add strength * norm * (the weighted sum of the pixel's vertices, times alpha) to target[pixel]."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, kinds = _Rows(context, builder, len(lanes)), signature.args
        first = builder.mul(args[3], ir.Constant(ir.IntType(64), len(corners)))
        total = ir.Constant(rows.vector, [0.0] * len(lanes))
        for k in range(len(corners)):
            vertex, weight = rows.corner((kinds[5], args[5]), (kinds[6], args[6]), first, k)
            row = rows.load(rows.row(kinds[4], args[4], vertex))
            # in the order in which pydensecrf rounds, for up to two labels and for more
            part = rows.times(args[7], rows.times(weight, row)) if len(lanes) <= 2 else rows.times(builder.fmul(weight, args[7]), row)
            total = builder.fadd(total, part)
        address = rows.row(kinds[2], args[2], args[3])
        rows.store(builder.fadd(rows.load(address), rows.times(args[9], rows.times(args[8], total))), address)
        return context.get_dummy_value()

    number = types.float32
    return types.void(lanes, corners, target, types.int64, values, offsets, weights, number, number, number), generate


@intrinsic
def _blur_row(typing_context: Any, lanes: Any, target: Any, source: Any, here: Any, before: Any, after: Any) -> Any:
    """target[here] = source[here] + (source[before] + source[after]) / 2."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        rows, kinds = _Rows(context, builder, len(lanes)), signature.args
        own, one, other = (rows.load(rows.row(kinds[2], args[2], args[k])) for k in (3, 4, 5))
        half = rows.times(ir.Constant(ir.FloatType(), 0.5), builder.fadd(one, other))
        rows.store(builder.fadd(own, half), rows.row(kinds[1], args[1], args[3]))
        return context.get_dummy_value()

    return types.void(lanes, target, source, types.int64, types.int64, types.int64), generate


@compiled
def splat(
    lanes: tuple[int, ...],
    corners: tuple[int, ...],
    values: np.ndarray,
    source: np.ndarray,
    offsets: np.ndarray,
    weights: np.ndarray,
    norms: np.ndarray,
) -> None:
    """Replace the vertices' rows `values` by the weighted sums of the pixels' rows `source`, each multiplied by its norm."""
    values[:] = 0
    for pixel in range(len(norms)):
        _splat_row(lanes, corners, values, source, pixel, offsets, weights, norms[pixel])


@compiled
def blur(lanes: tuple[int, ...], target: np.ndarray, source: np.ndarray, neighbours: np.ndarray) -> None:
    """Write `source` blurred along one axis by (1/2, 1, 1/2); the row after the last vertex stands for those that are not there."""
    for here in range(len(neighbours)):
        _blur_row(lanes, target, source, here, np.int64(neighbours[here, 0]), np.int64(neighbours[here, 1]))


@compiled
def slice_add(
    lanes: tuple[int, ...],
    corners: tuple[int, ...],
    target: np.ndarray,
    values: np.ndarray,
    offsets: np.ndarray,
    weights: np.ndarray,
    alpha: np.float32,
    norms: np.ndarray,
    strength: np.float32,
) -> None:
    """Add to the pixels' rows `target` the weighted sums of the vertices' rows `values`, times alpha, norm and strength."""
    for pixel in range(len(norms)):
        _slice_row(lanes, corners, target, pixel, values, offsets, weights, alpha, norms[pixel], strength)


@compiled
def _place(table: np.ndarray, key: np.int64) -> np.int64:
    """The slot of the hash table that holds the key, or the empty one where it belongs."""
    mask = np.int64(len(table) - 1)
    slot = ((key * _MULTIPLIER) >> np.int64(32)) & mask
    while table[slot, 0] != key and table[slot, 0] != _EMPTY:
        slot = (slot + 1) & mask
    return slot


@compiled
def simplices(
    corners: tuple[int, ...],
    image: np.ndarray,
    spatial: np.float32,
    colour: np.float32,
    scales: np.ndarray,
    strides: np.ndarray,
    lowest: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Find the simplex round each pixel's features in the permutohedral lattice (Adams et al. 2010, section 3).

    Args:
        corners: a tuple of length d + 1.
        image: (H, W, d - 2) uint8.
        spatial: pixels that make a difference of 1 in the first two features.
        colour: grey levels that make a difference of 1 in the others.
        scales: (d,) float32, of the features along the axes of the lattice.
        strides: (d + 1,) int64, of a vertex's coordinates in its key; 0 for the last, which follows from the others.
        lowest: (d,) int64, at most the least of each coordinate.

    Returns:
        Vertices (H * W * (d + 1),) int32 and barycentric weights, float32, of each pixel in turn, and the vertices' keys (M,) int64.
    """
    height, width, _ = image.shape
    d, size = len(corners) - 1, len(corners)
    offsets, weights = np.empty(height * width * size, np.int32), np.empty(height * width * size, np.float32)
    capacity = 1024
    while capacity < 2 * height * width:
        capacity *= 2
    table, keys, num_keys = np.full((capacity, 2), _EMPTY), np.empty(capacity // 2 + 1, np.int64), 0
    feature, total, base = np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.float32), np.empty(_BLOCK, np.int64)
    elevated, rank = np.empty((size, _BLOCK), np.float32), np.empty((size, _BLOCK), np.int32)
    nearest = np.empty((size, _BLOCK), np.float32)
    share, step = np.empty(size, np.float32), np.empty(size, np.int64)
    inverse, whole, to_next = np.float32(1 / size), np.float32(size), strides.sum()
    for y in range(height):
        for left in range(0, width, _BLOCK):
            num = min(_BLOCK, width - left)
            # onto the plane of coordinates that sum to 0
            total[:] = 0
            for j in range(d, 0, -1):
                if j > 2:
                    for i in range(num):
                        feature[i] = np.float32(image[y, left + i, j - 3]) / colour
                elif j == 2:
                    for i in range(_BLOCK):
                        feature[i] = np.float32(y) / spatial
                else:
                    for i in range(_BLOCK):
                        feature[i] = np.float32(left + i) / spatial
                for i in range(_BLOCK):
                    scaled = feature[i] * scales[j - 1]
                    elevated[j, i] = total[i] - np.float32(j) * scaled
                    total[i] += scaled
            for i in range(_BLOCK):
                elevated[0, i] = total[i]
                total[i] = 0
                base[i] = 0
            # the nearest vertex of colour 0, and each coordinate's rank by its distance from it
            for j in range(size):
                for i in range(_BLOCK):
                    rounded = np.rint(inverse * elevated[j, i])
                    nearest[j, i] = rounded * whole
                    elevated[j, i] -= nearest[j, i]
                    total[i] += rounded
                    rank[j, i] = 0
            for j in range(d):
                for k in range(j + 1, size):
                    for i in range(_BLOCK):
                        less = np.int32(elevated[j, i] < elevated[k, i])
                        rank[j, i] += less
                        rank[k, i] += np.int32(1) - less
            # if that vertex does not lie on the plane, the coordinates that were rounded furthest are brought back
            for j in range(size):
                for i in range(_BLOCK):
                    order = rank[j, i] + np.int32(total[i])
                    turn = np.int32(size) * (np.int32(order < 0) - np.int32(order > d))
                    rank[j, i] = order + turn
                    nearest[j, i] += np.float32(turn)
                    elevated[j, i] = (elevated[j, i] - np.float32(turn)) * inverse
            for j in range(d):
                for i in range(_BLOCK):
                    base[i] += (np.int64(nearest[j, i]) - lowest[j]) * strides[j]
            for i in range(num):
                for j in range(size):
                    share[rank[j, i]] = elevated[j, i]
                    step[rank[j, i]] = to_next - strides[j] * size
                key, first = base[i], ((y * width) + left + i) * size
                for k in range(size):
                    if k == 0:
                        weights[first] = np.float32(1) + share[d] - share[0]
                    else:
                        # the next vertex: each coordinate but one grows by 1, that one falls by d
                        key += step[size - k]
                        weights[first + k] = share[d - k] - share[size - k]
                    slot = _place(table, key)
                    if table[slot, 0] == _EMPTY:
                        table[slot, 0], table[slot, 1], keys[num_keys] = key, num_keys, key
                        num_keys += 1
                        if 2 * num_keys >= capacity:
                            capacity *= 2
                            table, old = np.full((capacity, 2), _EMPTY), keys
                            keys = np.empty(capacity // 2 + 1, np.int64)
                            for n in range(num_keys):
                                keys[n] = old[n]
                                again = _place(table, old[n])
                                table[again, 0], table[again, 1] = old[n], n
                        offsets[first + k] = num_keys - 1
                    else:
                        offsets[first + k] = table[slot, 1]
    return offsets, weights, keys[:num_keys].copy()


@compiled
def neighbours(keys: np.ndarray, order: np.ndarray, delta: np.int64, found: np.ndarray) -> None:
    """Fill `found` (M + 1, 2) int32 with each vertex's two neighbours along an axis, M for none.

    Args:
        keys: (M,) of the vertices, sorted.
        order: (M,) the vertices in that order.
        delta: difference of the keys of neighbours along the axis.
        found: result; its last row is scratch.
    """
    num = len(keys)
    found[:] = num
    low = high = 0
    while low < num and high < num:
        wanted, key = keys[low] + delta, keys[high]
        # without a branch, which would be guessed wrongly half of the time
        first, second = (order[low], order[high]) if wanted == key else (num, num)
        found[first, 1] = second
        found[second, 0] = first
        low += wanted <= key
        high += key <= wanted


@compiled
def _exponentials(powers: np.ndarray) -> None:
    """Replace numbers of at most 0 by their exponentials (Cephes' series); by 0 below -60, far from float32's slow end."""
    exponents = np.empty(len(powers), np.int32)
    scales = exponents.view(np.float32)
    for i in range(len(powers)):
        power = max(powers[i], np.float32(-60))
        turns = np.floor(power * np.float32(1.44269504088896341) + np.float32(0.5))
        # log(2) in two parts, of which the first has few digits
        x = power - turns * np.float32(0.693359375) - turns * np.float32(-2.12194440e-4)
        series = np.float32(1.9875691500e-4) * x + np.float32(1.3981999507e-3)
        series = series * x + np.float32(8.3334519073e-3)
        series = series * x + np.float32(4.1665795894e-2)
        series = series * x + np.float32(1.6666665459e-1)
        series = series * x + np.float32(5.0000001201e-1)
        exponents[i] = (np.int32(turns) + np.int32(127)) << np.int32(23)
        powers[i] = series * (x * x) + x + np.float32(1) if powers[i] > np.float32(-60) else np.float32(0)
    for i in range(len(powers)):
        powers[i] *= scales[i]


@compiled
def softmax(lanes: tuple[int, ...], q: np.ndarray, energies: np.ndarray) -> None:
    """Replace `q` by the softmax of the negative energies, both (C, N, lanes): C rows a pixel, whose lanes are its labels.

    `lanes` has 2 or 4 entries.
    """
    chunks, num, _ = q.shape
    width, half = len(lanes), len(lanes) // 2
    best, sums, total = np.empty(_BLOCK, np.float32), np.empty((_BLOCK, width), np.float32), np.empty(_BLOCK, np.float32)
    for start in range(0, num, _BLOCK):
        size = min(_BLOCK, num - start)
        best[:] = -np.inf
        sums[:] = 0
        total[:] = 0
        for c in range(chunks):
            for i in range(size):
                for lane in range(width):
                    best[i] = max(best[i], energies[c, start + i, lane])
        for c in range(chunks):
            for i in range(size):
                for lane in range(width):
                    q[c, start + i, lane] = energies[c, start + i, lane] - best[i]
            _exponentials(q[c, start : start + size].reshape(size * width))
            for i in range(size):
                for lane in range(width):
                    sums[i, lane] += q[c, start + i, lane]
        # in the order in which pydensecrf adds up
        for i in range(size):
            for lane in range(half):
                total[i] += sums[i, lane] + sums[i, half + lane]
        for c in range(chunks):
            for i in range(size):
                for lane in range(width):
                    q[c, start + i, lane] /= total[i]
