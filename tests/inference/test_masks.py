"""The masks stage: the strongest of a constant background and the maps, at full size."""

import numpy as np
import pytest
import torch

from tests.inference.conftest import IMAGES
from vwl.inference.masks import MasksStage


@pytest.mark.parametrize("threshold", [0.0, 0.45, 1.0])
@pytest.mark.parametrize("name", IMAGES)
def test_a_mask_is_the_argmax_over_the_background_and_the_enlarged_maps(images, rows, maps, name, threshold):
    mask = MasksStage(maps, threshold, images)(rows[name])
    (height, width), labels = IMAGES[name]
    stored = torch.from_numpy(maps.read(name).values.astype(np.float32))
    layers = [np.full((height, width), threshold, np.float32)]
    for values in stored:
        layers.append(torch.nn.functional.interpolate(values[None, None], scale_factor=4, mode="bilinear")[0, 0, :height, :width].numpy())
    wanted = np.array([0, *labels])[np.argmax(layers, axis=0)]
    np.testing.assert_array_equal(mask, wanted)
    assert mask.dtype == np.uint8


def test_an_image_without_labels_is_background(images, rows, maps):
    mask = MasksStage(maps, 0.0, images)(rows["bare"])
    assert mask.shape == (40, 52)
    assert not mask.any()
