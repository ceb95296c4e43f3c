"""The segment stage: probabilities over scales and horizontal flips, and masks with and without the CRF."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inference.conftest import IMAGES, draw
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
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_of_any_size_has_probabilities_that_sum_to_1(recipe, images, rows, segmenter, name, long_side):
    image = np.asarray(images.read_image(rows[name]))
    found = stage(recipe, images, segmenter, long_side=long_side, scales=(1.0, 0.5)).probabilities(image)
    assert found.shape == (3, *IMAGES[name][0])
    assert found.dtype == np.float32
    assert (found >= 0).all()
    np.testing.assert_allclose(found.sum(axis=0), 1, atol=1e-5)


@pytest.mark.parametrize("crf", [True, False])
@pytest.mark.parametrize("name", IMAGES)
def test_an_image_of_any_size_has_a_mask_of_classes(recipe, images, rows, segmenter, name, crf):
    mask = stage(recipe, images, segmenter, crf=crf)(rows[name])
    assert mask.shape == IMAGES[name][0]
    assert mask.dtype == np.uint8
    assert mask.max() <= 2


@pytest.mark.parametrize("hflip", [True, False])
def test_probabilities_are_the_mean_over_scales_of_those_of_image_and_horizontal_flip(recipe, images, rows, segmenter, hflip):
    image = np.asarray(images.read_image(rows["odd"]))
    backbone, scales, total = segmenter.backbone, (1.0, 0.75, 1.25), 0
    for scale in scales:
        size = tuple(round(side * scale * 96 / 61) for side in (61, 47))
        resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) / 255
        logits = []
        for turn in (1, -1) if hflip else (1,):
            pixels = ((resized[:, ::turn] - backbone.mean) / backbone.std).transpose(2, 0, 1).astype(np.float32)
            with torch.inference_mode():
                logits.append(segmenter.fused(torch.from_numpy(pixels)[None])[0].numpy()[:, :, ::turn])
        whole = torch.nn.functional.interpolate(torch.from_numpy(np.mean(logits, axis=0))[None], (47, 61), mode="bilinear")[0].numpy()
        powers = np.exp(whole - whole.max(axis=0))
        total = total + powers / powers.sum(axis=0)
    found = stage(recipe, images, segmenter, hflip=hflip, scales=scales).probabilities(image)
    assert found.std() > 0.01
    np.testing.assert_allclose(found, total / len(scales), atol=1e-4)


@pytest.mark.parametrize("name", ["even", "odd", "flat"])
def test_the_horizontal_flip_of_an_image_has_the_horizontal_flip_of_its_probabilities(recipe, images, rows, segmenter, name):
    image = np.asarray(images.read_image(rows[name]))
    found = stage(recipe, images, segmenter).probabilities(image)
    flipped = stage(recipe, images, segmenter).probabilities(np.ascontiguousarray(image[:, ::-1]))
    np.testing.assert_allclose(flipped, found[:, :, ::-1], atol=1e-4)


def test_without_the_crf_the_mask_is_the_likeliest_class(recipe, images, rows, segmenter):
    made = stage(recipe, images, segmenter, crf=False)
    image = np.asarray(images.read_image(rows["even"]))
    np.testing.assert_array_equal(made.mask(image), made.probabilities(image).argmax(axis=0))


def test_image_labels_are_not_used(recipe, images, rows, segmenter):
    made = stage(recipe, images, segmenter)
    np.testing.assert_array_equal(made(rows["bare"]), made.mask(np.array(images.read_image(rows["bare"]))))


def test_leaving_out_improbable_classes_does_not_change_the_mask(recipe, images, unsure):
    made, image = stage(recipe, images, unsure([0.2, 0.0, -8.0, 0.1, -9.0])), draw(24, 32, 7)
    probabilities = made.probabilities(image)
    assert [bool(p.max() > 0.05) for p in probabilities] == [True, True, False, True, False]
    unpruned = crf_probabilities(image, probabilities, recipe.segment.kernels).argmax(axis=0)
    np.testing.assert_array_equal(made.mask(image), unpruned)


def test_a_mask_is_found_where_no_class_is_probable(recipe, images, unsure):
    made, image = stage(recipe, images, unsure([0.0] * 50 + [0.5] + [0.0] * 30)), draw(9, 8, 7)
    assert made.probabilities(image).max() < 0.05
    assert (made.mask(image) == 50).all()


@pytest.mark.parametrize("hflip", [True, False])
def test_images_that_pass_through_the_network_together_have_the_probabilities_of_each_alone(recipe, images, rows, segmenter, hflip):
    found = stage(recipe, images, segmenter, hflip=hflip, scales=(1.0, 0.5))
    image = np.asarray(images.read_image(rows["odd"]))
    group = [image, image[::-1].copy(), 255 - image]
    for one, together in zip(group, found.batch_probabilities(group), strict=True):
        np.testing.assert_allclose(together, found.probabilities(one), atol=1e-5)
    np.testing.assert_array_equal(found.batch_probabilities([image])[0], found.probabilities(image))


def test_images_that_are_cut_into_tiles_pass_one_by_one(recipe, images, rows, segmenter):
    found = stage(recipe, images, segmenter, tile=64, long_side=96)
    group = [np.asarray(images.read_image(rows["odd"]))] * 2
    for together in found.batch_probabilities(group):
        np.testing.assert_array_equal(together, found.probabilities(group[0]))


@pytest.mark.parametrize("crf", [True, False])
def test_a_mask_kept_to_given_classes_has_these_and_the_background_only(recipe, images, rows, unsure, crf):
    image = np.asarray(images.read_image(rows["odd"]))
    found = stage(recipe, images, unsure([0.0, 3.0, 1.0, -9.0]), scales=(1.0,))
    probabilities = found.probabilities(image)
    assert set(np.unique(found.mask(image, crf))) == {1}
    for classes, best in (((2,), 2), ((2, 3), 2), ((3,), 0), ((), 0), ((1, 2), 1)):
        soft = found.refined(image, probabilities, crf, classes)
        assert set(soft.class_ids) <= {0, *classes}
        np.testing.assert_allclose(soft.scores.sum(axis=0), 1, atol=1e-5)
        np.testing.assert_array_equal(soft.mask(*image.shape[:2]), np.full(image.shape[:2], best))
