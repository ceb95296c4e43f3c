"""Sheets hold every panel and row, with their captions."""

import io

import numpy as np
import pytest
from PIL import Image

from vwl.report.sheets import CAPTION_HEIGHT, GAP, Panel, contact_sheet, encode_png, panel_row


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
