import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vwl.constants import map_size
from vwl.maps.cam import (
    argmax_with_background,
    best_class,
    class_activation,
    normalise,
    upsample,
    upsampled_argmax,
    working_size,
)

scores = st.floats(-1, 1, width=32)


@st.composite
def score_maps(draw):
    shape = draw(st.tuples(st.integers(0, 4), st.integers(1, 6), st.integers(1, 6)))
    return draw(arrays.arrays(np.float32, shape, elements=scores))


def bilinear(values, size):
    """Resize (h, w) with cell centres aligned, in NumPy."""
    for axis, length in enumerate(size):
        old = values.shape[axis]
        position = np.clip((np.arange(length) + 0.5) * old / length - 0.5, 0, None)
        low = np.floor(position).astype(int)
        high, part = np.minimum(low + 1, old - 1), position - low
        part = part[:, None] if axis == 0 else part
        values = values.take(low, axis) * (1 - part) + values.take(high, axis) * part
    return values


def test_class_activation_is_equation_1_with_relu():
    rng = np.random.default_rng(0)
    features, weight = rng.normal(size=(2, 7, 3, 4)), rng.normal(size=(5, 7))
    expected = np.zeros((2, 5, 3, 4))
    for c in range(5):
        for i in range(7):
            expected[:, c] += weight[c, i] * features[:, i]
    found = class_activation(torch.from_numpy(features), torch.from_numpy(weight))
    np.testing.assert_allclose(found.numpy(), np.maximum(expected, 0), atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(score_maps())
def test_normalised_maps_are_the_positive_scores_over_their_maximum(maps):
    found = normalise(maps)
    assert found.shape == maps.shape
    assert found.dtype == np.float32
    for before, after in zip(maps, found, strict=True):
        positive = np.where(before > 0, before, 0).astype(np.float64)
        np.testing.assert_allclose(after, positive / (positive.max() + 1e-5), rtol=1e-6, atol=1e-12)


@settings(max_examples=25, deadline=None)
@given(score_maps(), st.floats(0, 1))
def test_a_decision_is_the_argmax_over_background_and_maps(maps, threshold):
    class_ids = [3, 5, 7, 11][: len(maps)]
    background = np.full((1, *maps.shape[1:]), threshold, np.float32)
    expected = np.array([0, *class_ids])[np.concatenate([background, maps]).argmax(axis=0)]
    found = argmax_with_background(maps, class_ids, threshold)
    np.testing.assert_array_equal(found, expected)
    assert found.dtype == np.uint8


@settings(max_examples=25, deadline=None)
@given(score_maps().filter(len), st.floats(0, 1))
def test_maps_with_their_own_background_know_no_threshold(maps, threshold):
    class_ids = [0, 5, 7, 11][: len(maps)]
    np.testing.assert_array_equal(argmax_with_background(maps, class_ids, threshold), np.array(class_ids)[maps.argmax(axis=0)])


def test_an_image_without_labels_is_background():
    nothing = normalise(np.zeros((0, 3, 4)))
    assert nothing.shape == (0, 3, 4)
    assert not argmax_with_background(upsample(nothing, 9, 13), [], 0.0).any()
    assert argmax_with_background(upsample(nothing, 9, 13), [], 0.0).shape == (9, 13)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 4), (5, 3), (13, 18), (1, 9)])
@pytest.mark.parametrize("dtype", [np.float16, np.float64])
def test_upsampling_enlarges_by_four_and_crops(height, width, dtype):
    values = np.random.default_rng(0).random((2, *map_size(height, width))).astype(dtype)
    found = upsample(values, height, width)
    assert found.dtype == np.float32
    for before, after in zip(values, found, strict=True):
        enlarged = bilinear(before.astype(float), (4 * before.shape[0], 4 * before.shape[1]))
        np.testing.assert_allclose(after, enlarged[:height, :width], atol=1e-5)


def test_a_map_of_another_image_is_refused():
    with pytest.raises(ValueError, match="does not belong"):
        upsample(np.zeros((1, 3, 3)), 9, 13)


def test_the_number_of_maps_and_classes_must_agree():
    with pytest.raises(ValueError, match="2 maps for 1 class"):
        best_class(np.zeros((2, 1, 1)), [1])


def test_read_only_maps_are_accepted_and_left_by_itself():
    values = np.random.default_rng(0).random((2, 3, 3)).astype(np.float32)
    before = values.copy()
    values.flags.writeable = False
    argmax_with_background(upsample(normalise(values), 12, 12), [1, 2], 0.1)
    np.testing.assert_array_equal(values, before)


@pytest.mark.parametrize("size", [(1, 1), (33, 2000), (4000, 6000), (3, 5_000_000)])
def test_a_working_size_has_the_shape_of_the_image_and_no_more_than_the_pixels(size):
    found = working_size(*size, 2_000_000)
    assert min(found) >= 1
    assert found[0] * found[1] <= 2_000_000 * 1.2
    if size[0] * size[1] <= 2_000_000:
        assert found == size
    else:
        assert found[0] * found[1] > 1_500_000


def test_an_upsampled_map_of_bounded_size_is_the_full_one_reduced():
    values = np.random.default_rng(0).random((2, 20, 30)).astype(np.float16)
    full, small = upsample(values, 79, 118), upsample(values, 79, 118, 2000)
    assert small.shape == (2, *working_size(79, 118, 2000))
    position = [np.minimum(((np.arange(n) + 0.5) * m / n).astype(int), m - 1) for n, m in zip(small.shape[1:], (79, 118), strict=True)]
    np.testing.assert_allclose(small, full[:, position[0]][:, :, position[1]], atol=0.15)
    np.testing.assert_array_equal(upsample(values, 79, 118, 79 * 118), full)


@pytest.mark.parametrize("size", [(40, 50), (200, 301), (41, 50), (65, 64)])
def test_the_likeliest_class_in_strips_is_that_of_the_enlarged_probabilities(size):
    probabilities = np.random.default_rng(1).random((4, 40, 50)).astype(np.float32)
    enlarged = torch.nn.functional.interpolate(torch.from_numpy(probabilities)[None], size, mode="bilinear", align_corners=False)[0]
    found = upsampled_argmax(probabilities, *size)
    assert found.dtype == np.uint8
    assert (found == enlarged.numpy().argmax(axis=0)).mean() > 0.9999
