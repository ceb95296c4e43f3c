"""The walk by PSA's affinities: against the dense form of the published code, and on images of any size."""

import numpy as np
import pytest
import torch

from tests.inference.conftest import IMAGES
from vwl.config.recipe import Backbone, Psa
from vwl.constants import map_size
from vwl.inference.psa_walk import PsaWalkStage, pooled
from vwl.maps.affinity import feature_affinities
from vwl.maps.cam import with_power_background
from vwl.maps.random_walk import walk_by_affinities
from vwl.models.psa import AffinityNet


def walk_dense(maps: np.ndarray, features: np.ndarray, radius: int, beta: float, steps: int) -> np.ndarray:
    """The walk as published: a dense matrix of affinities, its power, column sums, repeated multiplication."""
    height, width = maps.shape[1:]
    matrix = np.eye(height * width)
    for i, (y, x) in enumerate(np.ndindex(height, width)):
        for j, (v, u) in enumerate(np.ndindex(height, width)):
            if i != j and (v - y) ** 2 + (u - x) ** 2 < radius**2:
                matrix[i, j] = np.exp(-np.abs(features[:, y, x] - features[:, v, u]).mean())
    matrix **= beta
    matrix /= matrix.sum(axis=0, keepdims=True)
    return (maps.reshape(len(maps), -1) @ np.linalg.matrix_power(matrix, steps)).reshape(maps.shape)


@pytest.mark.parametrize("steps", [1, 16, 256])
def test_the_walk_equals_the_dense_form(steps):
    rng = np.random.default_rng(steps)
    maps, features = rng.random((3, 11, 13)), rng.normal(size=(6, 11, 13))
    found = walk_by_affinities(maps, feature_affinities(features, 5), 5, 8.0, steps, 1e-12)
    np.testing.assert_allclose(found, walk_dense(maps, features, 5, 8.0, steps), atol=1e-6)


def test_the_background_is_a_power_of_what_the_classes_leave():
    maps = np.array([[[0.2, 0.9]], [[0.5, 0.1]]], np.float32)
    classes, scores = with_power_background((3, 7), maps, 16)
    assert classes == (0, 3, 7)
    np.testing.assert_allclose(scores[0], [[0.5**16, 0.1**16]], rtol=1e-5)
    np.testing.assert_array_equal(scores[1:], maps)


def test_maps_with_a_background_keep_it():
    maps = np.random.default_rng(0).random((2, 3, 4)).astype(np.float32)
    classes, scores = with_power_background((0, 5), maps, 16)
    assert classes == (0, 5)
    np.testing.assert_array_equal(scores, maps)


@pytest.mark.parametrize("size", [(16, 24), (17, 30), (3, 5)])
def test_scores_are_averaged_over_8_by_8_pixels_and_0_outside_the_image(size):
    scores = np.random.default_rng(0).random((2, *size)).astype(np.float32)
    padded = torch.nn.functional.pad(torch.from_numpy(scores), (0, -size[1] % 8, 0, -size[0] % 8))
    np.testing.assert_allclose(pooled(scores), torch.nn.functional.avg_pool2d(padded, 8, 8).numpy(), atol=1e-6)


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_of_any_size_gets_maps_with_a_background(recipe, images, rows, maps, name):
    net = AffinityNet(Psa(backbone=Backbone(name="timm:test_resnet", weights="none")))
    found = PsaWalkStage(recipe, images, maps, net)(rows[name])
    size, labels = IMAGES[name]
    assert (found.image_id, found.classes, (found.height, found.width)) == (name, (0, *labels), size)
    assert found.values.shape == (len(labels) + 1, *map_size(*size))
    assert found.values.min() >= 0
    assert found.values.max() <= 1.001


def test_the_walk_in_torch_gives_the_maps_of_the_compiled_one(recipe, images, rows, maps):
    net = AffinityNet(Psa(backbone=Backbone(name="timm:test_resnet", weights="none")))
    both = [
        recipe.model_copy(update={"psa_walk": recipe.psa_walk.model_copy(update={"implementation": implementation})})
        for implementation in ("native", "torch")
    ]
    native, by_torch = (PsaWalkStage(settings, images, maps, net)(rows["odd"]).values for settings in both)
    np.testing.assert_allclose(by_torch.astype(np.float32), native.astype(np.float32), atol=1e-3)
