"""The CAM stage: maps of the labels, equal to those of every scale and horizontal flip."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image

from tests.inference.conftest import IMAGES, draw, save_index
from vwl.config.recipe import AdvCam, Cam
from vwl.inference.cam import CamStage
from vwl.models.classifier import Classifier


def stage(recipe, index, model, **cam):
    return CamStage(recipe.model_copy(update={"cam": Cam(**cam)}), index, model)


def bilinear(values, height, width):
    """A grid (h, w) at another size: each new cell's centre lies between the old cells' centres."""

    def weights(old, new):
        position = np.maximum((np.arange(new) + 0.5) * old / new - 0.5, 0)
        first = np.floor(position).astype(int)
        found = np.zeros((new, old))
        np.add.at(found, (np.arange(new), first), 1 - (position - first))
        np.add.at(found, (np.arange(new), np.minimum(first + 1, old - 1)), position - first)
        return found

    return weights(values.shape[0], height) @ values @ weights(values.shape[1], width).T


@torch.inference_mode()
def computed_directly(model, image, labels, scales, long_side, hflip, fusion):
    """Class activation maps (K, h, w), one view of the image after another."""
    height, width = image.shape[:2]
    backbone = model.backbone
    grid = -(-height // 4), -(-width // 4)
    total = np.zeros((len(labels), *grid))
    for scale in scales:
        factor = (long_side / max(height, width) if long_side else 1) * scale
        size = max(round(width * factor), 1), max(round(height * factor), 1)
        resized = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BICUBIC)) / 255
        views = []
        for turn in (1, -1) if hflip else (1,):
            pixels = ((resized[:, ::turn] - backbone.mean) / backbone.std).transpose(2, 0, 1).astype(np.float32)
            features = model.features(torch.from_numpy(pixels)[None])[0].numpy()
            weight = model.image_head.weight.numpy()[[label - 1 for label in labels]]
            views.append(np.maximum(np.einsum("cd,dhw->chw", weight, features), 0)[:, :, ::turn])
        fused = np.max(views, axis=0) if fusion == "max" else np.sum(views, axis=0)
        for number, one in enumerate(fused):
            total[number] += bilinear(one, *grid)
    return total / (total.max(axis=(1, 2), keepdims=True) + 1e-5)


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("long_side", [None, 96])
def test_an_image_of_any_size_has_a_map_of_each_label_at_stride_4(recipe, images, rows, classifier, name, long_side):
    found = stage(recipe, images, classifier, scales=(1.0, 0.5), long_side=long_side)(rows[name])
    (height, width), labels = IMAGES[name]
    assert (found.image_id, found.classes, found.height, found.width) == (name, labels, height, width)
    assert found.values.shape == (len(labels), -(-height // 4), -(-width // 4))
    assert found.values.dtype == np.float16
    for values in found.values.astype(np.float32):
        assert values.min() >= 0
        assert values.max() == 0 or 0.99 < values.max() <= 1


@pytest.mark.parametrize(
    ("scales", "long_side", "hflip", "fusion"),
    [
        ((1.0,), 96, False, "max"),
        ((1.0, 0.5, 1.5), 96, True, "max"),
        ((1.0, 0.5, 1.5), 96, True, "sum"),
        ((1.0, 2.0), None, True, "max"),
    ],
)
@pytest.mark.parametrize("name", ["even", "odd"])
def test_the_maps_are_those_of_each_scale_and_horizontal_flip_by_itself(
    recipe, images, rows, classifier, name, scales, long_side, hflip, fusion
):
    made = stage(recipe, images, classifier, scales=scales, long_side=long_side, hflip=hflip, hflip_fusion=fusion)(rows[name])
    wanted = computed_directly(classifier, np.asarray(images.read_image(rows[name])), rows[name].labels, scales, long_side, hflip, fusion)
    assert wanted.std() > 0.05
    np.testing.assert_allclose(made.values, wanted, atol=2e-3)


def test_the_horizontal_flips_are_fused_as_the_recipe_says(recipe, images, rows, classifier):
    views = {fusion: stage(recipe, images, classifier, hflip_fusion=fusion, long_side=96)(rows["even"]).values for fusion in ("max", "sum")}
    assert np.abs(views["max"] - views["sum"]).max() > 0.01


@pytest.mark.parametrize("name", ["even", "odd", "flat"])
def test_the_horizontal_flip_of_an_image_has_the_horizontal_flip_of_its_maps(recipe, images, rows, classifier, tmp_path, name):
    image = np.asarray(images.read_image(rows[name]))
    turned = save_index(tmp_path, {name: (np.ascontiguousarray(image[:, ::-1]), rows[name].labels)}, images.classes)
    straight, flipped = (stage(recipe, index, classifier, long_side=96)(rows[name]).values for index in (images, turned))
    assert np.abs(straight - straight[:, :, ::-1]).max() > 0.05
    np.testing.assert_allclose(flipped, straight[:, :, ::-1], atol=2e-3)


def test_the_maps_do_not_depend_on_the_other_labels(recipe, classifier, tmp_path):
    image = draw(48, 64, 0)
    index = save_index(tmp_path, {"both": (image, (1, 2)), "second": (image, (2,))}, ("background", "cat", "dog"))
    both, second = (stage(recipe, index, classifier, long_side=96)(row).values for row in index.rows)
    np.testing.assert_array_equal(both[1:], second)


def test_an_image_without_labels_has_no_maps(recipe, images, rows, classifier):
    found = stage(recipe, images, classifier, long_side=96)(rows["bare"])
    assert found.classes == ()
    assert found.values.shape == (0, 10, 13)


@pytest.mark.parametrize("tile", [1536, 128])
def test_advcam_of_one_step_gives_the_maps_of_the_stage(recipe, images, rows, classifier, tile):
    # a single view: of a pair, the published Grad-CAM weights each by its share of active positions
    plain, climbed = (
        stage(recipe, images, classifier, scales=(1.0,), long_side=200, hflip=False, tile=tile, advcam=AdvCam(steps=steps))(rows["odd"])
        for steps in (0, 1)
    )
    np.testing.assert_allclose(climbed.values, plain.values, atol=4e-3)


@pytest.mark.parametrize("name", ["even", "flat", "dot", "bare"])
@pytest.mark.parametrize("pooling", ["gap", "hybrid"])
def test_advcam_gives_other_maps_of_the_same_size_for_every_image(recipe, images, rows, classifier, name, pooling):
    model = Classifier(recipe.classifier.model_copy(update={"pooling": pooling}), 2).eval()
    model.load_state_dict(classifier.state_dict())
    plain, climbed = (
        stage(recipe, images, model, scales=(1.0, 0.5), long_side=96, advcam=AdvCam(steps=steps))(rows[name]).values for steps in (0, 3)
    )
    assert climbed.shape == plain.shape
    assert climbed.dtype == np.float16
    assert np.isfinite(climbed).all()
    if name in {"even", "flat"}:
        assert np.abs(climbed.astype(np.float32) - plain).max() > 0.01


def test_advcam_of_a_label_does_not_depend_on_the_others_of_the_image(recipe, classifier, tmp_path):
    image = draw(48, 64, 0)
    index = save_index(tmp_path, {"both": (image, (1, 2)), "second": (image, (2,))}, ("background", "cat", "dog"))
    settings = {"long_side": 96, "scales": (1.0,), "advcam": AdvCam(steps=3)}
    both, second = (stage(recipe, index, classifier, **settings)(row).values for row in index.rows)
    np.testing.assert_array_equal(both[1:], second)


def test_a_label_that_is_active_nowhere_has_an_empty_map_with_advcam(recipe, images, rows, classifier):
    model = deepcopy(classifier)
    with torch.no_grad():
        model.image_head.weight[0] = 0
    found = stage(recipe, images, model, scales=(1.0,), long_side=96, advcam=AdvCam(steps=3))(rows["even"])
    assert not found.values[0].any()
    assert found.values[1].any()
