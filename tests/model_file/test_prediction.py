"""The result of a prediction: a mask and an overlay that can be saved."""

import numpy as np
from PIL import Image

from tests.model_file.conftest import images_of, mask_in


def test_a_prediction_is_saved_as_mask_and_overlay(tiny_run, model, tmp_path):
    path = images_of(tiny_run)[0]
    prediction = model.predict(path)
    mask, overlay = prediction.save(tmp_path / "out")
    np.testing.assert_array_equal(mask_in(mask), prediction.mask)
    assert Image.open(mask).getpalette() == list(model.palette)
    np.testing.assert_array_equal(np.asarray(Image.open(overlay)), np.asarray(prediction.overlay()))
    assert prediction.classes == tuple(model.classes[i] for i in np.unique(prediction.mask) if i)
