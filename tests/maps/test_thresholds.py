import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vwl.errors import VwlError
from vwl.maps.cam import best_class, decide
from vwl.maps.confusion import confusion_matrix, scores
from vwl.maps.thresholds import BoundaryContrast, Otsu, ThresholdHistogram, grid

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
def test_the_histogram_gives_the_confusion_of_each_threshold_alone(seed):
    truth, maps, class_ids = smooth_case(seed)
    histogram = ThresholdHistogram(N)
    histogram.add(truth, *best_class(maps, class_ids))
    confusions, curve = histogram.confusions(), histogram.curve([1, 2])
    for i, threshold in enumerate(grid()):
        alone = confusion_matrix(truth, decide(maps, class_ids, float(threshold)), N)
        np.testing.assert_array_equal(confusions[i], alone)
        np.testing.assert_array_equal(histogram.confusion(i), alone)
        np.testing.assert_equal(curve[i], scores(alone, [1, 2]).miou)


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


def cut_pairs(image, best, value, threshold):
    """Contrasts of the pairs side by side whose decisions differ, by plain loops."""
    decision = np.where(value > np.float32(threshold), best, 0)
    above = value > np.float32(threshold)
    found = []
    for y in range(value.shape[0]):
        for x in range(value.shape[1]):
            for v, u in ((y + 1, x), (y, x + 1)):
                if v < value.shape[0] and u < value.shape[1] and (above[y, x] or above[v, u]):
                    differ = above[y, x] != above[v, u] or decision[y, x] != decision[v, u]
                    if differ:
                        found.append(np.abs(image[y, x].astype(float) - image[v, u]).mean())
    return found


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6), st.tuples(st.integers(1, 6), st.integers(1, 6)))
def test_boundary_contrast_sums_the_cut_pairs_of_each_threshold(seed, shape):
    rng = np.random.default_rng(seed)
    criterion = BoundaryContrast(grid(10))
    expected = np.zeros((2, 11))
    for _ in range(2):
        image, best = rng.integers(0, 256, (*shape, 3), np.uint8), rng.integers(1, 3, shape).astype(np.uint8)
        value = np.round(rng.random(shape), 1).astype(np.float32)
        criterion.add(image, best, value)
        for i, threshold in enumerate(grid(10)):
            pairs = cut_pairs(image, best, value, threshold)
            expected[:, i] += sum(pairs), len(pairs)
    np.testing.assert_allclose(criterion.contrast, expected[0], atol=1e-9)
    np.testing.assert_array_equal(criterion.pairs, expected[1])


def square_on_a_meadow():
    """A red square on green; its score falls from 1 in the middle to 0 at the rim, and is 0.42 at the square's edge."""
    rows, columns = np.mgrid[:40, :40]
    distance = np.maximum(abs(rows - 19.5), abs(columns - 19.5))
    image = np.where((distance < 11)[..., None], [200, 20, 20], [20, 120, 20]).astype(np.uint8)
    value = (1 - (distance - 0.5) / 18.5).clip(0).astype(np.float32)
    return image, np.ones((40, 40), np.uint8), value


def test_boundary_contrast_finds_the_threshold_at_the_objects_edge():
    image, best, value = square_on_a_meadow()
    criterion = BoundaryContrast()
    criterion.add(image, best, value)
    mask = value > criterion.choose()
    np.testing.assert_array_equal(mask, image[..., 0] == 200)


def test_a_few_specks_of_high_contrast_do_not_move_the_threshold():
    image, best, value = square_on_a_meadow()
    image[19:21, 19:21] = [0, 255, 255]
    criterion = BoundaryContrast()
    criterion.add(image, best, value)
    assert criterion.curve().argmax() > 90
    assert 0.4 < criterion.choose() < 0.5


def test_otsu_parts_two_groups_of_scores_in_the_middle_of_the_gap():
    criterion = Otsu()
    criterion.add(np.zeros((1, 4, 3), np.uint8), np.ones((1, 4), np.uint8), np.array([[0.1, 0.2, 0.7, 0.8]], np.float32))
    assert 0.4 < criterion.choose() < 0.5


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 10**6))
def test_otsu_maximises_the_variance_between_the_two_sides(seed):
    value = np.random.default_rng(seed).random((7, 9)).astype(np.float32)
    criterion = Otsu(grid(20))
    criterion.add(np.zeros((7, 9, 3), np.uint8), np.ones((7, 9), np.uint8), value)
    variances = []
    for threshold in grid(20):
        low, high = value[value <= threshold], value[value > threshold]
        variances.append(len(low) * len(high) * (high.mean() - low.mean()) ** 2 if len(low) * len(high) else 0)
    np.testing.assert_allclose(criterion.curve(), variances, rtol=1e-5)


@pytest.mark.parametrize("criterion", [BoundaryContrast, Otsu])
def test_a_criterion_merged_from_parts_equals_one_over_all_images(criterion):
    whole, parts = criterion(), [criterion(), criterion()]
    rng = np.random.default_rng(0)
    for i in range(4):
        image = rng.integers(0, 256, (5, 6, 3), np.uint8), np.ones((5, 6), np.uint8), rng.random((5, 6)).astype(np.float32)
        whole.add(*image)
        parts[i % 2].add(*image)
    parts[0].merge(parts[1])
    np.testing.assert_allclose(parts[0].curve(), whole.curve())
    assert parts[0].choose() == whole.choose()


@pytest.mark.parametrize("criterion", [BoundaryContrast, Otsu])
def test_a_criterion_copes_with_a_single_pixel_and_with_images_without_labels(criterion):
    chooser = criterion()
    chooser.add(np.zeros((1, 1, 3), np.uint8), *best_class(np.zeros((0, 1, 1), np.float32), []))
    assert 0 <= chooser.choose() <= 1
