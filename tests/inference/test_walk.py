"""The walk stage: maps after the random walk, and the boundaries that stop it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch.nn import functional

from tests.inference.conftest import IMAGES, save_index, save_maps
from vwl.config.files import load_recipe
from vwl.constants import map_size
from vwl.inference.masks import MasksStage
from vwl.inference.walk import WalkStage
from vwl.maps.cam import upsample
from vwl.models.irnet import BoundaryNet
from vwl.storage.folder import Folder
from vwl.storage.score_maps import MapReader, write_maps


@pytest.mark.parametrize("name", IMAGES)
def test_maps_of_an_image_of_any_size_keep_their_shape_and_have_a_common_maximum_of_1(recipe, images, rows, maps, boundary_net, name):
    found = WalkStage(recipe, images, maps, boundary_net)(rows[name])
    size, labels = IMAGES[name]
    assert (found.image_id, found.classes, (found.height, found.width)) == (name, labels, size)
    assert found.values.shape == (len(labels), *map_size(*size))
    assert found.values.dtype == np.float16
    if labels:
        assert found.values.min() >= 0
        assert found.values.max() == 1


def test_the_ratio_of_the_classes_scores_is_kept(recipe, images, rows, boundary_net, tmp_path):
    values = np.random.default_rng(0).random((1, 12, 16))
    unequal = save_maps(Folder(tmp_path), images, {"even": np.concatenate([values, values / 4])})
    cat, dog = WalkStage(recipe, images, unequal, boundary_net)(rows["even"]).values.astype(np.float32)
    assert cat.max() == 1
    np.testing.assert_allclose(dog, cat / 4, atol=1e-3)


def test_the_walk_in_torch_gives_the_maps_of_the_compiled_one(recipe, images, rows, maps, boundary_net):
    both = [
        recipe.model_copy(update={"walk": recipe.walk.model_copy(update={"implementation": implementation})})
        for implementation in ("native", "torch")
    ]
    native, by_torch = (WalkStage(settings, images, maps, boundary_net)(rows["odd"]).values for settings in both)
    np.testing.assert_allclose(by_torch.astype(np.float32), native.astype(np.float32), atol=1e-3)


def test_maps_of_zeros_stay_zeros(recipe, images, rows, boundary_net, tmp_path):
    empty = save_maps(Folder(tmp_path), images, {"even": np.zeros((2, 12, 16))})
    assert not WalkStage(recipe, images, empty, boundary_net)(rows["even"]).values.any()


@pytest.mark.parametrize("name", IMAGES)
@pytest.mark.parametrize("long_side", [None, 96])
def test_boundaries_are_probabilities_on_the_grid_of_the_maps(recipe, images, rows, maps, boundary_net, name, long_side):
    settings = recipe.model_copy(update={"walk": recipe.walk.model_copy(update={"long_side": long_side})})
    edge = WalkStage(settings, images, maps, boundary_net).boundaries(np.asarray(images.read_image(rows[name])))
    assert edge.shape == map_size(*IMAGES[name][0])
    assert edge.dtype == np.float32
    assert (edge >= 0).all()
    assert (edge <= 1).all()


@pytest.mark.parametrize("name", ["even", "odd", "flat"])
def test_a_flipped_image_has_flipped_boundaries(recipe, images, rows, maps, boundary_net, name):
    image = np.asarray(images.read_image(rows[name]))
    stage = WalkStage(recipe, images, maps, boundary_net)
    edge = stage.boundaries(image)
    assert edge.std() > 1e-3
    np.testing.assert_allclose(stage.boundaries(np.ascontiguousarray(image[:, ::-1])), edge[:, ::-1], atol=1e-4)


def test_boundaries_are_the_mean_of_an_image_and_its_flip(recipe, images, rows, maps, boundary_net):
    settings = recipe.model_copy(update={"walk": recipe.walk.model_copy(update={"long_side": None})})
    image = np.asarray(images.read_image(rows["even"]))
    backbone = boundary_net.backbone
    logits = []
    for step in (1, -1):
        pixels = ((image[:, ::step] / 255 - backbone.mean) / backbone.std).transpose(2, 0, 1).astype(np.float32)
        with torch.inference_mode():
            logits.append(boundary_net(torch.from_numpy(pixels)[None])[0, 0].numpy()[:, ::step])
    wanted = 1 / (1 + np.exp(-np.mean(logits, axis=0)))
    np.testing.assert_allclose(WalkStage(settings, images, maps, boundary_net).boundaries(image), wanted, atol=1e-5)


def test_scores_spread_over_the_image(recipe, boundary_net, tmp_path):
    recipe = recipe.model_copy(update={"walk": recipe.walk.model_copy(update={"exponent": 10.0})})  # the network is not trained
    index = save_index(tmp_path, {"grey": (np.full((48, 64, 3), 128, np.uint8), (1,))}, ("background", "cat"))
    values = np.zeros((1, 12, 16))
    values[0, 6, 8] = 1
    found = WalkStage(recipe, index, save_maps(Folder(tmp_path / "maps"), index, {"grey": values}), boundary_net)(index.rows[0]).values[0]
    assert (found > 0.01).sum() > 20


def test_images_larger_than_the_padding_are_not_padded(recipe, images, rows, maps, boundary_net):
    def boundaries(pad_to: int | None) -> np.ndarray:
        settings = recipe.model_copy(update={"walk": recipe.walk.model_copy(update={"long_side": None, "pad_to": pad_to})})
        return WalkStage(settings, images, maps, boundary_net).boundaries(np.asarray(images.read_image(rows["even"])))

    np.testing.assert_array_equal(boundaries(16), boundaries(None))
    assert np.abs(boundaries(512) - boundaries(None)).max() > 1e-3


# IRNet's published code (`EdgeDisplacement`, `propagate_to_edge`, `make_sem_seg_labels`), written out for one image.


def published_boundaries(net: BoundaryNet, image: np.ndarray, side: int = 512) -> np.ndarray:
    """Normalise and flip the image, pad both at the right and bottom with zeros to `side`, crop the logits, average, sigmoid."""
    height, width = image.shape[:2]
    normalised = (image / 255 - net.backbone.mean) / net.backbone.std
    padded = np.zeros((2, side, side, 3), np.float32)
    padded[0, :height, :width] = normalised
    padded[1, :height, :width] = normalised[:, ::-1]
    with torch.inference_mode():
        logits = net(torch.from_numpy(padded.transpose(0, 3, 1, 2).copy()))[:, 0].numpy()
    cropped = logits[:, : (height - 1) // 4 + 1, : (width - 1) // 4 + 1].astype(float)
    return 1 / (1 + np.exp(-(cropped[0] / 2 + cropped[1, :, ::-1] / 2)))


def published_affinities(edge: np.ndarray, radius: int = 5) -> np.ndarray:
    """Return the dense (hw, hw) affinities of a boundary map, padded with boundaries as in the published code, pair by pair."""
    height, width = edge.shape
    padded = np.pad(edge, ((0, radius), (radius, radius)), constant_values=1.0)
    matrix = np.eye(height * width)
    for y in range(height):
        for x in range(width):
            for dy in range(radius):
                for dx in range(1 - radius, radius):
                    if dy * dy + dx * dx >= radius * radius or (dy == 0 and dx <= 0):
                        continue
                    near = [
                        (b, a)
                        for b in range(dy + 1)
                        for a in range(min(0, dx), max(0, dx) + 1)
                        if (dy * a - dx * b) ** 2 / (dy * dy + dx * dx) < 1
                    ]
                    affinity = 1 - max(padded[y + b, radius + x + a] for b, a in near)
                    if y + dy < height and 0 <= x + dx < width:
                        first, second = y * width + x, (y + dy) * width + x + dx
                        matrix[first, second] = matrix[second, first] = affinity
    return matrix


def published_walk(maps: np.ndarray, edge: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Return scores (K, H, W): beta 10, columns normalised, 8 squarings, enlarged by 4, cropped, divided by their maximum."""
    powers = published_affinities(edge) ** 10
    transition = powers / powers.sum(axis=0, keepdims=True)
    for _ in range(8):
        transition = transition @ transition
    walked = ((maps * (1 - edge)).reshape(len(maps), -1) @ transition).reshape(maps.shape)
    enlarged = functional.interpolate(torch.from_numpy(walked)[None], scale_factor=4, mode="bilinear", align_corners=False)[0].numpy()
    enlarged = enlarged[:, : size[0], : size[1]]
    return enlarged / enlarged.max()


