"""The walk on torch tensors gives the maps of the compiled one, within the rounding of its dtype."""

import numpy as np
import pytest
import torch

from tests.maps.test_random_walk import SHAPES, boundary_map
from vwl.errors import VwlError
from vwl.maps import affinity, random_walk, random_walk_torch
from vwl.maps.affinity import feature_affinities

CPU = torch.device("cpu")
DEVICES = [CPU, torch.device("cuda")] if torch.cuda.is_available() else [CPU]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["random", "flat", "lines", "open", "closed"])
@pytest.mark.parametrize("radius", [2, 5])
def test_both_forms_give_the_same_maps(device, shape, kind, radius):
    edge, maps = boundary_map(kind, shape), np.random.default_rng(0).random((3, *shape))
    exact = random_walk.walk(maps, edge, radius, tolerance=1e-10, dtype=np.float64)
    np.testing.assert_allclose(random_walk_torch.walk(maps, edge, radius, 10.0, 256, 1e-10, device, torch.float64), exact, atol=1e-9)
    single = random_walk_torch.walk(maps, edge, radius, 10.0, 256, 1e-5, device)
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, random_walk.walk(maps, edge, radius), atol=1e-4 * maps.max())


@pytest.mark.parametrize("shape", SHAPES)
def test_both_forms_have_the_same_affinities(shape):
    edge = boundary_map("random", shape)
    np.testing.assert_array_equal(random_walk_torch.affinities(torch.from_numpy(edge), 5).numpy(), affinity.affinities(edge, 5))


@pytest.mark.parametrize("device", DEVICES)
def test_the_walk_by_given_affinities_is_that_of_the_compiled_form(device):
    rng = np.random.default_rng(0)
    maps, features = rng.random((4, 15, 11)).astype(np.float32), rng.random((6, 15, 11)).astype(np.float32)
    expected = random_walk.walk_by_affinities(maps, feature_affinities(features, 5), 5, 8.0, 256, 1e-5)
    found = random_walk_torch.walk_by_affinities(maps, feature_affinities(features, 5), 5, 8.0, 256, 1e-5, device)
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_each_call_gives_the_same_bits():
    edge, maps = boundary_map("random", (24, 23)), np.random.default_rng(0).random((3, 24, 23))
    first, second = (random_walk_torch.walk(maps, edge, 5, 10.0, 256, 1e-5, CPU) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_no_map_stays_no_map():
    assert random_walk_torch.walk(np.zeros((0, 6, 7)), np.zeros((6, 7)), 5, 10.0, 256, 1e-5, CPU).shape == (0, 6, 7)


def test_an_exponent_of_zero_and_other_sizes_are_refused():
    with pytest.raises(VwlError, match=r"exponent = 0 of the walk must be above 0"):
        random_walk_torch.walk(np.ones((1, 3, 3)), np.zeros((3, 3)), 5, 0, 256, 1e-5, CPU)
    with pytest.raises(ValueError, match="boundary map of"):
        random_walk_torch.walk(np.ones((1, 3, 3)), np.zeros((3, 4)), 5, 10, 256, 1e-5, CPU)
