import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.polynomial import chebyshev
from PIL import Image

import vwl
from tests.helpers import real_data
from vwl.errors import VwlError
from vwl.maps.affinity import path
from vwl.maps.random_walk import chebyshev_coefficients, walk


def transition_matrix(edge, radius, exponent):
    """The dense (hw, hw) matrix of the reference, in float64: pair by pair."""
    height, width = edge.shape
    matrix = np.eye(height * width)
    for first, (y, x) in enumerate(np.ndindex(height, width)):
        for second, (v, u) in enumerate(np.ndindex(height, width)):
            if first < second and (v - y) ** 2 + (u - x) ** 2 < radius**2:
                strongest = max(edge[y + b, x + a] for b, a in path(v - y, u - x))
                matrix[first, second] = matrix[second, first] = 1 - strongest
    matrix **= exponent
    return matrix / matrix.sum(axis=0)


def walk_dense(maps, edge, radius=5, exponent=10.0, steps=256):
    power = np.linalg.matrix_power(transition_matrix(edge.astype(float), radius, exponent), steps)
    return ((maps * (1 - edge.astype(float))).reshape(len(maps), -1) @ power).reshape(maps.shape)


def boundary_map(kind, shape):
    rng = np.random.default_rng(sum(shape))
    if kind == "lines":
        edge = np.zeros(shape)
        edge[shape[0] // 2] = edge[:, shape[1] // 3] = 0.97
        return edge
    return {"flat": np.full(shape, 0.02), "open": np.zeros(shape), "closed": np.ones(shape), "random": rng.random(shape)}[kind]


SHAPES = [(1, 1), (1, 9), (13, 1), (3, 17), (24, 23)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("kind", ["random", "flat", "lines", "open", "closed"])
def test_the_walk_equals_the_dense_matrix_power(shape, kind):
    edge, maps = boundary_map(kind, shape), np.random.default_rng(0).random((3, *shape))
    expected = walk_dense(maps, edge)
    np.testing.assert_allclose(walk(maps, edge, tolerance=1e-10, dtype=np.float64), expected, atol=1e-6)
    single = walk(maps.astype(np.float32), edge.astype(np.float32))
    assert single.dtype == np.float32
    np.testing.assert_allclose(single, expected, atol=1e-4 * maps.max())


@pytest.mark.parametrize("num_maps", [1, 20])
def test_on_the_edges_of_an_image_the_walk_equals_the_dense_matrix_power(num_maps):
    path = min((real_data("voc12mini") / "JPEGImages").glob("*.jpg"))
    grey = np.asarray(Image.open(path).convert("L").resize((29, 21)), float)
    edge = np.hypot(*np.gradient(grey))
    edge /= edge.max()
    maps = np.random.default_rng(0).random((num_maps, *edge.shape))
    expected = walk_dense(maps, edge)
    np.testing.assert_allclose(walk(maps, edge, tolerance=1e-10, dtype=np.float64), expected, atol=1e-6)
    np.testing.assert_allclose(walk(maps.astype(np.float32), edge.astype(np.float32)), expected, atol=1e-4 * maps.max())


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.integers(1, 8), st.integers(1, 8)), st.integers(1, 4), st.sampled_from([1, 2, 3, 7, 64]), st.sampled_from([0.5, 1.0, 8.0])
)
def test_the_walk_equals_the_dense_one_for_any_size_radius_exponent_and_number_of_steps(shape, radius, steps, exponent):
    rng = np.random.default_rng(steps)
    edge, maps = rng.random(shape), rng.random((2, *shape))
    found = walk(maps, edge, radius, exponent, steps, tolerance=1e-10, dtype=np.float64)
    np.testing.assert_allclose(found, walk_dense(maps, edge, radius, exponent, steps), atol=1e-6)


