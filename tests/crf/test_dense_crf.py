import sys

import numpy as np
import pytest

from vwl.config.recipe import CrfKernels, IrnetLabels, PsaLabels
from vwl.crf.dense_crf import cam_crf, crf_probabilities, irnet_labels, label_energies, psa_labels
from vwl.errors import VwlError

KERNELS = CrfKernels(iterations=5, gaussian_sxy=2, gaussian_compat=3, bilateral_sxy=20, bilateral_srgb=10, bilateral_compat=5)

WEAK_KERNELS = KERNELS.model_copy(update={"gaussian_compat": 1.0, "bilateral_compat": 2.0})


@pytest.fixture(params=["native", "torch", "pydensecrf"])
def kernels(request):
    if request.param == "pydensecrf":
        pytest.importorskip("pydensecrf")
    return KERNELS.model_copy(update={"implementation": request.param})


def mean_field(image, probabilities, kernels):
    """Exact mean-field inference: all pairs of pixels, kernels normalised on both sides."""
    num_labels, height, width = probabilities.shape
    position = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1).reshape(-1, 2).astype(float)
    colour = image.reshape(-1, 3).astype(float)
    features = (position / kernels.gaussian_sxy, np.hstack([position / kernels.bilateral_sxy, colour / kernels.bilateral_srgb]))
    messages = np.zeros((len(position), len(position)))
    for feature, compat in zip(features, (kernels.gaussian_compat, kernels.bilateral_compat), strict=True):
        kernel = np.exp(-0.5 * ((feature[:, None] - feature[None]) ** 2).sum(-1))
        root = np.sqrt(kernel.sum(1))
        messages += compat * kernel / root / root[:, None]
    unary = np.log(probabilities.reshape(num_labels, -1).astype(float))
    q = np.exp(unary) / np.exp(unary).sum(0)
    for _ in range(kernels.iterations):
        energy = unary + q @ messages
        q = np.exp(energy - energy.max(0))
        q /= q.sum(0)
    return q.reshape(probabilities.shape)


def two_colours(height=20, width=30, seed=0):
    """An image, blue left and yellow right with a little noise, and its true labels."""
    rng = np.random.default_rng(seed)
    labels = np.zeros((height, width), np.uint8)
    labels[:, width // 2 :] = 1
    image = np.array([[30, 40, 200], [220, 200, 40]])[labels] + rng.integers(-3, 4, (height, width, 3))
    return image.astype(np.uint8), labels


def noisy_probabilities(labels, num_labels, seed=0):
    rng = np.random.default_rng(seed)
    own = np.where(rng.random(labels.shape) < 0.25, rng.integers(0, num_labels, labels.shape), labels)
    probabilities = np.full((num_labels, *labels.shape), 0.4 / max(num_labels - 1, 1), np.float32)
    np.put_along_axis(probabilities, own[None].astype(np.int64), 0.6, axis=0)
    return probabilities


def crf_labels(image, labels, num_labels, confidence, kernels):
    """The labels after refinement of a hard labelling."""
    energies = label_energies(labels, num_labels, confidence)
    return crf_probabilities(image, np.exp(-energies), kernels).argmax(axis=0).astype(np.uint8)


@pytest.mark.parametrize("num_labels", [2, 3])
@pytest.mark.parametrize("seed", range(3))
def test_inference_is_near_the_exact_mean_field_of_all_pairs(num_labels, seed, kernels):
    image, labels = two_colours(6, 8, seed)
    probabilities = noisy_probabilities(labels, num_labels, seed)
    found, exact = crf_probabilities(image, probabilities, kernels), mean_field(image, probabilities, kernels)
    np.testing.assert_allclose(found, exact, atol=0.1)
    np.testing.assert_array_equal(found.argmax(0), exact.argmax(0))


def test_probabilities_sum_to_one(kernels):
    image, labels = two_colours()
    found = crf_probabilities(image, noisy_probabilities(labels, 4), kernels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


def test_without_pairwise_terms_the_probabilities_are_those_of_the_unary(kernels):
    image, labels = two_colours()
    probabilities = noisy_probabilities(labels, 3)
    unary_only = kernels.model_copy(update={"gaussian_compat": 0.0, "bilateral_compat": 0.0})
    np.testing.assert_allclose(crf_probabilities(image, probabilities, unary_only), probabilities / probabilities.sum(axis=0), atol=1e-5)


def test_a_noisy_labelling_of_two_colours_is_cleaned_up(kernels):
    image, labels = two_colours()
    noisy = noisy_probabilities(labels, 2).argmax(axis=0).astype(np.uint8)
    assert (noisy != labels).mean() > 0.05
    np.testing.assert_array_equal(crf_labels(image, noisy, 2, 0.7, kernels), labels)


def test_a_label_of_probability_zero_can_win(kernels):
    image, labels = two_colours()
    probabilities = np.stack([labels == 0, labels == 1]).astype(np.float32)
    probabilities[:, 3, 3] = [0, 1]
    found = crf_probabilities(image, probabilities, kernels.model_copy(update={"gaussian_compat": 10.0, "bilateral_compat": 10.0}))
    assert np.isfinite(found).all()
    assert found[:, 3, 3].argmax() == 0


def test_read_only_and_transposed_input_is_accepted_and_not_changed(kernels):
    image, labels = two_colours()
    probabilities = noisy_probabilities(labels, 2)
    expected = crf_probabilities(image, probabilities, kernels)
    strided_image = np.asfortranarray(image)
    strided = np.ascontiguousarray(probabilities.transpose(2, 1, 0)).transpose(2, 1, 0)
    before = strided.copy(), strided_image.copy()
    strided.flags.writeable = strided_image.flags.writeable = False
    np.testing.assert_array_equal(crf_probabilities(strided_image, strided, kernels), expected)
    np.testing.assert_array_equal(strided, before[0])
    np.testing.assert_array_equal(strided_image, before[1])


def test_the_order_of_the_labels_does_not_matter(kernels):
    image, labels = two_colours()
    probabilities, order = noisy_probabilities(labels, 3), [2, 0, 1]
    np.testing.assert_allclose(
        crf_probabilities(image, probabilities[order], kernels), crf_probabilities(image, probabilities, kernels)[order], atol=1e-5
    )


def test_a_single_label_is_returned(kernels):
    image, labels = two_colours()
    assert (crf_probabilities(image, np.full((1, *labels.shape), 0.3, np.float32), kernels) == 1).all()
    assert not crf_labels(image, np.zeros_like(labels), 1, 0.7, kernels).any()


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 1)])
def test_the_smallest_images_work(size, kernels):
    image = np.full((*size, 3), 100, np.uint8)
    assert (crf_labels(image, np.ones(size, np.uint8), 2, 0.7, kernels) == 1).all()


