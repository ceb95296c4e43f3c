"""Outlines of the regions of a mask, simplified by GEOS (shapely).

Outlines follow the edges of pixels, so before simplification they are exact. All regions of an image are simplified together: a border
that two regions share stays one line, without gaps or overlaps (`shapely.coverage_simplify`, Visvalingam and Whyatt).
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import shapely
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial.distance import cdist

from vwl.exporters.regions import Numbered, Outline, Region, regions_of

_TOLERANCES = (1.0, 0.75, 0.5, 0.0)
"""What is tried without a given tolerance, pixels."""
_MAX_CHANGE = 0.01
"""Share of a region's area that the simplification may then add and take away."""


def outlined(numbered: Numbered, tolerance: float | None = None) -> list[Region]:
    """Return numbered regions with their outlines.

    Args:
        numbered: the regions of a mask.
        tolerance: corners are left out if the triangle with their neighbours is smaller than the square of `tolerance` (pixels); 0 keeps
            the exact outlines. Without it, regions that touch get the largest of 1, 0.75, 0.5 and 0 that changes at most 1 % of each.
    """
    if not numbered.class_ids:
        return []
    numbers = numbered.numbers
    faces = [face for face in _faces(numbers) if numbers[_first_pixel(face)]]
    found = [int(numbers[_first_pixel(face)]) for face in faces]
    groups = _groups(numbers)[found]
    tolerances, max_change = (_TOLERANCES, _MAX_CHANGE) if tolerance is None else ((tolerance, 0.0), np.inf)
    simple = _simplified(faces, groups, tolerances, max_change)
    by_number = {number: _outlines(face, simpler) for number, face, simpler in zip(found, faces, simple, strict=True)}
    regions = []
    for number, region in enumerate(regions_of(numbered), 1):
        outline, *holes = by_number[number]
        regions.append(replace(region, outline=outline, holes=tuple(holes)))
    return regions


def bridged(outline: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """Return one closed line (N, 2) around a region with holes, for formats that have no holes.

    A line to each hole and back, between the nearest corners, joins the hole to the outline; it has no width.

    Args:
        outline: (n, 2) corners.
        holes: corners of each hole.
    """
    joined, left = outline, list(holes)
    while left:
        distances = [cdist(joined, hole) for hole in left]
        nearest = int(np.argmin([found.min() for found in distances]))
        found, hole = distances[nearest], left.pop(nearest)
        here, there = np.unravel_index(int(found.argmin()), found.shape)
        around = np.roll(hole, -int(there), axis=0)
        joined = np.concatenate([joined[: here + 1], around, around[:1], joined[here:]])
    return joined


def _faces(numbers: np.ndarray) -> list[shapely.Polygon]:
    """Return a polygon for each connected area of equal numbers (H, W), background included, its outline with it on the left.

    "Left" is in the plane with y upwards; as images have y downwards, it looks clockwise.
    """
    padded = np.pad(numbers, 1, constant_values=-1)
    upright = np.argwhere(padded[1:-1, 1:] != padded[1:-1, :-1])[:, ::-1]  # x, y of the upper end of each edge between columns
    level = np.argwhere(padded[1:, 1:-1] != padded[:-1, 1:-1])[:, ::-1]  # x, y of the left end of each edge between rows
    edges = np.concatenate([np.stack([upright, upright + np.array([0, 1])], 1), np.stack([level, level + np.array([1, 0])], 1)])
    found = shapely.get_parts(shapely.polygonize(shapely.linestrings(edges.astype(np.float64))))
    return list(shapely.orient_polygons(found))


def _groups(numbers: np.ndarray) -> np.ndarray:
    """Return a number by region (its place is the region's number) that is equal for regions which touch, directly or through others."""
    count = int(numbers.max()) + 1
    sides = ((numbers[:, 1:], numbers[:, :-1]), (numbers[1:], numbers[:-1]))
    ones = np.concatenate([one[(one > 0) & (other > 0)] for one, other in sides])
    others = np.concatenate([other[(one > 0) & (other > 0)] for one, other in sides])
    touching = coo_array((np.ones(len(ones), bool), (ones, others)), shape=(count, count))
    return connected_components(touching, directed=False)[1]


def _simplified(faces: list[shapely.Polygon], groups: np.ndarray, tolerances: Sequence[float], max_change: float) -> np.ndarray:
    """Return each face simplified by the first of some tolerances that leaves polygons and changes at most a share of their area.

    Faces of a group get the same one: a border between a simplified face and an exact one would be two lines, which cross.
    The last tolerance is 0, which only takes away corners on straight lines.
    """
    area = shapely.area(faces)
    chosen, left = shapely.simplify(faces, 0), np.ones(len(faces), bool)
    for tolerance in filter(None, tolerances):
        found = shapely.coverage_simplify(faces, tolerance)
        fits = (shapely.get_type_id(found) == shapely.GeometryType.POLYGON) & ~shapely.is_empty(found)
        if np.isfinite(max_change):
            change = shapely.area(shapely.symmetric_difference(faces, found))
            fits &= change <= max_change * area
        taken = left & ~np.isin(groups, groups[~fits])
        chosen[taken] = found[taken]
        left &= ~taken
    return chosen


def _first_pixel(face: shapely.Polygon) -> tuple[int, int]:
    """Return row and column of the pixel on the inner side of a face's first edge."""
    column, row = _own_pixels(shapely.get_coordinates(face.exterior)[:-1])[0]
    return int(row), int(column)


def _own_pixels(ring: np.ndarray) -> np.ndarray:
    """Return the pixel (N, 2) of the region at each corner of an exact outline (N, 2), whose edges are one pixel long."""
    ahead = np.roll(ring, -1, axis=0) - ring
    behind = np.roll(ahead, 1, axis=0)
    inwards, inwards_behind = _left_of(ahead), _left_of(behind)
    is_corner = (ahead != behind).any(axis=1, keepdims=True)
    centres = ring + 0.5 * (inwards + np.where(is_corner, inwards_behind, ahead))
    return np.floor(centres).astype(np.int64)


def _left_of(directions: np.ndarray) -> np.ndarray:
    return np.stack([-directions[:, 1], directions[:, 0]], axis=1)


def _outlines(exact: shapely.Polygon, simplified: shapely.Polygon) -> list[Outline]:
    """Return the outline of a simplified polygon and those of its holes, with the pixels that its corners have in the exact one."""
    pixels: tuple[dict[tuple[float, ...], list[int]], ...] = ({}, {})  # of the outline and of holes, which may touch it in a corner
    for number, ring in enumerate(shapely.get_rings(exact)):
        corners = shapely.get_coordinates(ring)[:-1]
        pixels[number > 0].update(zip(map(tuple, corners.tolist()), _own_pixels(corners).tolist(), strict=True))
    outlines = []
    for number, ring in enumerate(shapely.get_rings(simplified)):
        corners = shapely.get_coordinates(ring)[:-1]
        outlines.append(Outline(corners, np.array([pixels[number > 0][tuple(corner)] for corner in corners.tolist()])))
    return outlines
