"""Sheets: images side by side with captions, rows below each other, and their encoding as PNG.

Pure functions of arrays and Pillow images. `vwl.report.summary` fills them with the stages of a run.
"""

import io
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

GAP = 8
"""Space between the panels of a row, between rows and around the sheet, in pixels."""
CAPTION_HEIGHT = 13
"""Font size of the captions, in pixels."""


class Panel(NamedTuple):
    """One image of a row.

    Attributes:
        caption: the text above it.
        image: (H, W, 3) uint8 RGB.
    """

    caption: str
    image: np.ndarray


def panel_row(panels: Sequence[Panel], height: int = 220) -> Image.Image:
    """Return the panels side by side, each with its caption above; a caption wider than its image is shortened.

    Args:
        panels: the panels, from left to right.
        height: height that the images are scaled to, in pixels.

    Raises:
        ValueError: there is no panel.
    """
    if not panels:
        raise ValueError("a row needs at least one panel")
    font = ImageFont.load_default(CAPTION_HEIGHT)
    images = [Image.fromarray(panel.image) for panel in panels]
    scaled = [image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.LANCZOS) for image in images]
    top = CAPTION_HEIGHT + GAP
    row = Image.new("RGB", (sum(image.width for image in scaled) + GAP * (len(scaled) - 1), top + height), "white")
    draw = ImageDraw.Draw(row)
    left = 0
    for panel, image in zip(panels, scaled, strict=True):
        draw.text((left, GAP // 4), _shorten(panel.caption, font, image.width), fill="black", font=font)
        row.paste(image, (left, top))
        left += image.width + GAP
    return row


def contact_sheet(rows: Sequence[Image.Image]) -> Image.Image:
    """Return the rows below each other on white, with a margin.

    Raises:
        ValueError: there is no row.
    """
    if not rows:
        raise ValueError("a sheet needs at least one row")
    sheet = Image.new("RGB", (max(row.width for row in rows) + 2 * GAP, sum(row.height + GAP for row in rows) + GAP), "white")
    top = GAP
    for row in rows:
        sheet.paste(row, (GAP, top))
        top += row.height + GAP
    return sheet


def encode_png(image: np.ndarray | Image.Image) -> bytes:
    """Return a Pillow image, or an array (H, W, 3) uint8 RGB, encoded as PNG."""
    sink = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(sink, format="PNG")
    return sink.getvalue()


def _shorten(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    """Return the caption, cut and ended by an ellipsis if it is wider than `width` pixels."""
    if font.getlength(caption) <= width:
        return caption
    while caption and font.getlength(f"{caption}…") > width:
        caption = caption[:-1]
    return f"{caption.rstrip()}…" if caption else ""
