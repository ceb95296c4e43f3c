"""Runs a network on images of any size: large images are cut into overlapping tiles whose maps are joined.

The tile bounds the network's memory. Near the seams between tiles the maps differ slightly from those of the whole image, because the
network's receptive field reaches beyond a tile. Images no larger than a tile are not cut.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

_GRID = 32
"""Tiles start and join at multiples of this many pixels, which the stride of every network divides."""


@dataclass(frozen=True)
class Cut:
    """A tile along one side of an image: it covers pixels `start` to `stop`, of which `first` to `last` are used."""

    start: int
    stop: int
    first: int
    last: int


def cuts(length: int, tile: int) -> list[Cut]:
    """Cut a side of `length` pixels into evenly spaced tiles that overlap by at least a quarter and join in the middle of the overlap."""
    if length <= tile:
        return [Cut(0, length, 0, length)]
    overlap = tile // 4
    num = -(-(length - overlap) // (tile - overlap))
    starts = [-(-number * (length - tile) // ((num - 1) * _GRID)) * _GRID for number in range(num)]
    stops = [min(start + tile, length) for start in starts]
    seams = [(start + stop) // (2 * _GRID) * _GRID for start, stop in zip(starts[1:], stops, strict=False)]
    return [Cut(*cut) for cut in zip(starts, stops, [0, *seams], [*seams, length], strict=True)]


def tiled(network: Callable[[np.ndarray], torch.Tensor], image: np.ndarray, tile: int) -> torch.Tensor:
    """Return the maps of an image, tile by tile.

    Args:
        network: from pixels (h, w, 3) uint8 to maps (K, about h / stride, about w / stride), pointwise but for its receptive field.
        image: (H, W, 3) uint8.
        tile: side of the tiles, pixels; a multiple of 32.

    Returns:
        (K, about H / stride, about W / stride).
    """
    rows, columns = cuts(image.shape[0], tile), cuts(image.shape[1], tile)
    if len(rows) == len(columns) == 1:
        return network(image)
    stride, bands = 0, []
    for row in rows:
        parts = []
        for column in columns:
            maps = network(image[row.start : row.stop, column.start : column.stop])
            stride = stride or tile // maps.shape[1 if len(rows) > 1 else 2]  # of the first tile, which is complete where the side is cut
            parts.append(maps[:, _cells(row, stride, image.shape[0]), _cells(column, stride, image.shape[1])])
        bands.append(torch.cat(parts, dim=2))
    return torch.cat(bands, dim=1)


def _cells(cut: Cut, stride: int, length: int) -> slice:
    """Return the cells of a tile's maps that are used; of the last tile, all to the end, however the network rounds."""
    return slice((cut.first - cut.start) // stride, None if cut.last == length else (cut.last - cut.start) // stride)
