"""Formats of other methods' maps: told apart by their keys, their class ids shifted, and what is wrong with a file said in words."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vwl.constants import map_size
from vwl.errors import VwlError
from vwl.maps.cam import downsample, upsample
from vwl.maps.seed_formats import FORMATS, detect, has_background, read_seeds
from vwl.maps.seed_scores import with_background

H, W = 10, 14
GRID = map_size(H, W)
NUM_OBJECTS = 20
RNG = np.random.default_rng(0)
SMALL = RNG.random((2, *GRID)).astype(np.float32)
FULL = upsample(SMALL, H, W)
LABELS = (3, 15)
KEYS = np.array([2, 14])


def read(content, name=None, labels=LABELS, num_objects=NUM_OBJECTS):
    return read_seeds(content, name or detect(content, labels), labels, num_objects, H, W)


BY_NAME = [
    ("irn", {"keys": KEYS, "cam": SMALL, "high_res": FULL}),
    ("irn", {"keys": KEYS, "cam": SMALL}),
    ("puzzle", {"keys": np.array([0, 3, 15]), "cam": SMALL, "hr_cam": FULL}),
    ("puzzle", {"keys": np.array([0, 3, 15]), "rw": FULL}),
    ("clip-es", {"keys": KEYS, "attn_highres": FULL.astype(np.float16)}),
    ("toco", {"keys": KEYS, "high_res": FULL}),
    ("excel", {"keys_gt": KEYS, "valid_lam": np.concatenate([FULL[:1] * 0, FULL])}),
    ("excel", {"keys_gt": KEYS, "valid_lam": FULL}),
    ("excel", {"keys_gt": np.zeros(0, int), "keys": KEYS, "valid_cam": FULL}),
    ("weaktr", {"keys": np.array([0, 3, 15]), "prob": np.concatenate([FULL[:1] * 0, FULL])}),
    ("logits", {"msc_seg": np.zeros((1, NUM_OBJECTS + 1, H, W))}),
    ("logits", {"segs": np.zeros((NUM_OBJECTS + 1, H, W)), "msc_segs": np.zeros((NUM_OBJECTS + 1, H, W))}),
    ("psa", {2: FULL[0], 14: FULL[1]}),
    ("psa", {np.int64(14): FULL[1], np.int64(2): FULL[0]}),
    ("psa-crf", {0: FULL[0] * 0, 3: FULL[0], 15: FULL[1]}),
    ("array", SMALL),
    ("array", np.zeros((NUM_OBJECTS, H, W))),
    ("array", np.zeros((NUM_OBJECTS + 1, H, W))),
]


@pytest.mark.parametrize(("name", "content"), BY_NAME)
def test_each_format_is_told_by_its_keys_and_gives_the_labels_classes(name, content):
    assert detect(content, LABELS) == name
    found = read(content)
    background = has_background(content, name, NUM_OBJECTS)
    assert found.classes == ((0, *LABELS) if background else LABELS)
    assert found.maps.shape == (len(found.classes), *GRID)
    assert (found.maps.dtype, found.left_out) == (np.float32, ())
    assert 0 <= found.maps.min() <= found.maps.max() <= 1
    if not FORMATS[name].outputs and name != "array":
        assert np.abs(found.maps[-2:] - SMALL).max() < 1e-3


@pytest.mark.parametrize(
    ("labels", "keys", "name"),
    [
        ((1,), [0], "psa"),
        ((1,), [0, 1], "psa-crf"),
        ((1, 2), [0, 1], "psa"),
        ((1, 2), [0, 1, 2], "psa-crf"),
        ((2,), [1], "psa"),
        ((), [], "psa"),
    ],
)
def test_the_labels_tell_whether_class_0_is_the_background_or_the_first_object(labels, keys, name):
    assert detect(dict.fromkeys(keys, FULL[0]), labels) == name


@pytest.mark.parametrize(("total", "name"), [(1.0, "psa-crf"), (1.7, "psa")])
def test_maps_that_add_up_to_one_have_a_background_where_the_labels_do_not_tell(total, name):
    assert detect({0: FULL[0], 4: total - FULL[0]}, (7,)) == name


@pytest.mark.parametrize(
    "content", [{"keys": np.zeros(0), "cam": np.zeros(0)}, {"keys": [], "cam": np.zeros((0, *GRID))}, {}, np.zeros((0, H, W))]
)
def test_a_file_without_classes_has_no_maps(content):
    found = read(content)
    assert (found.classes, found.maps.shape) == ((), (0, *GRID))


@pytest.mark.parametrize("labels", [(), (3,)])
def test_one_minus_max_of_no_maps_is_background_everywhere(labels):
    classes, maps = with_background(labels, SMALL[: len(labels)])
    assert classes == (0, *labels)
    assert np.array_equal(maps[0], 1 - SMALL[0] if labels else np.ones(GRID))


def test_classes_are_put_in_ascending_order():
    found = read({"keys": np.array([14, 2]), "cam": SMALL[::-1]})
    assert found.classes == LABELS
    assert np.array_equal(found.maps, SMALL)


def test_classes_that_are_not_labels_are_left_out():
    found = read({"keys": KEYS, "cam": SMALL}, labels=(15,))
    assert (found.classes, found.left_out) == ((15,), (3,))
    assert np.array_equal(found.maps, SMALL[1:])


def test_negative_scores_become_0_and_scores_above_1_are_divided_by_their_maximum():
    found = read({"keys": KEYS, "cam": np.stack([SMALL[0] * 4 - 1, SMALL[1] / 2])})
    assert found.maps[0].min() == 0
    assert found.maps[0].max() == pytest.approx(1)
    assert np.array_equal(found.maps[1], SMALL[1] / 2)


@pytest.mark.parametrize("keys", [[0, 3], [3], [0], [7], [0, 7], []])
def test_a_network_may_predict_other_classes_than_the_labels_and_no_background(keys):
    found = read({"keys": np.array(keys, int), "prob": RNG.normal(size=(len(keys), H, W))}, "weaktr")
    assert found.classes == ((0, 3) if 3 in keys else (0,))
    assert found.left_out == ((7,) if 7 in keys else ())
    assert np.abs(found.maps.sum(axis=0) - 1).max() < 1e-4
    if keys == [3]:
        assert found.maps[0].max() == 0


def test_probabilities_are_not_put_through_a_softmax_again():
    outputs = RNG.normal(size=(3, H, W))
    probabilities = np.exp(outputs) / np.exp(outputs).sum(axis=0)
    keys = np.array([0, *LABELS])
    assert np.allclose(read({"keys": keys, "prob": outputs}).maps, read({"keys": keys, "prob": probabilities}).maps, atol=1e-5)


def test_scores_beside_a_background_keep_their_proportions():
    found = read({0: FULL[0] * 6, 3: FULL[0] * 2, 15: FULL[1]})
    inside = found.maps[0] < 1
    assert np.abs(found.maps[0] / 3 - found.maps[1])[inside].max() < 1e-3


@pytest.mark.parametrize(
    ("content", "name", "message"),
    [
        ({"a": 1, "b": 2}, None, "has the keys a, b, which are of no known format"),
        (np.zeros((H, W), int), None, "whole numbers, segment ids or a mask, not score maps"),
        (np.zeros((5, H, W)), None, "has 5 maps, which are neither of its 2 labels nor of all 20 objects"),
        (np.zeros(H), None, r"is no array \(K, H, W\)"),
        ({"keys": KEYS, "cam": SMALL[:, 1:]}, None, r"has maps of shape \(2, 2, 4\) for 2 classes of an image of 10 x 14 pixels"),
        ({"keys": KEYS[:1], "cam": SMALL}, None, "for 1 classes"),
        ({"keys": KEYS, "cam": SMALL.transpose(0, 2, 1)}, None, "has maps of shape"),
        ({"keys": KEYS, "cam": np.where(SMALL > 0.5, np.nan, SMALL)}, None, "not finite"),
        ({"keys": KEYS, "cam": np.full((2, *GRID), np.inf)}, None, "not finite"),
        ({"keys": KEYS, "cam": SMALL.astype(str)}, None, "not numbers"),
        ({"keys": KEYS, "cam": [[1], [2, 3]]}, None, "not numbers"),
        ({"keys": KEYS, "cam": None}, None, "not numbers"),
        ({"keys": ["cat", "dog"], "cam": SMALL}, None, "'keys' that are not class ids"),
        ({"keys": KEYS + 0.5, "cam": SMALL}, None, "'keys' that are not class ids"),
        ({"keys": np.array([2, 20]), "cam": SMALL}, None, "has a map of class 21, where the data set has 1 to 20"),
        ({"keys": np.array([-2, 2]), "cam": SMALL}, None, "has a map of class -1"),
        ({"keys": np.array([2, 2]), "cam": SMALL}, None, "two maps of one class"),
        ({"keys": np.array([3, 15]), "cam": SMALL}, None, r"classes 4, 16, none of them a label of the image \(3, 15\); check --format"),
        ({"cam": SMALL}, None, "has no key 'keys'; it has cam"),
        ({"keys": KEYS, "cam": SMALL}, "toco", "has none of the keys high_res; it has keys, cam"),
        ({"keys": KEYS, "cam": SMALL}, "puzzle", "where puzzle has a leading 0"),
        ({"keys": KEYS, "cam": SMALL}, "psa", "is no dict of maps by class id"),
        ({2: FULL[0], 14: SMALL[1]}, None, "has maps of several sizes"),
        (SMALL, "irn", "has no key 'keys'"),
    ],
)
def test_what_is_wrong_with_a_file_is_said(content, name, message):
    with pytest.raises(VwlError, match=message):
        read(content, name)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (4, 5), (5, 4), (16, 17), (63, 130)])
def test_a_map_that_was_enlarged_comes_back(size):
    maps = RNG.random((3, *map_size(*size))).astype(np.float32)
    assert np.abs(downsample(upsample(maps, *size)) - maps).max() < 1e-5


def test_no_other_map_is_nearer_once_it_is_enlarged():
    full = (RNG.random((1, 30, 33)) > 0.5).astype(np.float32)
    found = downsample(full)
    distance = ((upsample(found, 30, 33) - full) ** 2).sum()
    for _ in range(20):
        other = found + RNG.normal(scale=0.01, size=found.shape).astype(np.float32)
        assert ((upsample(other, 30, 33) - full) ** 2).sum() >= distance


NAMES = (
    "keys",
    "keys_gt",
    "cam",
    "high_res",
    "hr_cam",
    "rw",
    "attn_highres",
    "valid_lam",
    "prob",
    "msc_seg",
    0,
    2,
    14,
    np.int64(3),
    -1,
    10**30,
)
VALUES = (
    KEYS, [0, 3, 15], [], None, "text", 3.5, np.inf, True, [[1], [2, 3]], {}, np.array([np.inf]), np.array([{}], object), np.array(2), 10**30, b"x",
    SMALL, FULL, FULL[0], FULL[None], SMALL[:0], SMALL.astype(complex), SMALL > 0.5, (FULL * 255).astype(np.uint8), np.full(FULL.shape, -np.inf),
    np.full(FULL.shape, 1e38), np.full(FULL.shape, 1e300), np.zeros((21, H, W)),
)  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), st.sampled_from(range(len(VALUES))), max_size=4), st.sampled_from([None, *FORMATS]))
@settings(max_examples=2000)
def test_whatever_a_file_holds_it_is_read_or_refused(numbers, name):
    content = {key: VALUES[number] for key, number in numbers.items()}
    try:
        found = read(content, name)
        has_background(content, name or detect(content, LABELS), NUM_OBJECTS)
    except VwlError:
        return
    assert found.maps.shape == (len(found.classes), *GRID)
    assert np.isfinite(found.maps).all()
    assert 0 <= found.maps.min(initial=0) <= found.maps.max(initial=0) <= 1
    assert set(found.classes) <= {0, *LABELS}


@pytest.mark.parametrize("name", [None, *FORMATS])
@pytest.mark.parametrize(
    "value", [value for value in VALUES if isinstance(value, np.ndarray)], ids=lambda value: f"{value.shape} {value.dtype}"
)
def test_an_array_is_read_or_refused(name, value):
    try:
        found = read(value, name)
    except VwlError:
        return
    assert found.maps.shape == (len(found.classes), *GRID)
