"""Affinities of pixel pairs from a boundary map: IRNet's training loss and the weights of the random walk.

Two pixels of the stride-4 grid belong together as far as no boundary lies between them: their affinity is 1 minus the largest
boundary score on the straight path from one to the other. The paper takes this step from IRNet (section 4.2; Ahn et al. 2019,
Eq. 2 and 8-11). The network learns it from pairs of confident labels, on torch tensors; the random walk uses it on NumPy arrays.
"""

from functools import cache

import numpy as np
import torch

from vwl.errors import VwlError


@cache
def pair_offsets(radius: int) -> tuple[tuple[int, int], ...]:
    """Return the offsets (dy, dx) of the pairs nearer than `radius` cells, each pair once: 34 for radius 5, 152 for 10."""
    reach = range(1 - radius, radius)
    return tuple((dy, dx) for dy in range(radius) for dx in reach if (dy > 0 or dx > 0) and dy * dy + dx * dx < radius * radius)


def path(dy: int, dx: int) -> list[tuple[int, int]]:
    """Return the cells (y, x) nearer than 1 to the segment from (0, 0) to (dy, dx), both ends included."""
    rows, columns = range(min(0, dy), max(0, dy) + 1), range(min(0, dx), max(0, dx) + 1)
    # Cells outside the segment's bounding box are at least 1 away, and inside it the distance to the line is the one to the segment.
    return [(y, x) for y in rows for x in columns if (dy * x - dx * y) ** 2 < dy * dy + dx * dx]


def affinities(edge: np.ndarray, radius: int) -> np.ndarray:
    """Return the affinity of each pixel with its partner at every offset.

    Args:
        edge: (h, w) boundary scores, 0..1.
        radius: cells, see `pair_offsets`.

    Returns:
        (num_offsets, h, w) of `edge`'s dtype: 1 - the path's largest boundary score; 0 where the partner lies outside the image.
    """
    height, width = edge.shape
    offsets = pair_offsets(radius)
    found = np.zeros((len(offsets), height, width), edge.dtype)
    for out, (dy, dx) in zip(found, offsets, strict=True):
        left, right = max(0, -dx), width - max(0, dx)
        if dy >= height or left >= right:
            continue
        inside = out[: height - dy, left:right]
        for y, x in path(dy, dx):
            np.maximum(inside, edge[y : y + height - dy, left + x : right + x], out=inside)
        np.subtract(1, inside, out=inside)
    return found


def pair_affinities(edge: torch.Tensor, radius: int) -> torch.Tensor:
    """Return the affinities of all pairs of a batch, differentiable: the gradient goes to the strongest pixel of each path.

    As in IRNet, pairs start only at pixels whose partners all lie inside: rows 0 to h - radius, columns radius - 1 to w - radius.

    Args:
        edge: (B, 1, h, w) boundary scores, after the sigmoid; half precision is computed in float32.
        radius: cells, see `pair_offsets`.

    Returns:
        (B, num_offsets, h - radius + 1, w - 2 * radius + 2).

    Raises:
        VwlError: the radius has no pairs, or the grid is too small for it.
    """
    # The largest score of a path is that of its highest-ranking pixel: ranks are compared as integers, and the gradient of the
    # one gather is all that autograd has to know of the paths.
    scores, order = edge.flatten(1).to(torch.promote_types(edge.dtype, torch.float32)).sort(dim=1, stable=True)
    ranks = torch.empty_like(order, dtype=torch.int32)
    ranks.scatter_(1, order, torch.arange(order.shape[1], dtype=torch.int32, device=edge.device).expand_as(order))
    highest = _highest_on_paths(ranks.view(edge[:, 0].shape), radius)
    return 1 - scores.gather(1, highest.flatten(1).long()).view(highest.shape)


def pair_labels(label: torch.Tensor, radius: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Sort the pairs of `pair_affinities` by their labels.

    Args:
        label: (B, h, w) uint8 class ids at stride 4; ids from `num_classes` on (255) are unknown, pairs with them are in no set.
        radius: cells.
        num_classes: background included.

    Returns:
        Three bool masks (B, num_offsets, h - radius + 1, w - 2 * radius + 2): both background; both the same object class;
        different classes.
    """
    start = _view(label, radius, 0, 0)[:, None]
    partner = torch.stack([_view(label, radius, dy, dx) for dy, dx in pair_offsets(radius)], dim=1)
    known, same = (start < num_classes) & (partner < num_classes), start == partner
    return known & same & (start == 0), known & same & (start != 0), known & ~same


def affinity_loss_sums(
    affinity: torch.Tensor, labels: tuple[torch.Tensor, torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return what `affinity_loss` needs, as sums that add up over micro-batches and workers.

    Args:
        affinity: a, (B, num_offsets, h', w') of `pair_affinities`.
        labels: the three masks of `pair_labels`.

    Returns:
        sums (3,) float64: of -log(a + 1e-5) over background pairs and over object pairs, and of -log(1 - a + 1e-5) over
        different pairs; counts (3,) float64 of these pairs.
    """
    different = labels[2]
    # One logarithm a pair, whichever set it is in: autograd keeps a single tensor of the pairs' size.
    losses = -torch.log(torch.where(different, 1 - affinity, affinity) + 1e-5)
    sums = torch.stack([torch.where(mask, losses, 0).sum(dtype=torch.float64) for mask in labels])
    counts = torch.stack([mask.sum() for mask in labels]).to(torch.float64)
    return sums, counts


def affinity_loss(sums: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Return IRNet's affinity loss (scalar): half the mean of the two attracting means plus half the repelling mean.

    Args:
        sums, counts: (3,) of `affinity_loss_sums`, over the whole global batch. A set without pairs contributes 0.
    """
    background, objects, different = (sums / (counts + 1e-5)).unbind()
    return (background / 2 + objects / 2 + different) / 2


def _view(grid: torch.Tensor, radius: int, dy: int, dx: int) -> torch.Tensor:
    """The part (..., h', w') of a grid (..., h, w) that lies at an offset from where pairs start."""
    if radius < 2:
        raise VwlError(f"irnet.radius = {radius}: no two pixels are nearer than that; take 2 or more")
    border = radius - 1
    height, width = grid.shape[-2] - border, grid.shape[-1] - 2 * border
    if height < 1 or width < 1:
        raise VwlError(
            f"irnet.crop: no pixel has all its partners within irnet.radius = {radius}; crop at least {4 * (2 * radius - 1)} pixels"
        )
    return grid[..., dy : dy + height, border + dx : border + dx + width]


def _highest_on_paths(grid: torch.Tensor, radius: int) -> torch.Tensor:
    """Largest value of a grid (B, h, w) on the path of each pair, (B, num_offsets, h', w')."""
    start = _view(grid, radius, 0, 0)
    found = start[:, None].repeat(1, len(pair_offsets(radius)), 1, 1)
    for largest, (dy, dx) in zip(found.unbind(1), pair_offsets(radius), strict=True):
        for y, x in path(dy, dx):
            torch.maximum(largest, _view(grid, radius, y, x), out=largest)
    return found
