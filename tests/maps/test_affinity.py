import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vwl.maps.affinity import affinities, pair_offsets, path


def distance_to_segment(point, end):
    point, end = np.array(point, float), np.array(end, float)
    nearest = np.clip(point @ end / (end @ end), 0, 1) * end
    return np.linalg.norm(point - nearest)


def affinity_of_pair(edge, start, offset):
    """1 - max over all cells nearer than 1 to the segment, by measuring every cell; 0 if the partner is outside."""
    end = (start[0] + offset[0], start[1] + offset[1])
    if not (0 <= end[0] < edge.shape[0] and 0 <= end[1] < edge.shape[1]):
        return 0
    cells = np.argwhere(np.ones(edge.shape, bool))
    return 1 - max(edge[y, x] for y, x in cells if distance_to_segment((y - start[0], x - start[1]), offset) < 1 - 1e-9)


@pytest.mark.parametrize(("radius", "number"), [(1, 0), (2, 4), (5, 34), (10, 152)])
def test_offsets_are_one_half_of_the_disc(radius, number):
    offsets = pair_offsets(radius)
    assert len(offsets) == number
    disc = {(y, x) for y in range(-20, 21) for x in range(-20, 21) if 0 < y * y + x * x < radius * radius}
    flipped = {(-y, -x) for y, x in offsets}
    assert set(offsets) | flipped == disc
    assert not set(offsets) & flipped


@pytest.mark.parametrize("offset", pair_offsets(6))
def test_a_path_has_the_cells_closer_than_one_to_the_segment(offset):
    near = {(y, x) for y in range(-9, 10) for x in range(-9, 10) if distance_to_segment((y, x), offset) < 1 - 1e-9}
    assert set(path(*offset)) == near
    assert {(0, 0), offset} <= near


@settings(max_examples=15, deadline=None)
@given(st.tuples(st.integers(1, 6), st.integers(1, 6)), st.integers(0, 10**6))
def test_affinities_equal_measuring_every_cell(shape, seed):
    edge = np.random.default_rng(seed).random(shape).astype(np.float32)
    found = affinities(edge, 4)
    assert found.dtype == np.float32
    for i, offset in enumerate(pair_offsets(4)):
        for start in np.ndindex(shape):
            assert found[i][start] == pytest.approx(affinity_of_pair(edge, start, offset), abs=1e-6)
