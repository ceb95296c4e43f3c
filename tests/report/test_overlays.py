"""Pictures: overlays show what the maps and masks say and nothing else; sheets hold every panel."""

import io

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.helpers import real_data
from vwl.report.overlays import CAPTION, GAP, contact_sheet, heat_overlay, mask_overlay, panel_row, png
from vwl.storage.masks import decode_mask, voc_palette

PALETTE = voc_palette()
COLOURS = np.array(PALETTE).reshape(256, 3)


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 256, (30, 44, 3), dtype=np.uint8)


class TestMaskOverlay:
    def test_the_background_is_the_photograph(self, photo):
        assert np.array_equal(mask_overlay(photo, np.zeros((30, 44), np.uint8), PALETTE), photo)

    def test_an_object_is_tinted_and_outlined(self, photo):
        mask = np.zeros((30, 44), np.uint8)
        mask[10:20, 10:30] = 12
        seen = mask_overlay(photo, mask, PALETTE, alpha=0.4)
        assert np.array_equal(seen[mask == 0], photo[mask == 0])
        inside = (slice(11, 19), slice(11, 29))
        assert np.abs(seen[inside] - (0.6 * photo[inside] + 0.4 * COLOURS[12])).max() <= 0.5
        assert (seen[10, 10:30] == COLOURS[12]).all()
        assert (seen[10:20, 29] == COLOURS[12]).all()

    def test_ignored_pixels_are_tinted_without_an_outline(self, photo):
        mask = np.full((30, 44), 255, np.uint8)
        mask[:, 20:] = 0
        seen = mask_overlay(photo, mask, PALETTE, alpha=0.5)
        assert np.abs(seen[:, :20] - (0.5 * photo[:, :20] + 0.5 * COLOURS[255])).max() <= 0.5

    def test_a_mask_of_another_size_is_a_mistake(self, photo):
        with pytest.raises(ValueError, match="photograph of"):
            mask_overlay(photo, np.zeros((30, 43), np.uint8), PALETTE)


class TestHeatOverlay:
    def test_without_scores_it_is_the_photograph_in_grey(self, photo):
        grey = heat_overlay(photo, np.zeros((0, 8, 11)), (), PALETTE)
        assert (grey == grey[..., :1]).all()
        assert np.array_equal(heat_overlay(photo, np.zeros((1, 8, 11)), (5,), PALETTE), grey)
        brightness = photo @ np.array([0.299, 0.587, 0.114])
        assert np.corrcoef(grey[..., 0].ravel(), brightness.ravel())[0, 1] > 0.999

    def test_each_pixel_has_the_colour_of_its_strongest_class(self, photo):
        maps = np.zeros((2, 30, 44))
        maps[0, :, :22] = 1
        maps[1, :, 22:] = 1
        seen = heat_overlay(photo, maps, (3, 7), PALETTE, alpha=1.0)
        assert (seen[:, :22] == COLOURS[3]).all()
        assert (seen[:, 22:] == COLOURS[7]).all()

    def test_a_stronger_score_is_more_opaque(self, photo):
        grey = heat_overlay(photo, np.zeros((1, 2, 2)), (3,), PALETTE).astype(float)
        for score in (0.25, 0.5, 1.0):
            seen = heat_overlay(photo, np.full((1, 8, 11), score), (3,), PALETTE, alpha=0.8)
            assert np.abs(seen - ((1 - 0.8 * score) * grey + 0.8 * score * COLOURS[3])).max() <= 1

    def test_the_background_is_not_drawn(self, photo):
        maps = np.stack([np.ones((8, 11)), np.full((8, 11), 0.5)])
        assert np.array_equal(heat_overlay(photo, maps, (0, 4), PALETTE), heat_overlay(photo, maps[1:], (4,), PALETTE))

    @settings(max_examples=25, deadline=None)
    @given(
        shape=st.tuples(st.integers(0, 3), st.integers(1, 9), st.integers(1, 9)),
        size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
        seed=st.integers(0, 9),
    )
    def test_any_maps_fit_any_photograph_and_the_order_of_classes_does_not_matter(self, shape, size, seed):
        rng = np.random.default_rng(seed)
        photo = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        maps = rng.normal(0.5, 1, shape).astype(np.float16)
        classes = list(range(1, shape[0] + 1))
        seen = heat_overlay(photo, maps, classes, PALETTE)
        assert (seen.shape, seen.dtype) == (photo.shape, np.uint8)
        # scores above 1 are cut to 1, so classes may tie: then either colour is right
        unequal = maps.astype(np.float32).clip(0, 1)
        if shape[0] < 2 or not (np.sort(unequal, axis=0)[-1] == np.sort(unequal, axis=0)[-2]).any():
            assert np.array_equal(seen, heat_overlay(photo, maps[::-1], classes[::-1], PALETTE))

    def test_not_a_number_draws_nothing(self, photo):
        assert np.array_equal(
            heat_overlay(photo, np.full((1, 3, 3), np.nan), (2,), PALETTE), heat_overlay(photo, np.zeros((1, 3, 3)), (2,), PALETTE)
        )


