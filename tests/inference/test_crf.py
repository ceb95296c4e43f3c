"""The CRF stage: masks of the maps that follow the image's colours."""

import numpy as np
import pytest

from tests.inference.conftest import IMAGES, save_index, save_maps
from vwl.inference.crf import CrfStage
from vwl.storage.folder import Folder


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_of_any_size_has_a_mask_of_its_labels(recipe, images, rows, maps, name):
    mask = CrfStage(recipe, images, maps, 0.5)(rows[name])
    size, labels = IMAGES[name]
    assert mask.shape == size
    assert mask.dtype == np.uint8
    assert set(np.unique(mask)) <= {0, *labels}


def test_an_image_without_labels_is_background(recipe, images, rows, maps):
    assert not CrfStage(recipe, images, maps, 0.0)(rows["bare"]).any()


def test_the_mask_ends_where_the_colour_changes(recipe, tmp_path):
    image = np.full((40, 60, 3), (200, 40, 40), np.uint8)
    image[:, 28:] = (30, 60, 210)
    index = save_index(tmp_path, {"halves": (image, (3,))}, ("background", "cat", "dog", "horse"))
    values = np.zeros((1, 10, 15))
    values[:, :, :9] = 1  # the map goes 8 pixels too far
    mask = CrfStage(recipe, index, save_maps(Folder(tmp_path / "maps"), index, {"halves": values}), 0.4)(index.rows[0])
    np.testing.assert_array_equal(mask, np.repeat(3 * (np.arange(60) < 28)[None], 40, axis=0))


@pytest.mark.parametrize(("background", "is_object"), [(9.0, False), (-9.0, True)])
def test_the_given_score_of_the_background_decides(recipe, images, rows, maps, background, is_object):
    mask = CrfStage(recipe, images, maps, background)(rows["even"])
    assert ((mask > 0) == is_object).all()
