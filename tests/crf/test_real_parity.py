"""The fast forms against the plain ones on fifty real images: walk and dense matrix, our dense CRF and pydensecrf."""

import itertools

import numpy as np
import pytest
from PIL import Image

from tests.crf.test_mean_field_numba import blocks as drawn_probabilities
from tests.crf.test_mean_field_numba import both
from tests.helpers import real_data
from vwl.config.recipe import CrfKernels, IrnetLabels
from vwl.maps.affinity import affinities, pair_offsets
from vwl.maps.cam import argmax_with_background, upsample
from vwl.maps.random_walk import walk

pytestmark = pytest.mark.drill
NUM_IMAGES, RADIUS, EXPONENT, SQUARINGS = 50, 5, 10, 8


def images():
    paths = sorted((real_data("voc12mini") / "JPEGImages").glob("*.jpg"))
    for path in paths[:: len(paths) // NUM_IMAGES][:NUM_IMAGES]:
        with Image.open(path) as image:
            yield image.convert("RGB")


def boundaries(image, height, width):
    """How steep the image is (h, w), 0..1: like a boundary network's, high along edges and low between them."""
    grey = np.asarray(image.convert("L").resize((width, height)), float)
    steep = np.hypot(*np.gradient(grey))
    return 1 / (1 + np.exp(6 - 12 * steep / max(np.percentile(steep, 95), 1)))


def walk_dense(maps, edge):
    """The public code's form in float64: the matrix of all pairs, its columns normalised, squared eight times."""
    num, (height, width) = edge.size, edge.shape
    position, matrix = np.arange(num).reshape(edge.shape), np.eye(num)
    for values, (dy, dx) in zip(affinities(edge, RADIUS), pair_offsets(RADIUS), strict=True):
        rows, columns = slice(0, max(height - dy, 0)), slice(max(0, -dx), width - max(0, dx))
        here = position[rows, columns]
        matrix[here, here + dy * width + dx] = matrix[here + dy * width + dx, here] = values[rows, columns]
    matrix **= EXPONENT
    matrix /= matrix.sum(axis=0)
    for _ in range(SQUARINGS):
        matrix = matrix @ matrix
    return ((maps * (1 - edge)).reshape(len(maps), num) @ matrix).reshape(maps.shape)


def stored(maps):
    """The walk stage's map: divided by the image's largest score, in half precision."""
    return (maps / maps.max()).astype(np.float16)


def test_the_walk_is_the_dense_one_and_its_masks_are_the_same():
    pixels = other_in_single = 0
    sizes = itertools.cycle([(24, 31), (19, 28), (31, 23)])
    for number, (image, (height, width)) in enumerate(zip(images(), sizes, strict=False)):
        edge = boundaries(image, height, width)
        maps = np.random.default_rng(number).random((1 + number % 4, height, width)) ** 3
        expected = walk_dense(maps, edge)
        exact = walk(maps, edge, tolerance=1e-10, dtype=np.float64)
        np.testing.assert_allclose(exact, expected, atol=1e-6)
        single = walk(maps.astype(np.float32), edge.astype(np.float32))
        np.testing.assert_allclose(single, expected, atol=1e-4 * maps.max())
        ids = range(1, len(maps) + 1)
        masks = [argmax_with_background(upsample(stored(found), 4 * height, 4 * width), ids, 0.25) for found in (expected, exact, single)]
        assert 0 < (masks[0] > 0).mean() < 1
        np.testing.assert_array_equal(masks[1], masks[0])
        pixels, other_in_single = pixels + masks[0].size, other_in_single + (masks[2] != masks[0]).sum()
    # single precision leaves a few scores in all on different sides of a tie or of the threshold
    assert other_in_single <= 1e-4 * pixels


@pytest.mark.parametrize("kernels", [CrfKernels(), IrnetLabels().kernels], ids=["cam", "irnet-labels"])
def test_our_dense_crf_is_pydensecrfs(kernels):
    pytest.importorskip("pydensecrf")
    for number, image in enumerate(images()):
        rgb = np.array(image)
        own, other = both(rgb, drawn_probabilities(2 + number % 5, *rgb.shape[:2], seed=number), kernels)
        assert np.abs(own - other).max() <= 1e-3, number
        assert (own.argmax(axis=0) == other.argmax(axis=0)).mean() >= 0.999, number
