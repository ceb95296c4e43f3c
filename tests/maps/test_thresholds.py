import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vwl.errors import VwlError
from vwl.maps.cam import argmax_with_background, best_class
from vwl.maps.confusion import confusion_matrix, scores
from vwl.maps.thresholds import Otsu, ThresholdHistogram, _below, grid

N = 4


def smooth_case(seed, height=23, width=31):
    """Truth with void pixels and maps (K, H, W) with a bump over each object, many values exactly on the grid."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    class_ids = sorted(rng.choice([1, 2, 3], size=rng.integers(0, 4), replace=False).tolist())
    truth, maps = np.zeros((height, width), np.uint8), np.zeros((len(class_ids), height, width), np.float32)
    for k, class_id in enumerate(class_ids):
        distance = np.hypot(rows - rng.uniform(0, height), columns - rng.uniform(0, width))
        truth[distance < rng.uniform(3, 12)] = class_id
        maps[k] = np.exp(-distance / rng.uniform(3, 12)) + rng.normal(0, 0.05, truth.shape)
    on_the_grid = rng.random(truth.shape) < 0.3
    maps[:, on_the_grid] = np.round(maps[:, on_the_grid], 2)
    truth[rng.random(truth.shape) < 0.1] = 255
    return truth, maps, class_ids


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6))
def test_the_histogram_gives_the_confusion_of_each_threshold_by_itself(seed):
    truth, maps, class_ids = smooth_case(seed)
    histogram = ThresholdHistogram(N)
    histogram.add(truth, *best_class(maps, class_ids))
    confusions, curve = histogram.confusions(), histogram.curve([1, 2])
    for i, threshold in enumerate(grid()):
        single = confusion_matrix(truth, argmax_with_background(maps, class_ids, float(threshold)), N)
        np.testing.assert_array_equal(confusions[i], single)
        np.testing.assert_array_equal(histogram.confusion(i), single)
        np.testing.assert_equal(curve[i], scores(single, [1, 2]).miou)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_a_score_that_equals_the_threshold_is_background(dtype):
    thresholds = np.array([0.1, 0.25, 0.3])
    value = thresholds.astype(np.float32)[None].astype(dtype)
    histogram = ThresholdHistogram(2, thresholds)
    histogram.add(np.ones((1, 3), np.uint8), np.ones((1, 3), np.uint8), value)
    for i, threshold in enumerate(thresholds):
        found = int((value.astype(np.float32) > np.float32(threshold)).sum())
        np.testing.assert_array_equal(histogram.confusion(i), [[0, 0], [3 - found, found]])


def test_two_halves_merged_give_the_whole():
    whole, halves = ThresholdHistogram(N), [ThresholdHistogram(N), ThresholdHistogram(N)]
    for seed in range(6):
        truth, maps, class_ids = smooth_case(seed)
        for histogram in (whole, halves[seed % 2]):
            histogram.add(truth, *best_class(maps, class_ids))
    halves[0].merge(halves[1])
    np.testing.assert_array_equal(halves[0].counts, whole.counts)
    assert whole.counts.sum() > 0


def test_histograms_over_other_thresholds_do_not_merge():
    with pytest.raises(ValueError, match="different thresholds"):
        ThresholdHistogram(N).merge(ThresholdHistogram(N, grid(10)))


def test_thresholds_that_do_not_ascend_are_refused():
    with pytest.raises(ValueError, match="ascend"):
        ThresholdHistogram(N, np.array([0.5, 0.5]))


def test_a_true_id_beyond_the_classes_is_refused():
    with pytest.raises(VwlError, match="class id 7"):
        ThresholdHistogram(N).add(np.full((1, 1), 7, np.uint8), np.zeros((1, 1), np.uint8), np.zeros((1, 1)))


def test_otsu_parts_two_groups_of_scores_in_the_middle_of_the_gap():
    otsu = Otsu()
    otsu.add(np.array([[0.1, 0.2, 0.7, 0.8]], np.float32))
    assert 0.4 < otsu.choose() < 0.5


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_otsu_maximises_the_variance_between_the_two_sides(seed):
    value = np.random.default_rng(seed).random((7, 9)).astype(np.float32)
    otsu = Otsu(grid(20))
    otsu.add(value)
    variances = []
    for threshold in grid(20):
        low, high = value[value <= threshold], value[value > threshold]
        variances.append(len(low) * len(high) * (high.mean() - low.mean()) ** 2 if len(low) * len(high) else 0)
    np.testing.assert_allclose(otsu.curve(), variances, rtol=1e-5)


def test_otsu_merged_from_parts_equals_one_over_all_images():
    whole, parts = Otsu(), [Otsu(), Otsu()]
    rng = np.random.default_rng(0)
    for i in range(4):
        value = rng.random((5, 6)).astype(np.float32)
        whole.add(value)
        parts[i % 2].add(value)
    parts[0].merge(parts[1])
    np.testing.assert_allclose(parts[0].curve(), whole.curve())
    assert parts[0].choose() == whole.choose()


@pytest.mark.parametrize("value", [0.0, 0.4, 1.0])
def test_otsu_copes_with_scores_that_are_all_one(value):
    otsu = Otsu()
    otsu.add(np.full((2, 3), value, np.float32))
    assert 0 <= otsu.choose() <= 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.one_of(st.floats(-1, 2, width=32), st.sampled_from([0.0, 0.25, 1.0])), min_size=1, max_size=30, unique=True),
    st.lists(st.one_of(st.floats(-2, 3, width=32), st.sampled_from([0.0, 0.25, 1.0])), max_size=30),
)
def test_the_thresholds_below_a_score_are_counted_as_by_searching(thresholds, values):
    ascending = np.unique(np.array(thresholds, np.float32))
    values = np.concatenate([np.array(values, np.float32), ascending, np.nextafter(ascending, np.float32(9))])
    np.testing.assert_array_equal(_below(ascending, values), np.searchsorted(ascending, values, side="left"))


def test_scores_of_half_precision_are_counted_as_by_searching():
    values = np.arange(2**14, dtype=np.uint16).view(np.float16)
    np.testing.assert_array_equal(_below(grid(), values), np.searchsorted(grid(), values.astype(np.float32), side="left"))
