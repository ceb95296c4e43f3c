"""The segment stage: probabilities over scales and mirror images, and masks with and without the CRF."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inference.conftest import PHOTOS, draw
from vwl.crf.dense_crf import crf_probabilities
from vwl.inference.segment import SegmentStage
from vwl.models.deeplab import DeepLabV2


def stage(recipe, index, model, **segment):
    return SegmentStage(recipe.model_copy(update={"segment": recipe.segment.model_copy(update=segment)}), index, model)


@pytest.fixture
def unsure(recipe):
    """Make a network of any number of classes with given biases of the classes; its weights are too small to matter."""

    def make(biases):
        torch.manual_seed(0)
        model = DeepLabV2(recipe.segmenter, len(biases)).eval()
        with torch.no_grad():
            for weight in model.aspp_weights():
                weight.mul_(1e-3)
            model.aspp_biases()[0].copy_(torch.tensor(biases))
        return model

    return make


@pytest.mark.parametrize("long_side", [None, 96])
@pytest.mark.parametrize("name", PHOTOS)
def test_a_photograph_of_any_size_has_probabilities_that_sum_to_1(recipe, photos, rows, segmenter, name, long_side):
    photo = np.asarray(photos.read_image(rows[name]))
    found = stage(recipe, photos, segmenter, long_side=long_side, scales=(1.0, 0.5)).probabilities(photo)
    assert found.shape == (3, *PHOTOS[name][0])
    assert found.dtype == np.float32
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("crf", [True, False])
@pytest.mark.parametrize("name", PHOTOS)
def test_a_photograph_of_any_size_has_a_mask_of_classes(recipe, photos, rows, segmenter, name, crf):
    mask = stage(recipe, photos, segmenter, crf=crf)(rows[name])
    assert mask.shape == PHOTOS[name][0]
    assert mask.dtype == np.uint8
    assert mask.max() <= 2


@pytest.mark.parametrize("mirror", [True, False])
def test_probabilities_are_the_mean_over_scales_of_those_of_photograph_and_mirror_image(recipe, photos, rows, segmenter, mirror):
    photo = np.asarray(photos.read_image(rows["odd"]))
    backbone, scales, total = segmenter.backbone, (1.0, 0.75, 1.25), 0
    for scale in scales:
        size = tuple(round(side * scale * 96 / 61) for side in (61, 47))
        resized = np.asarray(Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC)) / 255
        logits = []
        for turn in (1, -1) if mirror else (1,):
            pixels = ((resized[:, ::turn] - backbone.mean) / backbone.std).transpose(2, 0, 1).astype(np.float32)
            with torch.inference_mode():
                logits.append(segmenter.fused(torch.from_numpy(pixels)[None])[0].numpy()[:, :, ::turn])
        whole = torch.nn.functional.interpolate(torch.from_numpy(np.mean(logits, axis=0))[None], (47, 61), mode="bilinear")[0].numpy()
        powers = np.exp(whole - whole.max(axis=0))
        total = total + powers / powers.sum(axis=0)
    found = stage(recipe, photos, segmenter, hflip=mirror, scales=scales).probabilities(photo)
    assert found.std() > 0.01
    np.testing.assert_allclose(found, total / len(scales), atol=1e-4)


@pytest.mark.parametrize("name", ["even", "odd", "flat"])
def test_the_mirror_image_of_a_photograph_has_the_mirror_image_of_its_probabilities(recipe, photos, rows, segmenter, name):
    photo = np.asarray(photos.read_image(rows[name]))
    found = stage(recipe, photos, segmenter).probabilities(photo)
    mirrored = stage(recipe, photos, segmenter).probabilities(np.ascontiguousarray(photo[:, ::-1]))
    np.testing.assert_allclose(mirrored, found[:, :, ::-1], atol=1e-4)


def test_without_the_crf_the_mask_is_the_likeliest_class(recipe, photos, rows, segmenter):
    made = stage(recipe, photos, segmenter, crf=False)
    photo = np.asarray(photos.read_image(rows["even"]))
    np.testing.assert_array_equal(made.mask(photo), made.probabilities(photo).argmax(axis=0))


def test_image_labels_are_not_used(recipe, photos, rows, segmenter):
    made = stage(recipe, photos, segmenter)
    np.testing.assert_array_equal(made(rows["bare"]), made.mask(np.array(photos.read_image(rows["bare"]))))


def test_leaving_out_improbable_classes_does_not_change_the_mask(recipe, photos, unsure):
    made, photo = stage(recipe, photos, unsure([0.2, 0.0, -8.0, 0.1, -9.0])), draw(24, 32, 7)
    probabilities = made.probabilities(photo)
    assert [bool(p.max() > 0.05) for p in probabilities] == [True, True, False, True, False]
    unpruned = crf_probabilities(photo, probabilities, recipe.segment.kernels).argmax(axis=0)
    np.testing.assert_array_equal(made.mask(photo), unpruned)


def test_a_mask_is_found_where_no_class_is_probable(recipe, photos, unsure):
    made, photo = stage(recipe, photos, unsure([0.0] * 50 + [0.5] + [0.0] * 30)), draw(9, 8, 7)
    assert made.probabilities(photo).max() < 0.05
    assert (made.mask(photo) == 50).all()