def test_cam_crf_gives_class_ids_that_follow_the_colours():
    image, labels = two_colours()
    rng = np.random.default_rng(0)
    maps = np.stack([labels, 1 - labels]) * np.array([0.9, 0.0])[:, None, None] * (rng.random(labels.shape) < 0.8)
    np.testing.assert_array_equal(cam_crf(image, maps, [7, 12], 0.15, 1.0, CrfKernels()), np.where(labels, 7, 0))


def test_the_cam_unary_is_the_softmax_of_the_sharpened_scores():
    image, labels = two_colours()
    maps = np.random.default_rng(0).random((2, *labels.shape)).astype(np.float32)
    scores = np.exp(np.concatenate([np.full((1, *labels.shape), 0.4), maps]) * 3.0)
    expected = crf_probabilities(image, scores / scores.sum(axis=0), WEAK_KERNELS).argmax(axis=0)
    np.testing.assert_array_equal(cam_crf(image, maps, [5, 9], 0.4, 3.0, WEAK_KERNELS), np.array([0, 5, 9])[expected])


def test_labels_have_their_confidence_and_the_others_share_the_rest():
    probabilities = np.exp(-label_energies(np.array([[0, 3]], np.uint8), 4, 0.7))
    np.testing.assert_allclose(probabilities[:, 0, 0], [0.7, 0.1, 0.1, 0.1], rtol=1e-6)
    np.testing.assert_allclose(probabilities[:, 0, 1], [0.1, 0.1, 0.1, 0.7], rtol=1e-6)


def test_irnet_labels_are_confident_objects_and_confident_background(kernels):
    image, labels = two_colours()
    image[:, :5] = [120, 10, 10]
    maps = np.where(labels == 1, 0.8, 0.15)[None].astype(np.float32)
    maps[:, :, :5] = 0.01
    found = irnet_labels(image, maps, [6], IrnetLabels(kernels=kernels))
    expected = np.where(labels == 1, 6, 255)
    expected[:, :5] = 0
    np.testing.assert_array_equal(found, expected)


def test_irnet_labels_are_those_of_two_separate_crfs(kernels):
    image, labels = two_colours(12, 15)
    rng = np.random.default_rng(1)
    maps = (rng.random((2, *labels.shape)) * np.stack([0.6 * labels, 0.1 * (1 - labels)])).astype(np.float32)
    settings = IrnetLabels(kernels=kernels.model_copy(update={"gaussian_compat": 0.5, "bilateral_compat": 0.5}))
    passes = []
    for threshold in (0.30, 0.05):
        position = np.concatenate([np.full((1, *labels.shape), threshold), maps]).argmax(axis=0).astype(np.uint8)
        passes.append(crf_labels(image, position, 3, 0.7, settings.kernels))
    expected = np.array([0, 4, 200])[passes[0]]
    expected[passes[0] == 0] = 255
    expected[(passes[0] == 0) & (passes[1] == 0)] = 0
    assert set(np.unique(expected)) == {0, 4, 255}
    np.testing.assert_array_equal(irnet_labels(image, maps, [4, 200], settings), expected)


