import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from vwl.errors import VwlError
from vwl.maps.confusion import confusion_matrix, scores

N = 5


@st.composite
def mask_pairs(draw):
    shape = draw(st.tuples(st.integers(1, 7), st.integers(1, 7)))
    truth = draw(arrays.arrays(np.uint8, shape, elements=st.sampled_from([*range(N), 255])))
    prediction = draw(arrays.arrays(np.uint8, shape, elements=st.integers(0, N - 1)))
    return truth, prediction


def counted(truth, prediction, num_classes):
    table = np.zeros((num_classes, num_classes), np.int64)
    for t, p in zip(truth.ravel().tolist(), prediction.ravel().tolist(), strict=True):
        if t != 255:
            table[t, p if p < num_classes else 0] += 1
    return table


@settings(max_examples=25, deadline=None)
@given(mask_pairs())
def test_matrix_equals_counting_pixel_by_pixel(masks):
    np.testing.assert_array_equal(confusion_matrix(*masks, N), counted(*masks, N))


@settings(max_examples=25, deadline=None)
@given(mask_pairs())
def test_figures_equal_their_definitions_on_pixel_sets(masks):
    truth, prediction = masks
    result = scores(confusion_matrix(truth, prediction, N))
    valid = truth != 255
    ious, recalls = [], []
    for c in range(N):
        true, predicted = (truth == c) & valid, (prediction == c) & valid
        if true.any():
            ious.append((true & predicted).sum() / (true | predicted).sum())
            recalls.append((true & predicted).sum() / true.sum())
            assert result.iou[c] == pytest.approx(ious[-1])
            assert result.recall[c] == pytest.approx(recalls[-1])
            assert result.under_activation[c] == pytest.approx(1 - recalls[-1])
        else:
            assert np.isnan(result.iou[c])
            assert np.isnan(result.recall[c])
        if predicted.any():
            assert result.precision[c] == pytest.approx((true & predicted).sum() / predicted.sum())
            assert result.over_activation[c] == pytest.approx(1 - result.precision[c])
        else:
            assert np.isnan(result.precision[c])
    if valid.any():
        assert result.miou == pytest.approx(np.mean(ious))
        assert result.mean_accuracy == pytest.approx(np.mean(recalls))
        assert result.pixel_accuracy == pytest.approx((truth == prediction)[valid].mean())
    else:
        assert np.isnan([result.miou, result.mean_accuracy, result.pixel_accuracy]).all()
    objects = [c for c in range(1, N) if (truth == c).any()]
    for mean, per_class in ((result.object_precision, result.precision), (result.object_recall, result.recall)):
        defined = [per_class[c] for c in objects if not np.isnan(per_class[c])]
        assert mean == pytest.approx(np.mean(defined) if defined else np.nan, nan_ok=True)


@settings(max_examples=25, deadline=None)
@given(mask_pairs(), st.permutations(range(N)))
def test_renaming_the_classes_permutes_the_figures(masks, order):
    table = np.array([*order, *range(N, 256)], np.uint8)
    before, after = (scores(confusion_matrix(*pair, N)) for pair in (masks, [table[mask] for mask in masks]))
    np.testing.assert_allclose(after.iou[list(order)], before.iou)
    np.testing.assert_allclose(after.miou, before.miou)


def test_a_prediction_of_no_class_counts_as_background():
    truth, prediction = np.array([[1, 0]], np.uint8), np.array([[255, 7]], np.uint8)
    np.testing.assert_array_equal(confusion_matrix(truth, prediction, 2), [[1, 0], [1, 0]])


def test_the_mean_over_chosen_classes_takes_background_and_those_present():
    table = np.array([[6, 2, 0], [0, 4, 0], [0, 0, 0]])
    assert scores(table, [1, 2]).miou == pytest.approx((6 / 8 + 4 / 6) / 2)
    assert scores(table, [2]).miou == pytest.approx(6 / 8)
    assert scores(table, []).mean_accuracy == pytest.approx(6 / 8)


def test_a_true_id_beyond_the_classes_is_refused_by_name():
    with pytest.raises(VwlError, match="class id 9, but the classes are 0 to 4"):
        confusion_matrix(np.array([[9, 255]], np.uint8), np.zeros((1, 2), np.uint8), N)


def test_masks_of_different_sizes_are_refused():
    with pytest.raises(VwlError, match="one image"):
        confusion_matrix(np.zeros((2, 3), np.uint8), np.zeros((3, 2), np.uint8), N)


def test_256_classes_without_a_void_value_fit():
    ids = np.arange(255, dtype=np.uint8)[None]
    np.testing.assert_array_equal(confusion_matrix(ids, ids, 255), np.eye(255))
