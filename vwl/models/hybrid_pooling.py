"""Hybrid pooling (paper section 3.4): the weighted mean of local maxima on three grids and the global average.

It pools the backbone's last features for the image-label head. Any map of at least 1 x 1 works: bin (i, j) of an r x r grid covers rows
floor(i h / r) to ceil((i + 1) h / r), and columns likewise. Where h and w are divisible by 4, these are the equal parts of Eq. 8, and the
result is that of the published code.
"""

import torch
from torch.nn import functional as F

LEVELS = (1, 2, 4)
"""Split sizes r of Eq. 8."""


def global_average(features: torch.Tensor) -> torch.Tensor:
    """Return f_gap (B, d), Eq. 9, of features (B, d, h, w)."""
    return features.mean(dim=(2, 3))


def grid_maximum(features: torch.Tensor, split: int) -> torch.Tensor:
    """Return f_max_r (B, d), Eq. 8: the mean of the maxima of `split` x `split` bins of features (B, d, h, w)."""
    return F.adaptive_max_pool2d(features, split).mean(dim=(2, 3))


def hybrid_pooling(features: torch.Tensor, gap_weight: float) -> torch.Tensor:
    """Return f_hp (B, d), Eq. 10, of features (B, d, h, w).

    Args:
        features: the backbone's last features, any h, w >= 1.
        gap_weight: gamma; 0 leaves the global average out (Fig. 12).
    """
    maxima = torch.stack([grid_maximum(features, split) for split in LEVELS]).sum(dim=0)
    return (maxima + gap_weight * global_average(features)) / (gap_weight + len(LEVELS))
