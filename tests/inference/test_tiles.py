"""Tiles: they cover an image once, join without a seam, and leave the maps of a small image as they are."""

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from tests.inference.conftest import draw
from tests.trainings import RECIPE
from vwl.config.recipe import Recipe
from vwl.inference.cam import CamStage
from vwl.inference.segment import SegmentStage
from vwl.inference.tiles import cuts, tiled
from vwl.inference.walk import WalkStage
from vwl.models.classifier import Classifier
from vwl.models.deeplab import DeepLabV2
from vwl.models.irnet import BoundaryNet

STRIDE = 8


def blurred(part: np.ndarray) -> torch.Tensor:
    """A network of stride 8 that sees 28 pixels on each side of a cell's own."""
    pixels = torch.from_numpy(part.astype(np.float32)).permute(2, 0, 1)[None]
    cells = F.avg_pool2d(pixels, STRIDE, ceil_mode=True)
    return F.conv2d(cells, torch.arange(1.0, 49.0).view(1, 3, 4, 4) % 7, padding=2)[0, :, : cells.shape[2], : cells.shape[3]]


@given(st.integers(1, 5000), st.sampled_from([128, 160, 512, 1536]))
def test_the_tiles_of_a_side_cover_it_once_and_reach_beyond_their_seams(length, tile):
    found = cuts(length, tile)
    assert [cut.first for cut in found] == [0, *(cut.last for cut in found[:-1])]
    assert found[-1].last == found[-1].stop == length
    for cut in found:
        assert 0 <= cut.start <= cut.first < cut.last <= cut.stop <= cut.start + tile
        assert cut.start % 32 == cut.first % 32 == 0
        if cut.first > 0:
            assert cut.first - cut.start >= tile // 8 - 32
        if cut.last < length:
            assert cut.stop == cut.start + tile  # whole, so that its network's stride divides it
            assert cut.stop - cut.last >= tile // 8 - 32
    assert (len(found) == 1) == (length <= tile)


@pytest.mark.parametrize("size", [(300, 412), (100, 700), (701, 64), (1, 300), (513, 9), (257, 257)])
def test_where_tiles_overlap_by_more_than_the_network_sees_their_maps_are_those_of_the_whole(size):
    image = draw(*size, 0)
    np.testing.assert_allclose(tiled(blurred, image, 256), blurred(image), rtol=1e-5, atol=1e-3)


def test_an_image_that_is_no_larger_than_a_tile_is_not_cut():
    seen = []

    def network(part: np.ndarray) -> torch.Tensor:
        seen.append(part.shape)
        return blurred(part)

    tiled(network, draw(256, 200, 0), 256)
    assert seen == [(256, 200, 3)]


def test_no_part_is_larger_than_a_tile():
    seen = []

    def network(part: np.ndarray) -> torch.Tensor:
        seen.append(part.shape)
        return blurred(part)

    tiled(network, draw(300, 1000, 0), 256)
    assert max(max(shape) for shape in seen) == 256
    assert len(seen) == 2 * 5


@pytest.fixture(scope="module")
def plain() -> Recipe:
    """Networks that see less far than a tile's overlap; images at their own size."""
    own = RECIPE.model_dump(mode="json")
    for stage in ("cam", "walk", "segment"):
        own[stage] |= {"tile": 768, "long_side": None}
    own["cam"]["scales"] = [1.0]
    return Recipe.model_validate(own)


def whole_and_tiled(stage: Callable[[Recipe], np.ndarray], recipe: Recipe) -> list[np.ndarray]:
    sections = {name: getattr(recipe, name).model_copy(update={"tile": 8192}) for name in ("cam", "walk", "segment")}
    with torch.inference_mode():
        return [stage(recipe.model_copy(update=sections)), stage(recipe)]


def far_from_seams(maps: np.ndarray, length: int, stride: int) -> np.ndarray:
    """Columns of maps (K, h, w) further than 96 pixels from where tiles join."""
    position = np.arange(maps.shape[2]) * stride
    seams = [cut.last for cut in cuts(length, 768)[:-1]]
    assert seams
    return maps[:, :, np.all([np.abs(position - seam) > 96 for seam in seams], axis=0)]


def test_far_from_where_tiles_join_the_maps_of_classifier_and_segmenter_are_those_of_the_whole(plain, images):
    image = draw(96, 1504, 3)
    torch.manual_seed(0)
    classifier, segmenter = Classifier(plain.classifier, 2).eval(), DeepLabV2(plain.segmenter, 3).eval()
    for stage, stride in (
        (lambda recipe: tiled(partial(CamStage(recipe, images, classifier)._fused, labels=(1, 2)), image, recipe.cam.tile).numpy(), 16),
        (lambda recipe: SegmentStage(recipe, images, segmenter).probabilities(image), 1),
    ):
        whole, parts = (far_from_seams(maps, 1504, stride) for maps in whole_and_tiled(stage, plain))
        assert whole.std() > 1e-5
        np.testing.assert_allclose(parts, whole, atol=1e-4 * np.abs(whole).max())


def test_boundaries_found_in_tiles_are_nearly_those_found_in_the_whole(plain, images):
    # not equal: the group norm of the head is over a tile's pixels
    image = draw(96, 1504, 3)
    torch.manual_seed(0)
    net = BoundaryNet(plain.irnet.backbone).eval()
    whole, parts = whole_and_tiled(lambda recipe: WalkStage(recipe, images, None, net).boundaries(image), plain)
    assert np.corrcoef(whole.ravel(), parts.ravel())[0, 1] > 0.9
    assert (whole != parts).any()
