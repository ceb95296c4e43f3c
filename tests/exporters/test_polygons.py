"""Outlines: exact before simplification, close to the mask after it, and in common where regions touch."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from pycocotools import mask as coco_mask

from tests.exporters.sources import awkward, ious, noise, painted, real, ring, without_ignored

pytest.importorskip("shapely")

from vwl.exporters.polygons import bridged, outlined
from vwl.exporters.regions import number_regions


def outlined_regions(mask, tolerance=None):
    numbered = number_regions(mask)
    return outlined(numbered, tolerance), numbered.left_out


def filled(region, height, width):
    """A region as COCO fills its outline and cuts its holes."""

    def fill(outline):
        return coco_mask.decode(coco_mask.frPyObjects([outline.corners.ravel().tolist()], height, width))[..., 0].astype(bool)

    bitmap = fill(region.outline)
    for hole in region.holes:
        bitmap &= ~fill(hole)
    return bitmap


def drawn(region, height, width):
    """A region as Pillow fills the pixels of its outline with their border."""
    image = Image.new("1", (width, height))
    ImageDraw.Draw(image).polygon([tuple(corner) for corner in region.outline.pixels.tolist()], fill=1, outline=1)
    return np.array(image)


@pytest.mark.parametrize("mask", [*awkward(), *(noise(seed, num_classes=2 + seed % 4) for seed in range(10, 20))])
def test_exact_outlines_give_the_mask_again(mask):
    found, left_out = outlined_regions(mask, tolerance=0)
    assert left_out == 0
    parts = [(region.class_id, filled(region, *mask.shape)) for region in found]
    np.testing.assert_array_equal(painted(mask.shape, parts), without_ignored(mask))


@pytest.mark.parametrize("mask", [*awkward(), *(noise(seed) for seed in range(10, 20))])
def test_the_pixels_of_an_outline_filled_with_their_border_are_the_region(mask):
    for region in outlined_regions(mask, tolerance=0)[0]:
        if not region.holes:
            np.testing.assert_array_equal(drawn(region, *mask.shape), region.full_size(*mask.shape))


def test_a_hole_is_an_outline_of_its_own():
    frame, island, *_ = outlined_regions(ring(), tolerance=0)[0]
    assert len(frame.holes) == 1
    assert {tuple(corner) for corner in frame.holes[0].corners.tolist()} == {(6, 5), (13, 5), (13, 11), (6, 11)}
    assert {tuple(corner) for corner in frame.holes[0].pixels.tolist()} == {(5, 4), (13, 4), (13, 11), (5, 11)}
    assert (island.class_id, island.holes) == (2, ())


def test_straight_lines_have_no_corners_between_their_ends():
    mask = np.zeros((20, 30), np.uint8)
    mask[4:15, 6:25] = 1
    for tolerance in (0, None, 3.0):
        (region,), _ = outlined_regions(mask, tolerance=tolerance)
        assert {tuple(corner) for corner in region.outline.corners.tolist()} == {(6, 4), (25, 4), (25, 15), (6, 15)}


def test_the_outlines_of_real_masks_keep_their_shape_without_a_given_tolerance():
    counted = 0
    for mask in real():
        found = outlined_regions(mask)[0]
        # A region with a hole is stored as pixels and would say nothing about outlines.
        polygons = [region for region in found if not region.holes]
        exact = painted(mask.shape, [(region.class_id, region.full_size(*mask.shape)) for region in polygons])
        for fill in (filled, drawn):
            again = painted(mask.shape, [(region.class_id, fill(region, *mask.shape)) for region in polygons])
            values = ious(exact, again)
            counted += len(values)
            assert min(values, default=1) >= 0.98
        with_holes = painted(mask.shape, [(region.class_id, filled(region, *mask.shape)) for region in found])
        assert min(ious(mask, with_holes), default=1) >= 0.98
    assert counted >= 20


def test_a_larger_tolerance_leaves_fewer_corners():
    masks = real()[:5]
    counts = [sum(len(r.outline.corners) for mask in masks for r in outlined_regions(mask, tolerance=t)[0]) for t in (0, 0.75, 1, 2, 5)]
    assert counts == sorted(counts, reverse=True)
    assert counts[-1] < counts[0] / 5


def test_regions_that_touch_keep_one_border():
    shapely = pytest.importorskip("shapely")
    rows, columns = np.mgrid[:60, :80]
    mask = np.where((rows - 30) ** 2 + (columns - 40) ** 2 < 400, 1, 2).astype(np.uint8)
    found, _ = outlined_regions(mask, tolerance=2.0)
    parts = [shapely.Polygon(r.outline.corners, [hole.corners for hole in r.holes]) for r in found]
    assert shapely.area(shapely.union_all(parts)) == shapely.area(parts).sum() == mask.size
    assert len(found[0].outline.corners) < 60


def overlap(mask):
    """The area that belongs to two outlines of a mask, square pixels."""
    shapely = pytest.importorskip("shapely")
    parts = [shapely.Polygon(r.outline.corners, [hole.corners for hole in r.holes]) for r in outlined_regions(mask)[0]]
    return shapely.area(parts).sum() - shapely.area(shapely.union_all(parts))


def test_a_small_region_that_needs_its_exact_outline_is_not_covered_by_its_neighbour():
    # If only the large one were simplified, a pixel would belong to both, and its class would depend on what is painted last.
    rows, columns = np.mgrid[:40, :60]
    mask = ((rows - 20) ** 2 + (columns - 25) ** 2 < 300).astype(np.uint8)
    mask[(rows - 20) ** 2 + (columns - 42) ** 2 < 20] = 2
    assert overlap(mask) == pytest.approx(0, abs=1e-6)


def test_no_two_outlines_of_a_real_mask_overlap():
    assert [overlap(mask) for mask in real()] == pytest.approx([0] * 20, abs=1e-6)


def test_bridges_join_holes_to_the_outline():
    outline = np.array([[0, 0], [20, 0], [20, 10], [0, 10]])
    holes = [np.array([[2, 2], [2, 8], [8, 8], [8, 2]]), np.array([[12, 2], [12, 8], [18, 8], [18, 2]])]
    joined = bridged(outline, holes)
    assert len(joined) == 4 + 2 * (4 + 2)
    image = Image.new("1", (21, 11))
    ImageDraw.Draw(image).polygon([tuple(corner) for corner in joined.tolist()], fill=1)
    expected = np.ones((11, 21), bool)
    expected[3:8, 3:8] = expected[3:8, 13:18] = False
    assert (np.array(image) == expected).mean() > 0.98
