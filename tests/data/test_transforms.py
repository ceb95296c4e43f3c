import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from vwl.data.transforms import long_side_scale, normalise, random_crop, random_hflip, resize, resize_mask, scaled_size

sides = st.integers(1, 40)


def numbered(height: int, width: int) -> np.ndarray:
    """An image whose pixels hold their position: (row, column, 7)."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.full_like(rows, 7)], axis=2).astype(np.uint8)


@given(sides, sides, sides, st.integers(0, 1000))
def test_a_crop_is_a_part_of_the_image_and_padding(height, width, crop, seed):
    image, mask = numbered(height, width), np.full((height, width), 3, np.uint8)
    (cut, cut_mask), valid = random_crop([image, mask], [0, 255], crop, np.random.default_rng(seed))
    assert cut.shape == (crop, crop, 3)
    assert cut_mask.shape == valid.shape == (crop, crop)
    assert valid.sum() == min(height, crop) * min(width, crop)
    assert np.all(cut[~valid] == 0)
    assert np.all(cut_mask[~valid] == 255)
    assert np.all(cut_mask[valid] == 3)
    shown = cut[valid].reshape(min(height, crop), min(width, crop), 3).astype(int)
    assert np.all(np.diff(shown[:, :, 0], axis=0) == 1)
    assert np.all(np.diff(shown[:, :, 1], axis=1) == 1)


@pytest.mark.parametrize("size", [(9, 5), (5, 9), (9, 9), (5, 5)])
def test_every_offset_occurs(size):
    rng = np.random.default_rng(0)
    offsets = set()
    for _ in range(300):
        (cut,), valid = random_crop([numbered(*size)], [0], 7, rng)
        first = tuple(np.argwhere(valid)[0])
        offsets.add((*first, *cut[first][:2]))
    assert len(offsets) == 9


def test_a_random_hflip_flips_all_arrays_or_none():
    image, mask = numbered(4, 6), np.arange(24).reshape(4, 6).astype(np.uint8)
    seen = set()
    for seed in range(20):
        flipped, flipped_mask = random_hflip([image, mask], np.random.default_rng(seed))
        is_flipped = bool(flipped[0, 0, 1] == 5)
        np.testing.assert_array_equal(flipped, image[:, ::-1] if is_flipped else image)
        np.testing.assert_array_equal(flipped_mask, mask[:, ::-1] if is_flipped else mask)
        seen.add(is_flipped)
    assert seen == {True, False}


def test_normalise_applies_mean_and_std_and_sets_padding_to_zero():
    image, valid = numbered(3, 4) * 20, np.arange(12).reshape(3, 4) % 3 > 0
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    expected = (image / 255 - np.array(mean)) / np.array(std) * valid[:, :, None]
    values = normalise(image, mean, std, valid)
    assert values.dtype == torch.float32
    np.testing.assert_allclose(values.permute(1, 2, 0), expected, atol=1e-6)
    np.testing.assert_allclose(normalise(image, mean, std).permute(1, 2, 0)[valid], expected[valid], atol=1e-6)


@pytest.mark.parametrize(
    ("size", "scale", "expected"), [((100, 60), 0.5, (50, 30)), ((3, 400), 0.1, (1, 40)), ((375, 500, 3), 1.5, (562, 750))]
)
def test_scaled_sizes_are_rounded_and_at_least_one_pixel(size, scale, expected):
    assert scaled_size(size, scale) == expected


def test_long_side_scale_scales_the_longer_side():
    assert scaled_size((375, 500), long_side_scale((375, 500, 3), 320)) == (240, 320)
    assert scaled_size((500, 375), long_side_scale((500, 375), 640)) == (640, 480)
    assert long_side_scale((500, 375), None) == 1


def test_a_resized_mask_has_no_new_class():
    mask = np.random.default_rng(0).choice([0, 7, 255], (31, 45)).astype(np.uint8)
    assert set(np.unique(resize_mask(mask, 17, 80))) <= {0, 7, 255}
    assert resize_mask(mask, 17, 80).shape == (17, 80)


def test_images_are_resized_to_height_by_width():
    image = np.full((31, 45, 3), 90, np.uint8)
    assert np.array_equal(resize(image, 17, 80), np.full((17, 80, 3), 90))
    assert resize(image, 31, 45) is image
