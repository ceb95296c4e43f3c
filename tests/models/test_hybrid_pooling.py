import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from vwl.models.hybrid_pooling import LEVELS, global_average, grid_maximum, hybrid_pooling

SQUARES = [(side, side) for side in range(1, 41)]
RECTANGLES = [
    (1, 2),
    (2, 1),
    (1, 40),
    (40, 1),
    (3, 5),
    (5, 3),
    (4, 7),
    (7, 8),
    (9, 13),
    (15, 10),
    (11, 32),
    (23, 38),
    (31, 17),
    (40, 39),
    (33, 4),
]


def features_of(height: int, width: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(height * 100 + width).normal(size=(2, 3, height, width)))


def bin_maximum(features: np.ndarray, split: int) -> np.ndarray:
    """Mean of the maxima of bins with rows floor(i h / r) to ceil((i + 1) h / r), and columns likewise, of features (d, h, w)."""
    height, width = features.shape[1:]
    total = np.zeros(len(features))
    for i in range(split):
        for j in range(split):
            top, bottom = math.floor(i * height / split), math.ceil((i + 1) * height / split)
            left, right = math.floor(j * width / split), math.ceil((j + 1) * width / split)
            total += features[:, top:bottom, left:right].max(axis=(1, 2))
    return total / split**2


@pytest.mark.parametrize("size", SQUARES + RECTANGLES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_every_size_is_pooled_over_the_bins_of_its_grid(size):
    features, gap_weight = features_of(*size), 2.0
    for image, pooled in zip(features.numpy(), hybrid_pooling(features, gap_weight), strict=True):
        maxima = sum(bin_maximum(image, split) for split in LEVELS)
        np.testing.assert_allclose(pooled, (maxima + gap_weight * image.mean(axis=(1, 2))) / (gap_weight + 3), atol=1e-12)


@pytest.mark.parametrize("size", [(h, w) for h in range(4, 41, 4) for w in range(4, 41, 12)])
def test_sizes_divisible_by_4_are_pooled_as_the_published_code_does(size):
    features = features_of(*size)
    expected = sum(F.max_pool2d(features, (size[0] // r, size[1] // r)).mean(dim=(2, 3)) for r in (1, 2, 4))
    torch.testing.assert_close(hybrid_pooling(features, 2), (expected + 2 * features.mean(dim=(2, 3))) / 5)


def test_the_bins_cover_the_map():
    """The one large pixel is found wherever it is."""
    for position in range(7 * 10):
        features = torch.zeros(1, 1, 7, 10)
        features.view(-1)[position] = 1
        assert grid_maximum(features, 4) >= 1 / 16


def test_without_gap_weight_only_maxima_count():
    features = features_of(8, 8)
    torch.testing.assert_close(hybrid_pooling(features, 0), sum(grid_maximum(features, r) for r in LEVELS) / 3)


def test_a_map_of_equal_pixels_is_pooled_to_that_pixel():
    torch.testing.assert_close(hybrid_pooling(torch.full((1, 4, 9, 5), 0.7), 2), torch.full((1, 4), 0.7))


def test_a_large_gap_weight_leaves_the_average():
    features = features_of(6, 9)
    torch.testing.assert_close(hybrid_pooling(features, 1e12), global_average(features), rtol=1e-9, atol=1e-9)


def test_every_pixel_gets_a_gradient_and_maxima_get_more():
    features = features_of(8, 12).requires_grad_()
    hybrid_pooling(features, 2).sum().backward()
    least = 2 / 5 / (8 * 12)
    assert torch.all(features.grad >= least * (1 - 1e-9))
    assert features.grad.max() > 10 * least
