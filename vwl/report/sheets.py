"""Sheets: images side by side with captions, rows below each other, a legend of the colours, and their encoding as PNG.

Pure functions of arrays and Pillow images. `vwl.report.summary` fills them with the stages of a run.
"""

import io
from collections.abc import Iterable, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vwl.report.overlays import display_palette

GAP = 8
"""Space between the panels of a row, between rows and around the sheet, in pixels."""
CAPTION_HEIGHT = 13
"""Font size of the captions, in pixels."""


class Panel(NamedTuple):
    """One image of a row.

    Attributes:
        caption: the text above it.
        image: (H, W, 3) uint8 RGB; None leaves its place in the row empty.
    """

    caption: str
    image: np.ndarray | None


class Colour(NamedTuple):
    """One entry of a legend."""

    name: str
    rgb: tuple[int, int, int]


def panel_row(panels: Sequence[Panel], height: int = 220, widths: Sequence[int] | None = None) -> Image.Image:
    """Return the panels side by side, each with its caption above; a caption wider than its image is shortened.

    Args:
        panels: the panels, from left to right.
        height: height that the images are scaled to, in pixels.
        widths: width of each panel's column, in pixels; those of the scaled images if not given.

    Raises:
        ValueError: there is no panel.
    """
    if not panels:
        raise ValueError("a row needs at least one panel")
    scaled = [_scaled(panel, height) for panel in panels]
    columns = widths or [0 if image is None else image.width for image in scaled]
    top = CAPTION_HEIGHT + GAP
    shown = [width for width in columns if width]
    row = Image.new("RGB", (sum(shown) + GAP * (len(shown) - 1), top + height), "white")
    draw = ImageDraw.Draw(row)
    left = 0
    for panel, image, width in zip(panels, scaled, columns, strict=True):
        if image is not None:
            draw.text((left, GAP // 4), _shorten(panel.caption, width), fill="black", font=_font())
            row.paste(image, (left, top))
        left += width + GAP if width else 0
    return row


def aligned_rows(rows: Sequence[Sequence[Panel]], height: int = 220) -> list[Image.Image]:
    """Return the rows as `panel_row` does, with panels of the same position below each other; all rows have the same number of panels.

    Raises:
        ValueError: a row has another number of panels.
    """
    scaled = [[_scaled(panel, height) for panel in row] for row in rows]
    widths = [max(0 if image is None else image.width for image in column) for column in zip(*scaled, strict=True)]
    return [panel_row(row, height, widths) for row in rows]


def legend(colours: Sequence[Colour], width: int) -> Image.Image:
    """Return the colours with their names, in as many lines as the width needs; a name wider than it is shortened."""
    font, square = _font(), CAPTION_HEIGHT
    places, left, top = [], 0, 0
    for colour in colours:
        name = _shorten(colour.name, max(1, width - square - GAP // 2))
        needed = square + GAP // 2 + round(font.getlength(name))
        if left and left + needed > width:
            left, top = 0, top + square + GAP
        places.append((left, top, name, colour.rgb))
        left += needed + 2 * GAP
    image = Image.new("RGB", (max(1, width), top + square + GAP // 2), "white")
    draw = ImageDraw.Draw(image)
    for x, y, name, rgb in places:
        draw.rectangle((x, y, x + square - 1, y + square - 1), fill=rgb, outline="grey")
        draw.text((x + square + GAP // 2, y - 1), name, fill="black", font=font)
    return image


def class_colours(classes: Sequence[str], class_ids: Iterable[int]) -> list[Colour]:
    """Return the entries of a legend for some class ids; the background and ignored pixels have none."""
    colours = np.array(display_palette()).reshape(256, 3)
    return [Colour(classes[number], tuple(colours[number].tolist())) for number in sorted(class_ids) if 0 < number < len(classes)]


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


def _scaled(panel: Panel, height: int) -> Image.Image | None:
    """Return a panel's image at a height."""
    if panel.image is None:
        return None
    image = Image.fromarray(panel.image)
    return image.resize((max(1, round(image.width * height / image.height)), height), Image.Resampling.LANCZOS)


@cache
def _font() -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Return matplotlib's DejaVu Sans, which has the letters of most languages; Pillow's own has no umlauts."""
    found = find_spec("matplotlib")
    for folder in (found.submodule_search_locations or []) if found else []:
        path = Path(folder, "mpl-data", "fonts", "ttf", "DejaVuSans.ttf")
        if path.is_file():
            return ImageFont.truetype(str(path), CAPTION_HEIGHT)
    return ImageFont.load_default(CAPTION_HEIGHT)


def _shorten(caption: str, width: int) -> str:
    """Return the caption, cut and ended by an ellipsis if it is wider than `width` pixels."""
    font = _font()
    if font.getlength(caption) <= width:
        return caption
    while caption and font.getlength(f"{caption}…") > width:
        caption = caption[:-1]
    return f"{caption.rstrip()}…" if caption else ""
