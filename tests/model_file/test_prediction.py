"""The result of a prediction: a mask and an overlay that can be saved."""

import numpy as np
import pytest
from PIL import Image

from tests.model_file.conftest import images_of, mask_in
from vwl.errors import VwlError


def test_a_prediction_is_saved_as_mask_and_overlay(tiny_run, model, tmp_path):
    path = images_of(tiny_run)[0]
    prediction = model.predict(path)
    mask, overlay = prediction.save(tmp_path / "out")
    np.testing.assert_array_equal(mask_in(mask), prediction.mask)
    assert Image.open(mask).getpalette() == list(model.palette)
    np.testing.assert_array_equal(np.asarray(Image.open(overlay)), np.asarray(prediction.overlay()))
    assert prediction.classes == tuple(model.classes[i] for i in np.unique(prediction.mask) if i)


def test_the_result_is_named_by_the_caller_and_stays_in_its_folder(model, tmp_path):
    prediction = model.predict(np.zeros((40, 50, 3), np.uint8))
    prediction.save(tmp_path / "out", "mine")
    prediction.save(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        *("image_mask.png", "image_overlay.png", "mine_mask.png", "mine_overlay.png")
    ]
    with pytest.raises(VwlError, match="leads out of its folder"):
        prediction.save(tmp_path / "out", "../mine")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
