"""The permutohedral lattice against a transcription of Adams et al. 2010 with dictionaries, and against the Gaussian it stands for."""

import numpy as np
import pytest

from vwl.crf.permutohedral import Lattice
from vwl.errors import VwlError

SIZES = [(1, 1), (1, 70), (67, 1), (13, 65)]


def random_image(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3)).astype(np.uint8)


def pixel_features(image, spatial, colour):
    height, width = image.shape[:2]
    position = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(height * width, 2)
    return np.hstack([position / spatial, image.reshape(height * width, -1) / colour])


def filter_with_dictionaries(features, values):
    """Splat, blur and slice in float64; vertices are the keys of dictionaries."""
    d = features.shape[1]
    size = d + 1
    basis = np.zeros((size, d))
    for k in range(1, size):
        basis[:k, k - 1], basis[k, k - 1] = 1, -k
        basis[:, k - 1] *= np.sqrt(2 / 3) * size / np.sqrt(k * (k + 1))
    simplices = []
    for point in features @ basis.T:
        nearest = np.rint(point / size) * size
        rank = np.argsort(np.argsort(nearest - point, kind="stable"), kind="stable") + round(nearest.sum() / size)
        nearest += size * ((rank < 0).astype(int) - (rank > d))
        rank = rank % size
        descending = np.sort((point - nearest) / size)[::-1]
        shares = [1 - descending[0] + descending[d], *(descending[d - r] - descending[size - r] for r in range(1, size))]
        vertices = [tuple((nearest + np.where(rank <= d - r, r, r - size)).astype(int)) for r in range(size)]
        simplices.append((vertices, shares))
    held = {}
    for (vertices, shares), value in zip(simplices, values, strict=True):
        for vertex, share in zip(vertices, shares, strict=True):
            held[vertex] = held.get(vertex, 0) + share * value
    for axis in range(size):
        step = np.ones(size, int)
        step[axis] -= size
        beside = {vertex: held.get(tuple(vertex + step), 0) + held.get(tuple(vertex - step), 0) for vertex in held}
        held = {vertex: value + beside[vertex] / 2 for vertex, value in held.items()}
    sliced = [sum(share * held[vertex] for vertex, share in zip(*simplex, strict=True)) for simplex in simplices]
    return np.array(sliced) / (1 + 2.0**-d)


def normalised_filter(features, values):
    norm = 1 / np.sqrt(filter_with_dictionaries(features, np.ones((len(features), 1))))
    return norm * filter_with_dictionaries(features, norm * values)


def filtered(lattice, values, strength=1.0):
    num, lanes = values.shape
    target = np.zeros(num * lanes, np.float32)
    lattice.add_filtered(values.astype(np.float32).ravel(), target, lattice.scratch(lanes), lanes, strength)
    return target.reshape(num, lanes)


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize(("coloured", "spatial", "colour"), [(True, 6.3, 41.7), (False, 1.137, 1.0), (False, 2.939, 1.0)])
def test_the_filter_is_that_of_the_paper(shape, coloured, spatial, colour):
    image = random_image(shape)[:, :, : 3 if coloured else 0]
    values = np.random.default_rng(1).random((shape[0] * shape[1], 4))
    expected, lattice = normalised_filter(pixel_features(image, spatial, colour), values), Lattice(image, spatial, colour)
    for lanes in (1, 2, 4):
        np.testing.assert_allclose(filtered(lattice, values[:, :lanes]), expected[:, :lanes], rtol=1e-4, atol=1e-5)


def test_the_filter_is_near_the_normalised_gaussian():
    image = random_image((12, 15)) // 8
    features = pixel_features(image, 4.0, 20.0)
    kernel = np.exp(-0.5 * ((features[:, None] - features[None]) ** 2).sum(-1))
    root = np.sqrt(kernel.sum(1))
    values = np.eye(180)[:, ::45]
    np.testing.assert_allclose(filtered(Lattice(image, 4.0, 20.0), values), kernel / root / root[:, None] @ values, atol=0.03)


def test_an_image_with_more_vertices_than_pixels_is_filtered_by_pixel():
    # every pixel far from all others: the filter is the identity
    image = np.stack(np.unravel_index(np.random.default_rng(0).permutation(24 * 24), (24, 24, 1)), -1) * 10
    lattice = Lattice(image.reshape(24, 24, 3).astype(np.uint8), 0.5, 0.5)
    assert lattice.num_vertices == 576 * 6
    values = np.random.default_rng(1).random((576, 4))
    np.testing.assert_allclose(filtered(lattice, values), values, rtol=1e-5)


def test_it_adds_the_strength_times_the_answer():
    lattice = Lattice(random_image((6, 7)), 3.0, 60.0)
    values = np.random.default_rng(1).random((42, 2)).astype(np.float32)
    target = np.ones(84, np.float32)
    lattice.add_filtered(values.ravel(), target, lattice.scratch(2), 2, 2.5)
    np.testing.assert_allclose(target.reshape(42, 2), 1 + 2.5 * filtered(lattice, values), rtol=1e-5)


def test_the_same_image_gives_the_same_bytes():
    image, values = random_image((40, 50)), np.random.default_rng(1).random((2000, 4))
    np.testing.assert_array_equal(filtered(Lattice(image, 20.0, 13.0), values), filtered(Lattice(image, 20.0, 13.0), values))


def test_the_answer_is_symmetric():
    lattice, rng = Lattice(random_image((9, 11)), 5.0, 40.0), np.random.default_rng(2)
    first, second = rng.random((2, 99, 1))
    assert (first * filtered(lattice, second)).sum() == pytest.approx((second * filtered(lattice, first)).sum(), rel=0.05)


@pytest.mark.parametrize(("spatial", "colour"), [(1e-6, 3.0), (60.0, 1e-4)])
def test_a_kernel_too_narrow_for_the_numbering_is_refused(spatial, colour):
    with pytest.raises(VwlError, match="too narrow"):
        Lattice(random_image((100, 100)), spatial, colour)
