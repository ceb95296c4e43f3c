"""The connected regions of a mask, and run lengths."""

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.exporters.sources import awkward, painted, ring, without_ignored
from vwl.exporters.regions import coco_rle, number_regions, regions_of, run_lengths


def regions(mask, min_area=0):
    numbers, class_ids, left_out = number_regions(mask, min_area)
    return list(regions_of(numbers, class_ids)), left_out


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
