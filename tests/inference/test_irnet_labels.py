"""The stage of IRNet's labels: what two thresholds agree on, and 255 between them."""

import numpy as np
import pytest

from tests.inference.conftest import IMAGES, save_index, save_maps
from vwl.config.recipe import IrnetLabels
from vwl.inference.irnet_labels import IrnetLabelsStage
from vwl.storage.folder import Folder


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_of_any_size_has_labels_or_255_everywhere(recipe, images, rows, maps, name):
    labels = IrnetLabelsStage(recipe, images, maps)(rows[name])
    size, ids = IMAGES[name]
    assert labels.shape == size
    assert labels.dtype == np.uint8
    assert set(np.unique(labels)) <= {0, 255, *ids}


def test_an_image_without_labels_is_confident_background(recipe, images, rows, maps):
    assert not IrnetLabelsStage(recipe, images, maps)(rows["bare"]).any()


def test_scores_above_below_and_between_the_thresholds_are_object_background_and_ignored(recipe, tmp_path):
    recipe = recipe.model_copy(update={"irnet_labels": IrnetLabels(background_threshold=0.05, foreground_threshold=0.3)})
    image = np.repeat(np.array([[(220, 30, 30), (30, 220, 30), (30, 30, 220)]], np.uint8).repeat(24, axis=1), 40, axis=0)
    index = save_index(tmp_path, {"bands": (image, (2,))}, ("background", "cat", "dog"))
    values = np.repeat(np.array([0.9, 0.15, 0.01]), 6)[None, None].repeat(10, axis=1)
    labels = IrnetLabelsStage(recipe, index, save_maps(Folder(tmp_path / "maps"), index, {"bands": values}))(index.rows[0])
    np.testing.assert_array_equal(labels, np.repeat([[2, 255, 0]], 24, axis=1).repeat(40, axis=0))
