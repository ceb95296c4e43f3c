"""The dense CRF on tensors against the one in NumPy arrays; on the GPU as well where there is one."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import real_data
from vwl.config.recipe import CrfKernels, IrnetLabels
from vwl.crf.mean_field_numba import NumbaMeanField
from vwl.crf.mean_field_torch import TorchMeanField

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU"))]
SETS = [CrfKernels(), IrnetLabels().kernels]


def energies(num_labels, height, width, seed=0):
    coarse = np.random.default_rng(seed).dirichlet(np.full(num_labels, 0.5), (height // 16 + 1, width // 16 + 1))
    fine = coarse.transpose(2, 0, 1).repeat(16, 1).repeat(16, 2)[:, :height, :width]
    return -np.log(np.clip(fine, 1e-5, 1)).astype(np.float32)


def on(device, images, unary, kernels):
    field = TorchMeanField(torch.from_numpy(np.stack(images)).to(device), kernels)
    return field.infer(torch.from_numpy(np.stack(unary)).to(device)).cpu().numpy()


def one_by_one(images, unary, kernels):
    flat = [NumbaMeanField(image, kernels).infer(u.reshape(len(u), -1)) for image, u in zip(images, unary, strict=True)]
    return np.stack(flat).reshape(np.stack(unary).shape)


@pytest.fixture(scope="module")
def crops():
    """Parts of three images."""
    paths = sorted((real_data("voc12mini") / "JPEGImages").glob("*.jpg"))[::400]
    return [np.array(Image.open(path).convert("RGB"))[30:111, 50:183] for path in paths]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kernels", SETS)
@pytest.mark.parametrize("num_labels", [2, 6])
def test_a_batch_of_images_equals_each_of_them_in_arrays(crops, device, kernels, num_labels):
    unary = [energies(num_labels, 81, 133, seed) for seed in range(len(crops))]
    found, expected = on(device, crops, unary, kernels), one_by_one(crops, unary, kernels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, atol=1e-3)
    assert (found.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.999


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("size", [(1, 1), (1, 19), (7, 3)])
def test_the_smallest_images_work(device, size):
    images = list(np.random.default_rng(0).integers(0, 256, (2, *size, 3)).astype(np.uint8))
    unary = [energies(3, *size, seed) for seed in range(2)]
    np.testing.assert_allclose(on(device, images, unary, CrfKernels()), one_by_one(images, unary, CrfKernels()), atol=1e-4)


@pytest.mark.parametrize("device", DEVICES)
def test_each_call_gives_the_same_bits(crops, device):
    unary = [energies(4, 81, 133, seed) for seed in range(len(crops))]
    np.testing.assert_array_equal(on(device, crops, unary, SETS[0]), on(device, crops, unary, SETS[0]))


@pytest.mark.parametrize("device", DEVICES)
def test_without_pairwise_terms_it_is_the_softmax(device):
    unary_only = CrfKernels(gaussian_compat=0.0, bilateral_compat=0.0)
    unary = energies(4, 5, 6)
    powers = np.exp(-unary)
    found = on(device, [np.zeros((5, 6, 3), np.uint8)], [unary], unary_only)[0]
    np.testing.assert_allclose(found, powers / powers.sum(axis=0), atol=1e-6)