def test_the_series_equals_stepping_one_by_one():
    rng = np.random.default_rng(3)
    edge, maps = rng.random((11, 14)), rng.random((2, 11, 14))
    transition = transition_matrix(edge, 5, 10.0)
    stepped = (maps * (1 - edge)).reshape(2, -1)
    for _ in range(40):
        stepped = stepped @ transition
    np.testing.assert_allclose(walk(maps, edge, steps=40, tolerance=1e-10, dtype=np.float64).reshape(2, -1), stepped, atol=1e-8)


def test_every_class_walks_by_itself():
    rng = np.random.default_rng(4)
    edge, maps = rng.random((9, 12)), rng.random((5, 9, 12))
    together = walk(maps, edge)
    for k in range(5):
        np.testing.assert_array_equal(walk(maps[k : k + 1], edge)[0], together[k])


def test_a_constant_map_stays_constant():
    edge = np.zeros((10, 10), np.float32)
    np.testing.assert_allclose(walk(np.full((1, 10, 10), 0.7, np.float32), edge), 0.7, atol=1e-4)


def test_scores_do_not_cross_a_closed_boundary():
    edge, maps = np.zeros((12, 21), np.float32), np.zeros((1, 12, 21), np.float32)
    edge[:, 10] = 1
    maps[0, 6, 3] = 1
    spread = walk(maps, edge)[0]
    assert (spread[:, :10] > 1e-3).all()
    np.testing.assert_allclose(spread[:, 10:], 0, atol=1e-7)


def test_no_maps_give_no_maps():
    assert walk(np.zeros((0, 5, 6), np.float32), np.zeros((5, 6), np.float32)).shape == (0, 5, 6)


def test_stored_half_precision_and_read_only_maps_are_accepted():
    maps = np.random.default_rng(5).random((1, 6, 7)).astype(np.float16)
    maps.flags.writeable = False
    edge = boundary_map("random", (6, 7)).astype(np.float32)
    np.testing.assert_allclose(walk(maps, edge), walk_dense(maps.astype(float), edge), atol=1e-4)


@pytest.mark.parametrize("steps", [1, 2, 7, 256, 1001])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-5, 1e-9, 0])
def test_the_coefficients_give_the_power_within_the_tolerance(steps, tolerance):
    x = np.linspace(-1, 1, 501)
    coefficients = chebyshev_coefficients(steps, tolerance)
    assert len(coefficients) <= steps + 1
    np.testing.assert_allclose(chebyshev.chebval(x, coefficients), x**steps, rtol=0, atol=tolerance + 1e-11)


def test_256_steps_take_70_products():
    assert len(chebyshev_coefficients(256, 1e-5)) - 1 == 70


def test_an_exponent_that_tells_no_affinities_apart_is_refused():
    with pytest.raises(VwlError, match="exponent = 0"):
        walk(np.zeros((1, 2, 2)), np.zeros((2, 2)), exponent=0)


@pytest.mark.parametrize(("steps", "tolerance"), [(0, 1e-5), (256, -1.0)])
def test_a_series_without_meaning_is_refused(steps, tolerance):
    with pytest.raises(ValueError, match="steps must be 1 or more"):
        chebyshev_coefficients(steps, tolerance)


def test_a_boundary_map_of_another_size_is_refused():
    with pytest.raises(ValueError, match="boundary map"):
        walk(np.zeros((1, 2, 3)), np.zeros((3, 2)))


def test_an_install_where_nothing_can_be_written_walks_all_the_same(tmp_path):
    package = tmp_path / "vwl"
    shutil.copytree(Path(vwl.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    (package / "maps" / "__pycache__").write_text("a file, where the cache folder would be")
    nowhere = str(package / "maps" / "__pycache__" / "home")
    code = "import numpy as np; from vwl.maps.random_walk import walk; print(walk(np.ones((1, 2, 2)), np.zeros((2, 2))).round(3).tolist())"
    unwritable = {"HOME": nowhere, "XDG_CACHE_HOME": nowhere, "PYTHONDONTWRITEBYTECODE": "1"}
    environment = {key: value for key, value in os.environ.items() if key != "NUMBA_CACHE_DIR"} | unwritable
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[[[1.0, 1.0], [1.0, 1.0]]]", done.stderr
