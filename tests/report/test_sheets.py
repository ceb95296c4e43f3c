"""Sheets hold every panel and row, with their captions."""

import io

import numpy as np
import pytest
from PIL import Image

from vwl.report.overlays import display_palette
from vwl.report.sheets import CAPTION_HEIGHT, GAP, Colour, Panel, aligned_rows, contact_sheet, encode_png, legend, panel_row


def test_a_row_holds_every_image_at_one_height():
    red, blue = np.full((50, 100, 3), (255, 0, 0), np.uint8), np.full((100, 50, 3), (0, 0, 255), np.uint8)
    row = np.asarray(panel_row([Panel("red", red), Panel("blue", blue)], height=80))
    assert row.shape == (80 + CAPTION_HEIGHT + GAP, 160 + GAP + 40, 3)
    images = row[CAPTION_HEIGHT + GAP :]
    assert (images[:, :160] == (255, 0, 0)).all()
    assert (images[:, 160 + GAP :] == (0, 0, 255)).all()
    assert (row[: CAPTION_HEIGHT + GAP, :160] < 128).any(), "the caption is drawn"
    assert (row[: CAPTION_HEIGHT + GAP, 160 + GAP :] < 128).any()


def test_a_long_caption_is_shortened_to_the_width_of_its_image():
    grey = np.full((50, 100, 3), 128, np.uint8)
    row = np.asarray(panel_row([Panel("a caption " * 20, grey), Panel("", grey)], height=50))
    assert (row[: CAPTION_HEIGHT + GAP, :100] < 255).any()
    assert (row[: CAPTION_HEIGHT + GAP, 100:] == 255).all()


@pytest.mark.parametrize("letter", "äöüßéñłğŽаλ")
def test_captions_have_the_letters_of_other_languages(letter):
    def drawn(text: str) -> bytes:
        return panel_row([Panel(text, np.zeros((9, 90, 3), np.uint8))], height=9).tobytes()

    assert drawn(letter) not in {drawn("\U0010ffff"), drawn("")}, "the box of a missing letter"


def test_panels_of_one_position_are_below_each_other_whatever_the_images_sizes():
    red, green, blue = (
        np.full((50, width, 3), colour, np.uint8) for width, colour in ((40, (255, 0, 0)), (90, (0, 255, 0)), (60, (0, 0, 255)))
    )
    rows = aligned_rows([[Panel("a", red), Panel("b", None), Panel("c", blue)], [Panel("a", green), Panel("b", red), Panel("c", red)]], 50)
    assert [row.size for row in rows] == [(90 + GAP + 40 + GAP + 60, 50 + CAPTION_HEIGHT + GAP)] * 2
    first, second = (np.asarray(row)[CAPTION_HEIGHT + GAP :] for row in rows)
    left = 90 + GAP + 40 + GAP
    assert (first[:, left:] == (0, 0, 255)).all()
    assert (second[:, left : left + 40] == (255, 0, 0)).all()
    assert (first[:, 90 + GAP : left] == 255).all(), "the place of a missing panel is empty"


@pytest.mark.parametrize("width", [1, 60, 500])
def test_a_legend_shows_every_colour_within_its_width(width):
    colours = [Colour("Kuh", (255, 0, 0)), Colour("Mähdrescher", (0, 0, 255)), Colour("c" * 99, (0, 255, 0))]
    drawn = np.asarray(legend(colours, width))
    assert drawn.shape[1] == width
    assert all((drawn == rgb).all(axis=2).any() for _, rgb in colours) or width == 1


def test_the_colours_of_neighbouring_classes_differ_and_show_on_grey():
    colours = np.array(display_palette()).reshape(256, 3).astype(int)
    assert colours[0].tolist() == [0, 0, 0]
    assert colours[255].tolist() == [255, 255, 255]
    for class_id in range(1, 255):
        assert colours[class_id].max() == 255
        assert np.ptp(colours[class_id]) > 100, "not grey"
    near = [np.abs(colours[a] - colours[b]).sum() for a in range(1, 22) for b in range(a + 1, 22)]
    assert min(near) > 80


def test_a_sheet_holds_every_row():
    rows = [Image.new("RGB", (60, 20), "red"), Image.new("RGB", (90, 30), "blue")]
    sheet = np.asarray(contact_sheet(rows))
    assert sheet.shape == (GAP + 20 + GAP + 30 + GAP, 90 + 2 * GAP, 3)
    assert (sheet[GAP : GAP + 20, GAP : GAP + 60] == (255, 0, 0)).all()
    assert (sheet[2 * GAP + 20 : 2 * GAP + 50, GAP : GAP + 90] == (0, 0, 255)).all()
    assert (sheet[:GAP] == 255).all()


def test_a_png_holds_the_same_pixels():
    sheet = contact_sheet([panel_row([Panel("x", np.zeros((9, 9, 3), np.uint8))])])
    for image in (sheet, np.asarray(sheet)):
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(encode_png(image)))), np.asarray(sheet))


def test_an_empty_row_or_sheet_is_refused():
    with pytest.raises(ValueError, match="at least one panel"):
        panel_row([])
    with pytest.raises(ValueError, match="at least one row"):
        contact_sheet([])
