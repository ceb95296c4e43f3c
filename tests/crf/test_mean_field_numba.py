"""Our own dense CRF against pydensecrf on real images; what both must do is in test_dense_crf.py."""

import numpy as np
import pytest
from PIL import Image

from tests.helpers import real_data
from vwl.config.recipe import CrfKernels, IrnetLabels, Segment
from vwl.crf.dense_crf import crf_probabilities, irnet_labels, label_energies
from vwl.crf.mean_field_numba import NumbaMeanField

KERNELS = {"cam": CrfKernels(), "irnet_labels": IrnetLabels().kernels, "segment": Segment().kernels}
CASES = [("cam", 2), ("irnet_labels", 3), ("segment", 4), ("irnet_labels", 5), ("cam", 6), ("irnet_labels", 8), ("segment", 21)]


@pytest.fixture(scope="module")
def images():
    """Parts of seven images."""
    paths = sorted((real_data("voc12mini") / "JPEGImages").glob("*.jpg"))[:: 1139 // 7][: len(CASES)]
    return [np.array(Image.open(path).convert("RGB"))[20:207, 40:292] for path in paths]


def blocks(num_labels, height, width, seed=0):
    """Probabilities of blocks of 16 pixels, as those of coarse maps."""
    coarse = np.random.default_rng(seed).dirichlet(np.full(num_labels, 0.5), (height // 16 + 1, width // 16 + 1))
    return coarse.transpose(2, 0, 1).repeat(16, 1).repeat(16, 2)[:, :height, :width].astype(np.float32)


def both(image, probabilities, kernels):
    pytest.importorskip("pydensecrf")
    return [
        crf_probabilities(image, probabilities, kernels.model_copy(update={"implementation": name})) for name in ("native", "pydensecrf")
    ]


@pytest.mark.parametrize("case", range(len(CASES)))
def test_on_real_images_it_agrees_with_pydensecrf(images, case):
    image, (stage, num_labels) = images[case], CASES[case]
    own, other = both(image, blocks(num_labels, *image.shape[:2]), KERNELS[stage])
    assert np.abs(own - other).max() <= 1e-3
    assert (own.argmax(axis=0) == other.argmax(axis=0)).mean() >= 0.999


@pytest.mark.parametrize("size", [(1, 1), (1, 67), (66, 1), (17, 130)])
@pytest.mark.parametrize("num_labels", [2, 5])
def test_on_images_of_odd_sizes_it_agrees_with_pydensecrf(images, size, num_labels):
    image = np.ascontiguousarray(images[0][: size[0], : size[1]])
    own, other = both(image, blocks(num_labels, *size), KERNELS["cam"])
    np.testing.assert_allclose(own, other, atol=1e-3)


def test_lattices_serve_any_number_of_labels_in_any_order():
    image = np.random.default_rng(0).integers(0, 256, (9, 11, 3)).astype(np.uint8)
    field = NumbaMeanField(image, CrfKernels())
    energies = {n: -np.log(blocks(n, 9, 11, seed=n).reshape(n, -1) + 1e-5) for n in (2, 4, 7)}
    separate = {n: NumbaMeanField(image, CrfKernels()).infer(energies[n]) for n in energies}
    for n in (7, 2, 4, 2):
        np.testing.assert_array_equal(field.infer(energies[n]), separate[n])


def test_energies_far_apart_give_certain_labels():
    energies = np.array([[0, 1000], [500, 0], [1e6, 1e6]], np.float32)
    image = np.array([[[0, 0, 0], [255, 255, 255]]], np.uint8)
    unary_only = CrfKernels(gaussian_compat=0.0, bilateral_compat=0.0)
    np.testing.assert_array_equal(NumbaMeanField(image, unary_only).infer(energies), [[1, 0], [0, 1], [0, 0]])


def test_without_pairwise_terms_it_is_the_softmax():
    energies = np.random.default_rng(0).uniform(0, 40, (6, 1000)).astype(np.float32)
    image, unary_only = np.zeros((25, 40, 3), np.uint8), CrfKernels(gaussian_compat=0.0, bilateral_compat=0.0)
    powers = np.exp(-energies.astype(float))
    np.testing.assert_allclose(NumbaMeanField(image, unary_only).infer(energies), powers / powers.sum(axis=0), atol=3e-7)


def test_real_images_have_the_same_irnet_labels_from_both(images):
    pytest.importorskip("pydensecrf")
    settings = IrnetLabels()
    other = settings.model_copy(update={"kernels": settings.kernels.model_copy(update={"implementation": "pydensecrf"})})
    maps = blocks(4, *images[0].shape[:2])[1:]
    maps[:, :90] *= 0.05
    found, expected = irnet_labels(images[0], maps, [3, 7, 9], settings), irnet_labels(images[0], maps, [3, 7, 9], other)
    assert set(np.unique(expected)) > {0, 255}
    assert (found == expected).mean() >= 0.999


def test_read_only_energies_are_left_by_itself():
    energies = label_energies(np.eye(6, dtype=np.uint8), 2, 0.7).reshape(2, -1)
    before = energies.copy()
    energies.flags.writeable = False
    NumbaMeanField(np.zeros((6, 6, 3), np.uint8), CrfKernels()).infer(energies)
    np.testing.assert_array_equal(energies, before)
