"""PSA's affinity network, its affinities and their loss, against direct transcriptions of the published formulas."""

import numpy as np
import pytest
import torch

from vwl.config.recipe import Backbone, Psa
from vwl.maps.affinity import feature_affinities, pair_offsets
from vwl.models.affinity_loss import affinity_loss_sums, affinity_loss_terms, pair_feature_affinities, pair_labels
from vwl.models.psa import AffinityNet


def random_features(seed: int, height: int = 9, width: int = 12) -> torch.Tensor:
    return torch.randn(2, 7, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def affinities_by_loops(features: torch.Tensor, radius: int) -> torch.Tensor:
    """exp(-mean |f_i - f_j|) pair by pair, pairs as published: first pixels leave radius - 1 cells at the left, right and lower border."""
    border = radius - 1
    batch, _, height, width = features.shape
    found = torch.zeros(batch, len(pair_offsets(radius)), height - border, width - 2 * border, dtype=torch.float64)
    for b, i, y, x in np.ndindex(*found.shape):
        dy, dx = pair_offsets(radius)[i]
        first, second = features[b, :, y, x + border], features[b, :, y + dy, x + border + dx]
        found[b, i, y, x] = torch.exp(-(first - second).abs().sum() / len(first))
    return found


def loss_by_loops(affinity: torch.Tensor, label: torch.Tensor, radius: int) -> float:
    """The published loss: bg / 4 + fg / 4 + neg / 2, each a mean over its pairs."""
    border = radius - 1
    sums = {"bg": [0.0, 1e-5], "fg": [0.0, 1e-5], "neg": [0.0, 1e-5]}
    for b, i, y, x in np.ndindex(*affinity.shape):
        dy, dx = pair_offsets(radius)[i]
        first, second, a = int(label[b, y, x + border]), int(label[b, y + dy, x + border + dx]), float(affinity[b, i, y, x])
        if 255 in (first, second):
            continue
        kind = "neg" if first != second else "fg" if first else "bg"
        sums[kind][0] -= np.log(1.0 + 1e-5 - a) if kind == "neg" else np.log(a + 1e-5)
        sums[kind][1] += 1
    means = {kind: total / count for kind, (total, count) in sums.items()}
    return means["bg"] / 4 + means["fg"] / 4 + means["neg"] / 2


@pytest.mark.parametrize("radius", [2, 3, 5])
def test_affinities_equal_the_published_formula(radius):
    features = random_features(radius)
    torch.testing.assert_close(pair_feature_affinities(features, radius), affinities_by_loops(features, radius), atol=1e-12, rtol=0)


@pytest.mark.parametrize("radius", [2, 3, 5])
def test_the_affinities_of_the_walk_are_those_of_the_training_where_all_partners_are_inside(radius):
    features, border = random_features(radius), radius - 1
    trained = pair_feature_affinities(features, radius).numpy()
    for image, pairs in zip(features.numpy(), trained, strict=True):
        inside = feature_affinities(image, radius)[:, : 9 - border, border : 12 - border]
        np.testing.assert_allclose(pairs, inside, atol=1e-12)


def test_pairs_that_leave_the_image_have_no_affinity():
    found = feature_affinities(random_features(0)[0].numpy(), 3)
    for pairs, (dy, dx) in zip(found, pair_offsets(3), strict=True):
        rows, columns = np.nonzero(pairs)
        assert len(rows) == (9 - dy) * (12 - abs(dx))
        assert (rows + dy).max() < 9
        assert (columns + dx).min() >= 0
        assert (columns + dx).max() < 12


@pytest.mark.parametrize("seed", range(5))
def test_the_loss_equals_the_published_formula(seed):
    radius = 3
    affinity = pair_feature_affinities(random_features(seed), radius)
    label = torch.from_numpy(np.random.default_rng(seed).choice([0, 0, 1, 2, 255], size=(2, 9, 12)).astype(np.uint8))
    pairs = pair_labels(label, radius, 3)
    counts = torch.stack([mask.sum() for mask in pairs]).double()
    found = sum(affinity_loss_terms(affinity_loss_sums(affinity, pairs), counts))
    assert float(found) == pytest.approx(loss_by_loops(affinity, label, radius), abs=1e-6)


def test_affinities_are_differentiable():
    features = random_features(0, 3, 5).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: pair_feature_affinities(x, 2), (features,))


@pytest.mark.parametrize("name", ["timm:test_resnet", "resnet18", "lite0"])
@pytest.mark.parametrize("size", [(64, 64), (61, 83)])
def test_features_lie_on_the_stride_8_grid(name, size):
    net = AffinityNet(Psa(backbone=Backbone(name=name, weights="none"))).eval()
    features = net(torch.rand(1, 3, *size))
    assert features.shape == (1, 448, -(-size[0] // 8), -(-size[1] // 8))
    assert torch.isfinite(features).all()


def test_the_first_stages_are_frozen_and_the_head_trains():
    net = AffinityNet(Psa(backbone=Backbone(name="timm:test_resnet", weights="none"), frozen_stages=2))
    net(torch.rand(1, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in net.new_parameters())
    assert {parameter.requires_grad for parameter in net.backbone.parameters()} == {True, False}
