"""Overlays show the scores and classes of each pixel and change nothing else."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers import real_data
from vwl.report.overlays import heat_overlay, mask_overlay
from vwl.storage.masks import decode_mask, voc_palette

PALETTE = voc_palette()
COLOURS = np.array(PALETTE).reshape(256, 3)


@pytest.fixture
def image():
    return np.random.default_rng(0).integers(0, 256, (30, 44, 3), dtype=np.uint8)


class TestMaskOverlay:
    def test_the_background_is_unchanged(self, image):
        assert np.array_equal(mask_overlay(image, np.zeros((30, 44), np.uint8), PALETTE), image)

    def test_an_object_is_tinted_and_outlined(self, image):
        mask = np.zeros((30, 44), np.uint8)
        mask[10:20, 10:30] = 12
        overlay = mask_overlay(image, mask, PALETTE, alpha=0.4)
        assert np.array_equal(overlay[mask == 0], image[mask == 0])
        inside = (slice(11, 19), slice(11, 29))
        assert np.abs(overlay[inside] - (0.6 * image[inside] + 0.4 * COLOURS[12])).max() <= 0.5
        assert (overlay[10, 10:30] == COLOURS[12]).all()
        assert (overlay[10:20, 29] == COLOURS[12]).all()

    def test_ignored_pixels_are_tinted_without_an_outline(self, image):
        mask = np.full((30, 44), 255, np.uint8)
        mask[:, 20:] = 0
        overlay = mask_overlay(image, mask, PALETTE, alpha=0.5)
        assert np.abs(overlay[:, :20] - (0.5 * image[:, :20] + 0.5 * COLOURS[255])).max() <= 0.5

    def test_a_mask_of_another_size_is_refused(self, image):
        with pytest.raises(ValueError, match="the mask is 43 x 30 pixels, its image 44 x 30"):
            mask_overlay(image, np.zeros((30, 43), np.uint8), PALETTE)


class TestHeatOverlay:
    def test_without_scores_it_is_the_grey_image(self, image):
        grey = heat_overlay(image, np.zeros((0, 8, 11)), (), PALETTE)
        assert (grey == grey[..., :1]).all()
        assert np.array_equal(heat_overlay(image, np.zeros((1, 8, 11)), (5,), PALETTE), grey)
        brightness = image @ np.array([0.299, 0.587, 0.114])
        assert np.corrcoef(grey[..., 0].ravel(), brightness.ravel())[0, 1] > 0.999

    def test_each_pixel_has_the_colour_of_its_strongest_class(self, image):
        maps = np.zeros((2, 30, 44))
        maps[0, :, :22] = 1
        maps[1, :, 22:] = 1
        overlay = heat_overlay(image, maps, (3, 7), PALETTE, alpha=1.0)
        assert (overlay[:, :22] == COLOURS[3]).all()
        assert (overlay[:, 22:] == COLOURS[7]).all()

    def test_a_stronger_score_is_more_opaque(self, image):
        grey = heat_overlay(image, np.zeros((1, 2, 2)), (3,), PALETTE).astype(float)
        for score in (0.25, 0.5, 1.0):
            overlay = heat_overlay(image, np.full((1, 8, 11), score), (3,), PALETTE, alpha=0.8)
            assert np.abs(overlay - ((1 - 0.8 * score) * grey + 0.8 * score * COLOURS[3])).max() <= 1

    def test_the_background_is_not_drawn(self, image):
        maps = np.stack([np.ones((8, 11)), np.full((8, 11), 0.5)])
        assert np.array_equal(heat_overlay(image, maps, (0, 4), PALETTE), heat_overlay(image, maps[1:], (4,), PALETTE))

    @settings(max_examples=25, deadline=None)
    @given(
        shape=st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9)),
        size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
        seed=st.integers(0, 9),
    )
    def test_maps_of_any_size_fit_any_image_and_the_order_of_classes_does_not_matter(self, shape, size, seed):
        rng = np.random.default_rng(seed)
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        maps = rng.normal(0.5, 1, shape).astype(np.float16)
        classes = list(range(1, shape[0] + 1))
        overlay = heat_overlay(image, maps, classes, PALETTE)
        assert (overlay.shape, overlay.dtype) == (image.shape, np.uint8)
        # Where classes tie, after clipping to 1 or by interpolation, either colour is right.
        unique = np.ones(size, bool)
        if shape[0] > 1:
            clipped = [Image.fromarray(values) for values in maps.astype(np.float32).clip(0, 1)]
            ranked = np.sort([np.asarray(values.resize(size[::-1], Image.Resampling.BILINEAR)) for values in clipped], axis=0)
            unique = ranked[-1] > ranked[-2]
        assert np.array_equal(overlay[unique], heat_overlay(image, maps[::-1], classes[::-1], PALETTE)[unique])

    def test_a_score_of_nan_draws_nothing(self, image):
        assert np.array_equal(
            heat_overlay(image, np.full((1, 3, 3), np.nan), (2,), PALETTE), heat_overlay(image, np.zeros((1, 3, 3)), (2,), PALETTE)
        )


def test_a_real_mask_changes_its_objects_only():
    root = real_data("voc12mini")
    path = sorted((root / "SegmentationClassAug").glob("*.png"))[0]
    mask = decode_mask(path.read_bytes(), path.name)
    image = np.asarray(Image.open(root / "JPEGImages" / f"{path.stem}.jpg").convert("RGB"))
    overlay = mask_overlay(image, mask, PALETTE)
    assert np.array_equal(overlay[mask == 0], image[mask == 0])
    assert (overlay[mask != 0] != image[mask != 0]).any()
