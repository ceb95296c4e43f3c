"""k-means by cosine similarity of features that are spread over workers; every number of workers gives the same bits.

Each worker holds some blocks of features, as in `vwl.training.linear_probe`: the sums over a block are computed on one worker and added up
in the order of the blocks.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

from vwl.training.distributed import all_reduce, device


@dataclass(frozen=True)
class Clusters:
    """The result of k-means.

    Attributes:
        centres: (k, d) float64, the mean of each cluster's features, which keeps their length.
        sizes: (k,) int64.
    """

    centres: torch.Tensor
    sizes: torch.Tensor


def k_means(
    blocks: Mapping[int, torch.Tensor], num_blocks: int, dim: int, num_clusters: int, iterations: int, rng: np.random.Generator
) -> Clusters:
    """Cluster features; called by all workers, which get the same result.

    A feature belongs to the centre of the largest cosine similarity, the first of equal ones. Centres start from different features, drawn
    at random, and an empty cluster keeps its centre. It ends when no feature changes its cluster, or after `iterations`.

    Args:
        blocks: this worker's blocks of features (n, d) by number; every block is on one worker, or on none if it is empty.
        num_blocks: blocks over all workers.
        dim: d.
        num_clusters: at most so many; fewer if there are fewer features, and none if there are none.
        iterations: at least 1.
        rng: the same on all workers.
    """
    counts = torch.zeros(num_blocks, dtype=torch.float64)
    for number, features in blocks.items():
        counts[number] = len(features)
    counts = _sum(counts).long()
    total = int(counts.sum())
    drawn = np.sort(rng.choice(total, min(num_clusters, total), replace=False)) if total else np.zeros(0, np.int64)
    centres, sizes = _drawn(blocks, counts, drawn, dim), torch.zeros(len(drawn), dtype=torch.int64)
    before: dict[int, torch.Tensor] = {}
    for _ in range(iterations if total else 0):
        # the last column of each cluster counts its features; the last row, the features that have changed their cluster
        table = torch.zeros(num_blocks, len(drawn) + 1, dim + 1, dtype=torch.float64)
        directions = functional.normalize(centres, dim=1).T
        for number, stored in blocks.items():
            features = stored.double()
            nearest = (features @ directions).argmax(dim=1)
            table[number, :-1, :dim].index_add_(0, nearest, features)
            table[number, :-1, dim] = torch.bincount(nearest, minlength=len(drawn)).double()
            table[number, -1, dim] = float((nearest != before[number]).sum() if number in before else len(nearest))
            before[number] = nearest
        sums = _sum(table).sum(dim=0)
        if sums[-1, dim] == 0:
            break
        sizes = sums[:-1, dim].long()
        centres = torch.where(sizes[:, None] > 0, sums[:-1, :dim] / sizes[:, None].clamp(min=1), centres)
    return Clusters(centres, sizes)


def _drawn(blocks: Mapping[int, torch.Tensor], counts: torch.Tensor, drawn: np.ndarray, dim: int) -> torch.Tensor:
    """Return the features (k, d) at the drawn positions of all blocks in a row."""
    ends = counts.cumsum(dim=0).numpy()
    found = torch.zeros(len(drawn), dim, dtype=torch.float64)
    for position, at in enumerate(drawn):
        number = int(np.searchsorted(ends, at, side="right"))
        if number in blocks:
            found[position] = blocks[number][int(at - ends[number] + counts[number])].double()
    return _sum(found)


def _sum(values: torch.Tensor) -> torch.Tensor:
    return all_reduce(values.to(device())).cpu()
