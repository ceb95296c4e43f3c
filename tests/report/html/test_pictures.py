"""Pictures as data URIs: what a browser decodes from them."""

import base64
import io

import numpy as np
import pytest
from PIL import Image

from vwl.report.html.pictures import fitted, heat_layer, mask_layer, photo, subsampled
from vwl.report.overlays import display_palette

PALETTE = display_palette()


def decoded(uri):
    head, _, data = uri.partition(",")
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert head == f"data:image/{image.format.lower()};base64"
    return image


def test_a_photo_is_scaled_down_and_never_up():
    image = np.full((60, 90, 3), (200, 40, 40), np.uint8)
    assert decoded(photo(image, 45)).size == (45, 30)
    assert decoded(photo(image, 500)).size == (90, 60)
    assert np.abs(np.asarray(decoded(photo(image, 500)), int) - image).max() < 12


@pytest.mark.parametrize("ids", [(), (3,), (0, 3), (0, 1, 2, 7), tuple(range(17)), (5, 255), tuple(range(256))])
def test_a_mask_has_the_colours_of_its_classes_and_a_transparent_background(ids):
    mask = np.zeros((16, 24), np.uint8)
    mask.ravel()[: len(ids)] = ids
    found = np.asarray(decoded(mask_layer(mask, PALETTE, 100)).convert("RGBA"))
    assert np.array_equal(found[..., 3] == 0, mask == 0)
    assert np.array_equal(found[mask != 0][:, :3], np.asarray(PALETTE).reshape(256, 3)[mask[mask != 0]])
    assert set(found[mask == 255][:, 3].tolist()) <= {150}


def test_a_mask_is_scaled_down_by_nearest_pixels():
    mask = np.repeat(np.repeat(np.arange(12, dtype=np.uint8).reshape(3, 4), 10, axis=0), 10, axis=1)
    assert np.array_equal(subsampled(mask, 4), np.arange(12).reshape(3, 4))
    assert decoded(mask_layer(mask, PALETTE, 4)).size == (4, 3)


def test_a_heat_map_has_the_colour_of_the_strongest_class_and_its_score_as_opacity():
    maps = np.zeros((3, 32, 32), np.float32)
    maps[0] = 1.0  # the background's map is not drawn
    maps[1, :, :16], maps[2, :, 16:] = 0.8, 0.4
    found = np.asarray(decoded(heat_layer(maps, (0, 1, 2), PALETTE, 32, 90)).convert("RGBA"), int)
    assert np.abs(found[:, 2:14, 3] - 204).max() < 12
    assert np.abs(found[:, 18:30, 3] - 102).max() < 12
    assert np.abs(found[:, 2:14, :3] - np.asarray(PALETTE).reshape(256, 3)[1]).max() < 25


@pytest.mark.parametrize(("maps", "classes"), [(np.zeros((0, 5, 7)), ()), (np.full((1, 5, 7), np.nan), (4,)), (np.ones((1, 5, 7)), (0,))])
def test_a_heat_map_without_scores_is_transparent(maps, classes):
    layer = decoded(heat_layer(maps, classes, PALETTE, 50)).convert("RGBA")
    assert layer.size == (7, 5)
    assert np.asarray(layer)[..., 3].max() == 0


@pytest.mark.parametrize(
    ("size", "long_side", "expected"), [((10, 1000), 100, (1, 100)), ((3, 5), 100, (3, 5)), ((400, 300), 100, (100, 75))]
)
def test_sizes_that_fit(size, long_side, expected):
    assert fitted(*size, long_side) == expected
