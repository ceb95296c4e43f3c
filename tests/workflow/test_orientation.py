"""A photograph that lies on its side in the file is checked, trained, segmented and shown as the upright image."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.helpers import copy_run, tiny_scenes
from tests.orientation import STORED, TURNED, turned
from tests.trainings import make_data, tiny_spec
from vwl.data.check import check_index
from vwl.data.index import Index, read_index
from vwl.report.summary import image_panels
from vwl.storage.masks import decode_mask
from vwl.training.classifier import ClassifierTask
from vwl.workflow.model_export import model_of_run
from vwl.workflow.predict import predict_files


def store(index: Index, orientation: int) -> None:
    """Store each image of a data set under an orientation, without loss."""
    for row in index.rows:
        path = Path(index.root.path, row.image)
        path.write_bytes(turned(np.asarray(Image.open(path)), orientation))


@pytest.mark.parametrize("orientation", STORED)
def test_data_check_finds_that_upright_masks_fit(tmp_path, orientation):
    index = tiny_scenes(tmp_path / "scenes", 3, 1)
    before = index.fingerprint()
    store(index, orientation)
    assert check_index(index) == []
    assert index.fingerprint() == before


def test_data_check_says_of_a_mask_that_lies_on_its_side_that_the_image_is_upright(tmp_path):
    index = tiny_scenes(tmp_path / "scenes", 1, 0)
    path = Path(index.root.path, str(index.rows[0].mask))
    mask = Image.open(path)
    mask.transpose(Image.Transpose.ROTATE_90).save(path)
    (problem,) = check_index(index)
    assert problem.kind == "size"
    assert problem.message.endswith("; a mask must fit the image as it is shown upright, with its EXIF orientation applied")


@pytest.fixture(scope="module")
def samples(tmp_path_factory):
    """Samples of the classifier by the orientation that the images are stored under."""
    found = {}
    for orientation in STORED:
        folder = tmp_path_factory.mktemp(f"orientation{orientation}")
        index = read_index(make_data(folder))
        store(index, orientation)
        recipe = tiny_spec("classifier-L", folder / "index.parquet", folder).recipe
        task = ClassifierTask(recipe, index, index.split("train"), index.split("val"))
        found[orientation] = [task.sample(number, 0) for number in range(3)]
    return found


@pytest.mark.parametrize("orientation", TURNED)
def test_the_classifier_is_trained_on_upright_pixels(samples, orientation):
    for upright, sample in zip(samples[1], samples[orientation], strict=True):
        assert upright.keys() == sample.keys()
        assert all(torch.equal(upright[key], sample[key]) for key in upright)


def test_predict_gives_every_orientation_the_mask_and_overlay_of_the_upright_image(tiny_run, tmp_path):
    pixels = np.asarray(tiny_run.index.read_image(tiny_run.index.split("val")[0]))
    paths = [tmp_path / f"p{orientation}.png" for orientation in STORED]
    for path, orientation in zip(paths, STORED, strict=True):
        path.write_bytes(turned(pixels, orientation))
    upright, *others = predict_files(model_of_run(tiny_run), paths, tmp_path / "out", crf=True)
    assert decode_mask(Path(upright.mask).read_bytes(), "upright").shape == pixels.shape[:2]
    for prediction in others:
        assert Path(prediction.mask).read_bytes() == Path(upright.mask).read_bytes()  # an IoU of 1
        assert Path(prediction.overlay).read_bytes() == Path(upright.overlay).read_bytes()
        assert prediction.classes == upright.classes


def test_a_portrait_jpeg_is_segmented_like_its_upright_pixels(tiny_run, tmp_path):
    pixels = np.asarray(tiny_run.index.read_image(tiny_run.index.split("val")[0]).transpose(Image.Transpose.ROTATE_90))
    (tmp_path / "photo.jpg").write_bytes(turned(pixels, 6, "JPEG", quality=95))
    shown = np.asarray(Image.open(tmp_path / "photo.jpg").transpose(Image.Transpose.ROTATE_270))
    Image.fromarray(shown).save(tmp_path / "upright.png")
    photo, upright = predict_files(model_of_run(tiny_run), [tmp_path / "photo.jpg", tmp_path / "upright.png"], tmp_path / "out", crf=True)
    assert Path(photo.mask).read_bytes() == Path(upright.mask).read_bytes()
    assert decode_mask(Path(photo.mask).read_bytes(), "photo").shape == pixels.shape[:2]


@pytest.mark.parametrize("orientation", TURNED)
def test_the_report_shows_upright_pixels_under_the_masks(tiny_run, tmp_path, orientation):
    run = copy_run(tiny_run, tmp_path)
    row = run.index.split("val")[0]
    expected = [(panel.caption, panel.image) for panel in image_panels(run, row)]
    store(replace(run.index, rows=(row,)), orientation)
    found = [(panel.caption, panel.image) for panel in image_panels(run, row)]
    assert [caption for caption, _ in found] == [caption for caption, _ in expected]
    for (caption, image), (_, upright) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(image, upright, err_msg=caption)


def test_an_animation_is_segmented_by_its_first_frame(tiny_run, tmp_path):
    first = tiny_run.index.read_image(tiny_run.index.split("val")[0]).quantize(64)
    first.save(tmp_path / "first.png")
    black = Image.new("P", first.size)
    sink = io.BytesIO()
    first.save(sink, "GIF", save_all=True, append_images=[black])
    (tmp_path / "moving.gif").write_bytes(sink.getvalue())
    moving, still = predict_files(model_of_run(tiny_run), [tmp_path / "moving.gif", tmp_path / "first.png"], tmp_path / "out", crf=True)
    assert Path(moving.mask).read_bytes() == Path(still.mask).read_bytes()
