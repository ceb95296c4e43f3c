"""The affinity loss of IRNet and PSA: trains a network from pairs of confident labels (Ahn et al. 2019, Eqs. 8-11; paper section 4.1).

The affinity of a pair is to be high for pairs of the same label and low for pairs of different labels. IRNet's is 1 minus the largest
boundary score on the straight path between the pixels, PSA's falls with the distance of the pixels' features.
"""

import torch

from vwl.errors import VwlError
from vwl.maps.affinity import pair_offsets, path


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
    # The largest score of a path is that of its highest-ranking pixel: ranks are compared as integers, so that autograd only sees
    # one gather.
    scores, order = edge.flatten(1).to(torch.promote_types(edge.dtype, torch.float32)).sort(dim=1, stable=True)
    ranks = torch.empty_like(order, dtype=torch.int32)
    ranks.scatter_(1, order, torch.arange(order.shape[1], dtype=torch.int32, device=edge.device).expand_as(order))
    highest = _highest_on_paths(ranks.view(edge[:, 0].shape), radius)
    return 1 - scores.gather(1, highest.flatten(1).long()).view(highest.shape)


def pair_feature_affinities(features: torch.Tensor, radius: int) -> torch.Tensor:
    """Return the affinities of all pairs of a batch by PSA (Ahn and Kwak 2018, Eq. 2): exp(-mean absolute difference of the features).

    The pairs are those of `pair_affinities`.

    Args:
        features: (B, D, h, w) affinity features; half precision is computed in float32.
        radius: cells, see `pair_offsets`.

    Returns:
        (B, num_offsets, h - radius + 1, w - 2 * radius + 2).

    Raises:
        VwlError: the radius has no pairs, or the grid is too small for it.
    """
    features = features.to(torch.promote_types(features.dtype, torch.float32))
    start = _view(features, radius, 0, 0)
    distances = [(_view(features, radius, dy, dx) - start).abs().mean(dim=1) for dy, dx in pair_offsets(radius)]
    return torch.exp(-torch.stack(distances, dim=1))


def pair_labels(label: torch.Tensor, radius: int, num_classes: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return which pairs of `pair_affinities` are background, object, and different pairs.

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


def affinity_loss_sums(affinity: torch.Tensor, labels: tuple[torch.Tensor, torch.Tensor, torch.Tensor]) -> torch.Tensor:
    """Return the sums of IRNet's affinity loss; they add up over micro-batches and workers.

    Args:
        affinity: a, (B, num_offsets, h', w') of `pair_affinities`.
        labels: the three masks of `pair_labels`.

    Returns:
        (3,) float64: of -log(a + 1e-5) over background pairs and over object pairs, and of -log(1 - a + 1e-5) over different pairs.
    """
    different = labels[2]
    # One logarithm per pair, whichever set it is in: autograd keeps a single tensor of the pairs' size.
    losses = -torch.log(torch.where(different, 1 - affinity, affinity) + 1e-5)
    return torch.stack([torch.where(mask, losses, 0).sum(dtype=torch.float64) for mask in labels])


def affinity_loss_terms(sums: torch.Tensor, counts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the two terms of IRNet's affinity loss, which is their sum; a set without pairs contributes 0.

    Args:
        sums: (3,) of `affinity_loss_sums`.
        counts: (3,) pairs of each set in the global batch.

    Returns:
        attract: a quarter of the sum of the means over background pairs and over object pairs; repel: half the mean over different pairs.
    """
    background, objects, different = (sums / (counts + 1e-5)).unbind()
    return (background + objects) / 4, different / 2


def _view(grid: torch.Tensor, radius: int, dy: int, dx: int) -> torch.Tensor:
    """Return the part (..., h', w') of a grid (..., h, w) at an offset from the pairs' first pixels."""
    if radius < 2:
        raise VwlError(f"radius = {radius}: no two pixels are that close; set it to 2 or more")
    border = radius - 1
    height, width = grid.shape[-2] - border, grid.shape[-1] - 2 * border
    if height < 1 or width < 1:
        raise VwlError(
            f"a crop of {grid.shape[-2]} x {grid.shape[-1]} cells has no cell with all its partners within radius = {radius}; "
            f"set a crop of {2 * border + 1} cells a side or more"
        )
    return grid[..., dy : dy + height, border + dx : border + dx + width]


def _highest_on_paths(grid: torch.Tensor, radius: int) -> torch.Tensor:
    """Return the largest value of a grid (B, h, w) on the path of each pair, (B, num_offsets, h', w')."""
    start = _view(grid, radius, 0, 0)
    highest = start[:, None].repeat(1, len(pair_offsets(radius)), 1, 1)
    for largest, (dy, dx) in zip(highest.unbind(1), pair_offsets(radius), strict=True):
        for y, x in path(dy, dx):
            torch.maximum(largest, _view(grid, radius, y, x), out=largest)
    return highest