def test_an_image_without_labels_is_background(kernels):
    image, labels = two_colours()
    nothing = np.zeros((0, *labels.shape), np.float32)
    assert not irnet_labels(image, nothing, [], IrnetLabels()).any()
    assert not cam_crf(image, nothing, [], 0.15, 1.0, kernels).any()


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_a_confidence_that_rules_labels_out_is_refused(confidence, kernels):
    image, labels = two_colours()
    with pytest.raises(VwlError, match="confidence"):
        crf_labels(image, labels, 2, confidence, kernels)


def test_maps_of_another_size_and_images_of_another_kind_are_refused(kernels):
    image, labels = two_colours()
    with pytest.raises(ValueError, match="do not fit"):
        crf_probabilities(image, noisy_probabilities(labels.T, 2), kernels)
    with pytest.raises(ValueError, match="uint8"):
        crf_probabilities(image / 255, noisy_probabilities(labels, 2), kernels)


def test_without_pydensecrf_the_other_implementations_work(monkeypatch):
    image, labels = two_colours()
    noisy = noisy_probabilities(labels, 2).argmax(axis=0).astype(np.uint8)
    monkeypatch.setitem(sys.modules, "pydensecrf", None)
    for implementation in ("auto", "native", "torch"):
        kernels = KERNELS.model_copy(update={"implementation": implementation})
        np.testing.assert_array_equal(crf_labels(image, noisy, 2, 0.7, kernels), labels)
    with pytest.raises(VwlError, match="implementation: native"):
        crf_labels(image, noisy, 2, 0.7, KERNELS.model_copy(update={"implementation": "pydensecrf"}))


def test_a_constant_map_of_the_background_gives_what_a_constant_background_gives(kernels):
    image, labels = two_colours()
    maps = np.random.default_rng(1).random((2, *labels.shape)).astype(np.float32)
    own = np.concatenate([np.full((1, *labels.shape), 0.4, np.float32), maps])
    wanted = cam_crf(image, maps, (3, 7), background=0.4, sharpness=2.0, kernels=kernels)
    assert set(np.unique(wanted)) <= {0, 3, 7}
    assert np.array_equal(cam_crf(image, own, (0, 3, 7), background=0.9, sharpness=2.0, kernels=kernels), wanted)


def test_confident_objects_exceed_the_background_of_the_maps_and_the_threshold():
    image, labels = two_colours()
    settings = IrnetLabels(foreground_threshold=0.3, background_threshold=0.1, confidence=0.7, kernels=WEAK_KERNELS)
    maps = np.where(labels == 1, 0.6, 0.02).astype(np.float32)[None]
    fixed = irnet_labels(image, maps, (5,), settings)
    assert set(np.unique(fixed)) == {0, 5}

    def with_background(score):
        return irnet_labels(image, np.concatenate([np.full_like(maps, score), maps]), (0, 5), settings)

    assert np.array_equal(with_background(0.5), fixed)
    assert set(np.unique(with_background(0.7)[labels == 1])) == {255}  # neither confident nor background
    assert set(np.unique(with_background(0.7)[labels == 0])) == {0}


def published_psa_labels(image, maps, class_ids, low, high, kernels):
    """As published: two dense CRFs of the scores themselves, and what both are sure of."""
    found = []
    for alpha in (low, high):
        background = (1 - maps.max(axis=0, keepdims=True)) ** alpha
        probabilities = crf_probabilities(image, np.concatenate([background, maps]), kernels)
        found.append(np.array([0, *class_ids], np.uint8)[probabilities.argmax(axis=0)])
    confident, possible = found
    label = confident.copy()
    label[confident == 0] = 255
    label[possible == 0] = 0
    return label


@pytest.mark.parametrize("seed", range(3))
def test_psa_labels_are_those_of_the_published_code(seed):
    rng = np.random.default_rng(seed)
    image = rng.integers(0, 256, (24, 30, 3), np.uint8)
    maps = rng.random((2, 24, 30)).astype(np.float32) ** 2
    settings = PsaLabels()
    expected = published_psa_labels(image, maps, (3, 9), 4.0, 32.0, settings.kernels)
    np.testing.assert_array_equal(psa_labels(image, maps, (3, 9), settings), expected)


def test_psa_labels_of_an_image_without_classes_are_background():
    image, nothing = np.zeros((8, 9, 3), np.uint8), np.zeros((0, 8, 9), np.float32)
    assert not psa_labels(image, nothing, [], PsaLabels()).any()


def test_maps_with_their_own_background_use_it_for_both_psa_labels():
    rng = np.random.default_rng(0)
    image, maps = rng.integers(0, 256, (16, 20, 3), np.uint8), rng.random((2, 16, 20)).astype(np.float32)
    found = psa_labels(image, maps, (0, 5), PsaLabels())
    assert set(np.unique(found)) <= {0, 5}
