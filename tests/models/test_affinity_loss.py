import numpy as np
import pytest
import torch

from vwl.errors import VwlError
from vwl.maps.affinity import affinities, pair_offsets
from vwl.models.affinity_loss import affinity_loss_sums, affinity_loss_terms, pair_affinities, pair_labels


@pytest.mark.parametrize("radius", [2, 4, 5])
def test_the_trained_affinities_are_those_of_the_random_walk_where_all_partners_are_inside(radius):
    edge = np.random.default_rng(radius).random((2, 13, 15))
    found = pair_affinities(torch.from_numpy(edge)[:, None], radius).numpy()
    border = radius - 1
    for image, pairs in zip(edge, found, strict=True):
        np.testing.assert_array_equal(pairs, affinities(image, radius)[:, : 13 - border, border : 15 - border])


def test_affinities_carry_the_gradient_of_the_strongest_pixel():
    edge = torch.rand(1, 1, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert torch.autograd.gradcheck(lambda e: pair_affinities(e, 3), (edge,))


def test_a_flat_boundary_map_sends_each_pairs_gradient_to_one_pixel():
    edge = torch.full((1, 1, 4, 7), 0.5, requires_grad=True)
    affinity = pair_affinities(edge, 3)
    affinity.sum().backward()
    assert edge.grad is not None
    assert edge.grad.sum() == -affinity.numel()
    assert (edge.grad == edge.grad.round()).all()


def pairs_by_loops(label, radius, num_classes):
    border = radius - 1
    batch, height, width = label.shape
    masks = np.zeros((3, batch, len(pair_offsets(radius)), height - border, width - 2 * border), bool)
    for b, i, y, x in np.ndindex(masks.shape[1:]):
        dy, dx = pair_offsets(radius)[i]
        first, second = label[b, y, x + border], label[b, y + dy, x + border + dx]
        if first < num_classes and second < num_classes:
            masks[2 if first != second else 1 if first else 0, b, i, y, x] = True
    return masks


def test_pairs_are_sorted_by_their_labels():
    label = np.random.default_rng(0).choice([0, 0, 1, 2, 80, 255], size=(2, 8, 9)).astype(np.uint8)
    found = pair_labels(torch.from_numpy(label), 3, 81)
    expected = pairs_by_loops(label, 3, 81)
    assert all(mask.any() for mask in expected)
    for mask, want in zip(found, expected, strict=True):
        np.testing.assert_array_equal(mask.numpy(), want)


def loss_of(affinity, label):
    pairs = pair_labels(label, 3, 3)
    counts = torch.stack([mask.sum() for mask in pairs]).double()
    return sum(affinity_loss_terms(affinity_loss_sums(affinity, pairs), counts))


def random_pairs(seed, classes=(0, 1, 2, 255)):
    rng = np.random.default_rng(seed)
    edge, label = rng.random((2, 1, 8, 9)), rng.choice(classes, size=(2, 8, 9)).astype(np.uint8)
    return edge, label


def test_the_loss_is_irnets_formula():
    edge, label = random_pairs(1)
    background, objects, different = pairs_by_loops(label, 3, 3)
    a = pair_affinities(torch.from_numpy(edge), 3).numpy()
    attracting = -np.log(a + 1e-5)
    repelling = -np.log(1 + 1e-5 - a)
    positive = sum(attracting[mask].sum() / (mask.sum() + 1e-5) for mask in (background, objects)) / 2
    expected = (positive + repelling[different].sum() / (different.sum() + 1e-5)) / 2
    assert loss_of(torch.from_numpy(a), torch.from_numpy(label)).item() == pytest.approx(expected, rel=1e-9)


def test_sums_of_two_halves_of_the_batch_add_up_to_those_of_the_whole():
    edge, label = (torch.from_numpy(array) for array in random_pairs(2))
    parts = [affinity_loss_sums(pair_affinities(edge[i], 3), pair_labels(label[i], 3, 3)) for i in (slice(2), slice(1), slice(1, 2))]
    torch.testing.assert_close(parts[1] + parts[2], parts[0])


def test_the_loss_has_the_gradient_of_its_formula():
    edge, label = (torch.from_numpy(array) for array in random_pairs(3))
    assert torch.autograd.gradcheck(lambda e: loss_of(pair_affinities(e, 3), label), (edge.requires_grad_(),), atol=1e-6)


def test_unknown_labels_give_a_loss_of_zero_with_a_finite_gradient():
    edge, label = (torch.from_numpy(array) for array in random_pairs(4, classes=(255,)))
    edge.requires_grad_()
    loss = loss_of(pair_affinities(edge, 3), label)
    loss.backward()
    assert loss.item() == 0
    assert edge.grad is not None
    assert not edge.grad.any()


@pytest.mark.parametrize("score", [0.0, 1.0])
def test_saturated_boundaries_keep_loss_and_gradient_finite(score):
    _, label = random_pairs(5)
    edge = torch.full((2, 1, 8, 9), score, requires_grad=True)
    loss = loss_of(pair_affinities(edge, 3), torch.from_numpy(label))
    loss.backward()
    assert torch.isfinite(loss)
    assert edge.grad is not None
    assert torch.isfinite(edge.grad).all()


def test_half_precision_scores_are_computed_in_float32():
    assert pair_affinities(torch.rand(1, 1, 8, 9).to(torch.bfloat16), 3).dtype == torch.float32


def test_a_crop_smaller_than_the_radius_is_refused_with_the_smallest_one():
    with pytest.raises(VwlError, match="set a crop of 19 cells a side or more"):
        pair_affinities(torch.rand(1, 1, 18, 18), 10)
    assert pair_affinities(torch.rand(1, 1, 19, 19), 10).shape == (1, 152, 10, 1)


def test_a_radius_without_pairs_is_refused():
    with pytest.raises(VwlError, match="radius = 1"):
        pair_labels(torch.zeros(1, 8, 8, dtype=torch.uint8), 1, 21)
