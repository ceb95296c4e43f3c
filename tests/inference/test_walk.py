"""The walk stage: maps after the random walk, and the boundaries that stop it."""

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.inference.conftest import IMAGES, save_index, save_maps
from vwl.constants import map_size
from vwl.inference.walk import WalkStage
from vwl.maps.random_walk import walk
from vwl.storage.folder import Folder


@pytest.mark.parametrize("name", IMAGES)
def test_an_image_of_any_size_keeps_its_maps_shape_with_a_global_maximum_of_1(recipe, images, rows, maps, boundary_net, name):
    found = WalkStage(recipe, images, maps, boundary_net)(rows[name])
    size, labels = IMAGES[name]
    assert (found.image_id, found.classes, (found.height, found.width)) == (name, labels, size)
    assert found.values.shape == (len(labels), *map_size(*size))
    assert found.values.dtype == np.float16
    if labels:
        assert found.values.min() >= 0
        assert found.values.max() == 1


def test_scores_of_the_classes_stay_comparable(recipe, images, rows, boundary_net, tmp_path):
    values = np.random.default_rng(0).random((1, 12, 16))
    unequal = save_maps(Folder(tmp_path), images, {"even": np.concatenate([values, values / 4])})
    cat, dog = WalkStage(recipe, images, unequal, boundary_net)(rows["even"]).values.astype(np.float32)
    assert cat.max() == 1
    np.testing.assert_allclose(dog, cat / 4, atol=1e-3)


def test_maps_without_any_score_stay_so(recipe, images, rows, boundary_net, tmp_path):
    empty = save_maps(Folder(tmp_path), images, {"even": np.zeros((2, 12, 16))})
    assert not WalkStage(recipe, images, empty, boundary_net)(rows["even"]).values.any()


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("long_side", [None, 96])
def test_boundaries_are_shares_on_the_grid_of_the_maps(recipe, images, rows, maps, boundary_net, name, long_side):
    settings = recipe.model_copy(update={"walk": recipe.walk.model_copy(update={"long_side": long_side})})
    edge = WalkStage(settings, images, maps, boundary_net).boundaries(np.asarray(images.read_image(rows[name])))
    assert edge.shape == map_size(*IMAGES[name][0])
    assert edge.dtype == np.float32
    assert (edge >= 0).all()
    assert (edge <= 1).all()


@pytest.mark.parametrize("name", ["even", "odd", "flat"])
def test_the_horizontal_flip_of_an_image_has_the_horizontal_flip_of_its_boundaries(recipe, images, rows, maps, boundary_net, name):
    image = np.asarray(images.read_image(rows[name]))
    stage = WalkStage(recipe, images, maps, boundary_net)
    edge = stage.boundaries(image)
    assert edge.std() > 1e-3
    np.testing.assert_allclose(stage.boundaries(np.ascontiguousarray(image[:, ::-1])), edge[:, ::-1], atol=1e-4)


def test_boundaries_are_the_mean_of_image_and_horizontal_flip(recipe, images, rows, maps, boundary_net):
    settings = recipe.model_copy(update={"walk": recipe.walk.model_copy(update={"long_side": None})})
    image = np.asarray(images.read_image(rows["even"]))
    backbone = boundary_net.backbone
    logits = []
    for turn in (1, -1):
        pixels = ((image[:, ::turn] / 255 - backbone.mean) / backbone.std).transpose(2, 0, 1).astype(np.float32)
        with torch.inference_mode():
            logits.append(boundary_net(torch.from_numpy(pixels)[None])[0, 0].numpy()[:, ::turn])
    wanted = 1 / (1 + np.exp(-np.mean(logits, axis=0)))
    np.testing.assert_allclose(WalkStage(settings, images, maps, boundary_net).boundaries(image), wanted, atol=1e-5)


def test_scores_spread_over_the_image(recipe, boundary_net, tmp_path):
    index = save_index(tmp_path, {"grey": (np.full((48, 64, 3), 128, np.uint8), (1,))}, ("background", "cat"))
    values = np.zeros((1, 12, 16))
    values[0, 6, 8] = 1
    found = WalkStage(recipe, index, save_maps(Folder(tmp_path / "maps"), index, {"grey": values}), boundary_net)(index.rows[0]).values[0]
    assert (found > 0.01).sum() > 20


@pytest.mark.parametrize("name", ["even", "odd", "flat"])
def test_the_reference_settings_follow_the_published_irnet(recipe, images, rows, maps, boundary_net, name):
    """A transcription: pad to 512 after normalisation, crop, average the logits of both flips; divide by the maximum at full size."""
    walk_settings = {"long_side": None, "pad_to": 512, "normalise_at": "full_size"}
    settings = recipe.model_copy(update={"walk": recipe.walk.model_copy(update=walk_settings)})
    stage, image = WalkStage(settings, images, maps, boundary_net), np.asarray(images.read_image(rows[name]))
    height, width = image.shape[:2]
    rows_4, columns_4 = -(-height // 4), -(-width // 4)
    canvas = np.zeros((2, 3, 512, 512), np.float32)
    canvas[0, :, :height, :width] = ((image / 255 - boundary_net.backbone.mean) / boundary_net.backbone.std).transpose(2, 0, 1)
    canvas[1, :, :height, :width] = canvas[0, :, :height, :width][:, :, ::-1]
    with torch.inference_mode():
        straight, flipped = boundary_net(torch.from_numpy(canvas))[:, 0, :rows_4, :columns_4].numpy()
    edge = 1 / (1 + np.exp(-(straight / 2 + flipped[:, ::-1] / 2)))
    np.testing.assert_allclose(stage.boundaries(image), edge, atol=1e-5)
    s = recipe.walk
    walked = walk(maps.read(name).values.astype(np.float32), edge.astype(np.float32), s.radius, s.exponent, s.steps, s.tolerance)
    enlarged = functional.interpolate(torch.from_numpy(walked)[None], scale_factor=4, mode="bilinear", align_corners=False)[0]
    expected = (walked / max(float(enlarged[:, :height, :width].max()), 1e-12)).astype(np.float16)
    np.testing.assert_allclose(stage(rows[name]).values.astype(np.float32), expected.astype(np.float32), atol=2e-3)


def test_images_larger_than_the_padding_are_not_padded(recipe, images, rows, maps, boundary_net):
    def boundaries(pad_to: int | None) -> np.ndarray:
        settings = recipe.model_copy(update={"walk": recipe.walk.model_copy(update={"long_side": None, "pad_to": pad_to})})
        return WalkStage(settings, images, maps, boundary_net).boundaries(np.asarray(images.read_image(rows["even"])))

    np.testing.assert_array_equal(boundaries(16), boundaries(None))
    assert np.abs(boundaries(512) - boundaries(None)).max() > 1e-3