class TestSheets:
    def test_a_row_holds_every_picture_at_one_height(self):
        red, blue = np.full((50, 100, 3), (255, 0, 0), np.uint8), np.full((100, 50, 3), (0, 0, 255), np.uint8)
        row = np.asarray(panel_row([("red", red), ("blue", blue)], height=80))
        assert row.shape == (80 + CAPTION + GAP, 160 + GAP + 40, 3)
        pictures = row[CAPTION + GAP :]
        assert (pictures[:, :160] == (255, 0, 0)).all()
        assert (pictures[:, 160 + GAP :] == (0, 0, 255)).all()
        assert (row[: CAPTION + GAP, :160] < 128).any(), "the caption is there"
        assert (row[: CAPTION + GAP, 160 + GAP :] < 128).any()

    def test_a_long_caption_stays_over_its_own_picture(self):
        grey = np.full((50, 100, 3), 128, np.uint8)
        row = np.asarray(panel_row([("a caption " * 20, grey), ("", grey)], height=50))
        assert (row[: CAPTION + GAP, :100] < 255).any()
        assert (row[: CAPTION + GAP, 100:] == 255).all()

    def test_a_sheet_holds_every_row(self):
        rows = [Image.new("RGB", (60, 20), "red"), Image.new("RGB", (90, 30), "blue")]
        sheet = np.asarray(contact_sheet(rows))
        assert sheet.shape == (GAP + 20 + GAP + 30 + GAP, 90 + 2 * GAP, 3)
        assert (sheet[GAP : GAP + 20, GAP : GAP + 60] == (255, 0, 0)).all()
        assert (sheet[2 * GAP + 20 : 2 * GAP + 50, GAP : GAP + 90] == (0, 0, 255)).all()
        assert (sheet[:GAP] == 255).all()

    def test_a_sheet_is_written_as_it_is(self):
        sheet = contact_sheet([panel_row([("x", np.zeros((9, 9, 3), np.uint8))])])
        for picture in (sheet, np.asarray(sheet)):
            assert np.array_equal(np.asarray(Image.open(io.BytesIO(png(picture)))), np.asarray(sheet))

    def test_nothing_to_show_is_a_mistake(self):
        with pytest.raises(ValueError, match="without pictures"):
            panel_row([])
        with pytest.raises(ValueError, match="without rows"):
            contact_sheet([])


def test_a_real_photograph_with_its_mask():
    root = real_data("voc12mini")
    path = sorted((root / "SegmentationClassAug").glob("*.png"))[0]
    mask = decode_mask(path.read_bytes(), path.name)
    photo = np.asarray(Image.open(root / "JPEGImages" / f"{path.stem}.jpg").convert("RGB"))
    seen = mask_overlay(photo, mask, PALETTE)
    assert np.array_equal(seen[mask == 0], photo[mask == 0])
    assert (seen[mask != 0] != photo[mask != 0]).any()
