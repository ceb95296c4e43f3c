"""The connected regions of a mask, and run lengths."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.exporters.sources import awkward, painted, ring, without_ignored
from vwl.exporters.regions import coco_rle, number_regions, regions_of, run_lengths


def regions(mask, min_area=0):
    numbered = number_regions(mask, min_area)
    return list(regions_of(numbered)), numbered.left_out


@pytest.mark.parametrize("mask", awkward())
def test_the_regions_of_a_mask_are_its_object_pixels(mask):
    found, left_out = regions(mask)
    assert left_out == 0
    parts = [(region.class_id, region.full_size(*mask.shape)) for region in found]
    np.testing.assert_array_equal(painted(mask.shape, parts), without_ignored(mask))
    assert sum(region.area for region in found) == np.count_nonzero(without_ignored(mask))


def test_pixels_that_touch_at_a_corner_are_two_regions():
    found, _ = regions(ring())
    assert [(region.class_id, region.area) for region in found] == [(1, 126), (2, 6), (3, 1), (4, 18), (5, 1), (5, 1)]
    assert found[1].box == (8, 7, 3, 2)


def test_small_regions_are_left_out_and_counted():
    found, left_out = regions(ring(), min_area=6)
    assert ([region.class_id for region in found], left_out) == ([1, 2, 4], 3)


@pytest.mark.parametrize("mask", awkward())
def test_run_lengths_give_the_bitmap_again(mask):
    bitmap = mask == 1
    lengths = run_lengths(bitmap.ravel())
    np.testing.assert_array_equal(np.repeat(np.arange(len(lengths)) % 2 == 1, lengths), bitmap.ravel())
    np.testing.assert_array_equal(coco_mask.decode(coco_rle(bitmap)), bitmap)


def test_small_holes_are_filled_and_larger_ones_stay():
    mask = np.ones((12, 16), np.uint8)
    mask[2, 2] = mask[5, 5:7] = 0
    mask[8:11, 8:12] = 0
    numbered = number_regions(mask, min_area=3)
    assert (numbered.filled, numbered.numbers[2, 2], numbered.numbers[5, 5], numbered.numbers[9, 9]) == (2, 1, 1, 0)


def test_a_small_region_in_a_hole_becomes_part_of_what_surrounds_it():
    mask = np.ones((9, 9), np.uint8)
    mask[4, 4] = 2
    numbered = number_regions(mask, min_area=3)
    assert (numbered.class_ids, numbered.left_out, numbered.filled) == ([1], 1, 1)
    assert (numbered.numbers == 1).all()


def test_bays_gaps_between_regions_and_ignored_pixels_are_not_filled():
    mask = np.ones((9, 9), np.uint8)
    mask[:, 5:] = 2
    mask[0, 2] = 0  # at the border of the image
    mask[4, 4] = 0  # between two regions
    mask[6, 2] = 255
    numbered = number_regions(mask, min_area=3)
    assert numbered.filled == 0
    np.testing.assert_array_equal(numbered.numbers == 0, (mask == 0) | (mask == 255))
