"""The images that a model takes: files, PIL images and arrays; what is none is one line."""

import numpy as np
import pytest
from PIL import ExifTags, Image

from tests.model_file.conftest import images_of
from vwl.errors import VwlError
from vwl.model_file.image_input import as_array


def test_files_pil_images_arrays_and_lists_are_taken(tiny_run, model):
    path = images_of(tiny_run)[0]
    pixels = np.array(Image.open(path))
    expected = model.predict(path).mask
    for found in (model.predict(str(path)), model.predict(Image.open(path)), model.predict(pixels), *model.predict([path, pixels])):
        np.testing.assert_array_equal(found.mask, expected)
    assert (expected.dtype, expected.shape) == (np.uint8, pixels.shape[:2])


def test_a_pil_image_is_turned_upright_like_its_file(tiny_run, model, tmp_path):
    image, exif = Image.open(images_of(tiny_run)[0]), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / "lying.png", exif=exif)
    found = model.predict(Image.open(tmp_path / "lying.png")).mask
    assert found.shape == image.size
    np.testing.assert_array_equal(found, model.predict(tmp_path / "lying.png").mask)


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8), 7, "missing.jpg", [3.0]]
)
def test_what_is_no_image_is_one_line(model, image):
    with pytest.raises(VwlError, match=r"is no image|does not exist"):
        model.predict(image)


def test_a_name_with_a_nul_is_refused():
    with pytest.raises(VwlError, match="is not the name of a file"):
        as_array("a\0b.jpg")
