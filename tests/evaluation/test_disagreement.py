import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from vwl.errors import VwlError
from vwl.evaluation.disagreement import differences, disagreement, entropy, image_miou, reason

CLASSES = ("background", "cow", "sheep", "dog")
MASKS = hnp.arrays(np.uint8, (6, 8), elements=st.integers(0, 3))


def block(class_id: int, columns: slice, size: tuple[int, int] = (10, 10)) -> np.ndarray:
    mask = np.zeros(size, np.uint8)
    mask[:, columns] = class_id
    return mask


def reason_of(one: np.ndarray, other: np.ndarray, labels: tuple[int, ...] = (2,)) -> str:
    return reason(differences({"walk": one, "segment": other}, labels, 4), labels, CLASSES)


@given(MASKS)
def test_equal_masks_do_not_disagree(mask):
    found = differences({"crf": mask, "walk": mask, "segment": mask}, (1, 2), 4)
    assert disagreement(found) == 0
    assert reason(found, (1, 2), CLASSES) == "all stages agree"


@given(MASKS, MASKS)
def test_a_disagreement_is_symmetric_and_between_0_and_1(one, other):
    a, b = (disagreement(differences({"crf": x, "walk": y}, (1,), 4)) for x, y in ((one, other), (other, one)))
    assert a == pytest.approx(b)
    assert 0 <= a <= 1


def test_the_disagreement_is_1_minus_the_mean_of_the_pairs_mean_ious():
    masks = {"crf": block(1, slice(0, 4)), "walk": block(1, slice(0, 4)), "segment": block(1, slice(0, 2))}
    found = differences(masks, (1,), 4)
    assert [difference.stages for difference in found] == [("crf", "walk"), ("crf", "segment"), ("walk", "segment")]
    half = (2 / 4 + 6 / 8) / 2  # of class 1 and of the background
    assert [difference.mean_iou for difference in found] == pytest.approx([1, half, half])
    assert disagreement(found) == pytest.approx(1 - (1 + 2 * half) / 3)
    assert disagreement(found[:1]) == 0


def test_a_class_that_only_one_stage_sees_counts_from_one_percent_of_the_image_on():
    nothing, speck, spot = np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8), np.zeros((20, 20), np.uint8)
    speck[0, :3] = 3
    spot[0, :4] = 3
    few, many = (differences({"walk": nothing, "segment": mask}, (), 4)[0].mean_iou for mask in (speck, spot))
    assert few == pytest.approx(397 / 400)  # the background alone
    assert many == pytest.approx((396 / 400 + 0) / 2)


def test_a_label_that_neither_mask_shows_does_not_count():
    mask = block(1, slice(0, 3))
    (found,) = differences({"walk": mask, "segment": block(1, slice(0, 3))}, (1, 2), 4)
    assert found.mean_iou == 1


def test_masks_of_other_sizes_are_refused():
    with pytest.raises(VwlError, match="were both made from one image"):
        differences({"walk": np.zeros((4, 4), np.uint8), "segment": np.zeros((4, 5), np.uint8)}, (), 4)


@pytest.mark.parametrize(
    ("one", "other", "labels", "expected"),
    [
        (
            block(2, slice(0, 31), (4, 100)),
            block(2, slice(0, 4), (4, 100)),
            (2,),
            "the walk calls 31 % of the image sheep, the segmentation model 4 %",
        ),
        (
            block(2, slice(0, 40), (4, 100)),
            block(2, slice(30, 70), (4, 100)),
            (2,),
            "the walk and the segmentation model see sheep in different places (40 % and 40 % of the image, IoU 14 %)",
        ),
        (
            np.zeros((4, 100), np.uint8),
            block(3, slice(0, 20), (4, 100)),
            (2,),
            "the walk calls 0 % of the image dog, the segmentation model 20 %; dog is not a label of the image",
        ),
    ],
)
def test_the_reason_names_the_stages_and_the_class_that_differ_most(one, other, labels, expected):
    assert reason_of(one, other, labels) == expected


def test_the_reason_is_about_the_two_stages_that_differ_most():
    masks = {"crf": block(1, slice(0, 9)), "walk": block(1, slice(0, 8)), "segment": block(1, slice(0, 1))}
    assert reason(differences(masks, (1,), 4), (1,), CLASSES) == "CAM + CRF calls 90 % of the image cow, the segmentation model 10 %"


def test_the_entropy_is_1_where_all_score_the_same_and_0_where_one_scores_alone():
    even, decided = np.full((1, 3, 4), 0.4, np.float16), np.stack([np.ones((3, 4)), np.zeros((3, 4))]).astype(np.float16)
    assert entropy(even, (1,), float(np.float16(0.4))) == pytest.approx(1)
    assert entropy(decided, (0, 1), 0.4) == pytest.approx(0)  # the maps have their own background
    assert entropy(np.zeros((0, 3, 4), np.float16), (), 0.4) == 0


@given(hnp.arrays(np.float32, (2, 3, 3), elements=st.floats(0, 1, width=32)), st.floats(0.01, 1))
def test_the_entropy_is_between_0_and_1(values, background):
    assert -1e-6 <= entropy(values, (1, 2), background) <= 1 + 1e-6


def test_the_miou_of_an_image_is_the_mean_over_the_classes_of_its_ground_truth():
    truth, mask = block(1, slice(0, 4)), block(1, slice(0, 2))
    truth[:, 9] = 255
    assert image_miou(truth, mask, 4) == pytest.approx((2 / 4 + 5 / 7) / 2)
    assert np.isnan(image_miou(np.full((4, 4), 255, np.uint8), np.zeros((4, 4), np.uint8), 4))
