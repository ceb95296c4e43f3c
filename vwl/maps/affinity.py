"""Affinities of pixel pairs, from a boundary map or from features: the weights of the random walk.

IRNet's affinity of two pixels of the stride-4 grid is 1 minus the largest boundary score on the straight path between them (Ahn et al.
2019, Eq. 2; paper section 4.1). PSA's is exp(-mean absolute difference of their features) (Ahn and Kwak 2018, Eq. 2).
`vwl.models.affinity_loss` has the differentiable forms that train the networks.
"""

from functools import cache

import numpy as np


@cache
def pair_offsets(radius: int) -> tuple[tuple[int, int], ...]:
    """Return the offsets (dy, dx) of all pairs closer than `radius` cells, each pair once: 34 for radius 5, 152 for radius 10."""
    reach = range(1 - radius, radius)
    return tuple((dy, dx) for dy in range(radius) for dx in reach if (dy > 0 or dx > 0) and dy * dy + dx * dx < radius * radius)


def path(dy: int, dx: int) -> list[tuple[int, int]]:
    """Return the cells (y, x) closer than 1 to the segment from (0, 0) to (dy, dx), including both ends."""
    rows, columns = range(min(0, dy), max(0, dy) + 1), range(min(0, dx), max(0, dx) + 1)
    # Cells outside the segment's bounding box are at least 1 away; inside it, the distance to the line is that to the segment.
    return [(y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 < dy * dy + dx * dx]


def affinities(edge: np.ndarray, radius: int) -> np.ndarray:
    """Return the affinity of each pixel with its partner at every offset.

    Args:
        edge: (h, w) boundary scores, 0..1.
        radius: cells, see `pair_offsets`.

    Returns:
        (num_offsets, h, w) of `edge`'s dtype: 1 - the largest boundary score on the path; 0 where the partner is outside the image.
    """
    height, width = edge.shape
    offsets = pair_offsets(radius)
    affinity = np.zeros((len(offsets), height, width), edge.dtype)
    for out, (dy, dx) in zip(affinity, offsets, strict=True):
        left, right = max(0, -dx), width - max(0, dx)
        if dy >= height or left >= right:
            continue
        inside = out[: height - dy, left:right]
        for y, x in path(dy, dx):
            np.maximum(inside, edge[y : y + height - dy, left + x : right + x], out=inside)
        np.subtract(1, inside, out=inside)
    return affinity


def feature_affinities(features: np.ndarray, radius: int) -> np.ndarray:
    """Return the affinity of each pixel with its partner at every offset, from features.

    Args:
        features: (D, h, w) of the affinity network.
        radius: cells, see `pair_offsets`.

    Returns:
        (num_offsets, h, w) of `features`' dtype: exp(-mean absolute difference); 0 where the partner is outside the image.
    """
    _, height, width = features.shape
    offsets = pair_offsets(radius)
    affinity = np.zeros((len(offsets), height, width), features.dtype)
    for out, (dy, dx) in zip(affinity, offsets, strict=True):
        left, right = max(0, -dx), width - max(0, dx)
        if dy >= height or left >= right:
            continue
        start, partner = features[:, : height - dy, left:right], features[:, dy:, left + dx : right + dx]
        out[: height - dy, left:right] = np.exp(-np.abs(partner - start).mean(axis=0))
    return affinity