@pytest.fixture(scope="module")
def irnet(recipe) -> Callable[[float], BoundaryNet]:
    """Build a network on which padding has a clear effect; the more boundaries it sees (`bias`), the less the maps spread."""

    def build(bias: float) -> BoundaryNet:
        torch.manual_seed(1)
        net = BoundaryNet(recipe.irnet.backbone).eval()
        with torch.no_grad():
            net.join.weight.mul_(3)
            net.join.bias.fill_(bias)
        return net

    return build


@pytest.mark.parametrize("name", ["reference-voc", "reference-voc-m"])
@pytest.mark.parametrize("image_id", ["even", "odd", "flat", "tall"])
@pytest.mark.parametrize("bias", [0, 4])
def test_the_reference_recipes_give_the_scores_and_masks_of_irnets_code(images, rows, maps, irnet, tmp_path, name, image_id, bias):
    reference = load_recipe(name)
    image, cam = np.asarray(images.read_image(rows[image_id])), maps.read(image_id)
    if bias > 0:
        peak = np.zeros(cam.values.shape)
        peak[0, peak.shape[1] // 2, peak.shape[2] // 2] = 1
        maps = save_maps(Folder(tmp_path / "peak"), images, {image_id: peak + 0.1 * cam.values})
        cam = maps.read(image_id)
    net = irnet(bias)
    stage = WalkStage(reference, images, maps, net)
    edge = published_boundaries(net, image)
    np.testing.assert_allclose(stage.boundaries(image), edge, atol=1e-5)
    scores = published_walk(cam.values.astype(float), edge, image.shape[:2])
    found = stage(rows[image_id])
    np.testing.assert_allclose(upsample(found.values, *image.shape[:2]), scores, atol=1e-3)  # maps are stored in half precision
    write_maps(Folder(tmp_path / "walk"), "part-00000.parquet", [found])
    mask = MasksStage(MapReader(Folder(tmp_path / "walk")), reference.walk.background_threshold, images)(rows[image_id])
    ranked = np.sort(np.concatenate([np.full((1, *scores.shape[1:]), 0.25), scores]), axis=0)
    clear = ranked[-1] - ranked[-2] > 2e-3
    assert clear.mean() > 0.9
    keys = np.array([0, *cam.classes])
    expected = keys[np.concatenate([np.full((1, *scores.shape[1:]), 0.25), scores]).argmax(axis=0)]
    np.testing.assert_array_equal(mask[clear], expected[clear])


def test_the_paper_recipes_neither_pad_nor_divide_at_full_size(images, rows, maps, irnet, tmp_path):
    paper, reference = (load_recipe(name) for name in ("paper-voc", "reference-voc"))
    assert (paper.walk.pad_to, paper.walk.normalise_at) == (None, "stride4")
    image = np.asarray(images.read_image(rows["even"]))
    ours, theirs = (WalkStage(recipe, images, maps, irnet(bias=4)) for recipe in (paper, reference))
    assert np.abs(ours.boundaries(image) - theirs.boundaries(image)).max() > 0.01
    values = np.zeros((2, 12, 16))
    values[0, 6, 8] = 1
    peak = save_maps(Folder(tmp_path), images, {"even": values})
    ours, theirs = (WalkStage(recipe, images, peak, irnet(bias=4)) for recipe in (paper, reference))
    assert ours(rows["even"]).values.max() == 1
    assert theirs(rows["even"]).values.max() > 1.05  # the maximum is 1 at full size
