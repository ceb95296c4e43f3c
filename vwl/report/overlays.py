"""Pictures for people: photograph, score maps and masks side by side, with captions.

Reads what the stages of the flow have written and changes nothing; Fig. 6 to 9 of the paper are such sheets. Overlays are plain
arrays of the photograph's size, sheets are Pillow images.
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vwl.constants import IGNORE

GAP = 8
"""Pixels between the panels of a sheet."""
CAPTION = 13
"""Height of the captions' letters, pixels."""


def heat_overlay(photo: np.ndarray, maps: np.ndarray, class_ids: Sequence[int], palette: Sequence[int], alpha: float = 0.85) -> np.ndarray:
    """Return the photograph in grey with its score maps on it, each class in its colour, the stronger the more opaque.

    Args:
        photo: (H, W, 3) uint8.
        maps: (K, h, w) float, scores of 0 to 1, of any size; they are stretched over the photograph.
        class_ids: K class ids; maps of the background (0) are not drawn.
        palette: 768 colour values.
        alpha: opacity of the score 1.

    Returns:
        (H, W, 3) uint8.
    """
    height, width = photo.shape[:2]
    colours = _colours(palette)
    base = np.repeat((photo @ np.array([0.299, 0.587, 0.114]) * 0.8 + 40)[..., None], 3, axis=2)
    shown = [place for place, class_id in enumerate(class_ids) if class_id != 0]
    if not shown:
        return base.round().astype(np.uint8)
    scores = np.stack([_stretched(maps[place], height, width) for place in shown])
    strongest = scores.argmax(axis=0)
    heat = colours[np.array([class_ids[place] for place in shown])][strongest]
    opacity = alpha * scores.max(axis=0)[..., None]
    return ((1 - opacity) * base + opacity * heat).round().astype(np.uint8)


def mask_overlay(photo: np.ndarray, mask: np.ndarray, palette: Sequence[int], alpha: float = 0.55) -> np.ndarray:
    """Return the photograph with its mask on it: objects tinted and outlined, ignored pixels whitened, background as it is.

    Args:
        photo: (H, W, 3) uint8.
        mask: (H, W) uint8 class ids, 255 ignored.
        palette: 768 colour values.
        alpha: opacity of the tint.

    Returns:
        (H, W, 3) uint8.

    Raises:
        ValueError: photograph and mask differ in size.
    """
    if photo.shape[:2] != mask.shape:
        raise ValueError(f"photograph of {photo.shape[:2]} and mask of {mask.shape} pixels")
    colours = _colours(palette)[mask]
    opacity = np.where(mask == 0, 0.0, alpha)
    opacity[_outline(mask) & (mask != 0) & (mask != IGNORE)] = 1.0
    return ((1 - opacity[..., None]) * photo + opacity[..., None] * colours).round().astype(np.uint8)


def panel_row(panels: Sequence[tuple[str, np.ndarray]], height: int = 220) -> Image.Image:
    """Return pictures in one row, each with its caption above.

    Args:
        panels: caption and picture (H, W, 3) uint8 of each; a caption wider than its picture is cut.
        height: what the pictures are scaled to, pixels.
    """
    if not panels:
        raise ValueError("a row without pictures")
    font = ImageFont.load_default(CAPTION)
    pictures = []
    for caption, array in panels:
        picture = Image.fromarray(array)
        picture = picture.resize((max(1, round(picture.width * height / picture.height)), height), Image.Resampling.LANCZOS)
        pictures.append((_cut(caption, font, picture.width), picture))
    top = CAPTION + GAP
    row = Image.new("RGB", (sum(p.width for _, p in pictures) + GAP * (len(pictures) - 1), top + height), "white")
    draw = ImageDraw.Draw(row)
    left = 0
    for caption, picture in pictures:
        draw.text((left, GAP // 4), caption, fill="black", font=font)
        row.paste(picture, (left, top))
        left += picture.width + GAP
    return row


def contact_sheet(rows: Sequence[Image.Image]) -> Image.Image:
    """Return rows below each other on white, with a margin."""
    if not rows:
        raise ValueError("a sheet without rows")
    sheet = Image.new("RGB", (max(row.width for row in rows) + 2 * GAP, sum(row.height + GAP for row in rows) + GAP), "white")
    top = GAP
    for row in rows:
        sheet.paste(row, (GAP, top))
        top += row.height + GAP
    return sheet


def png(picture: np.ndarray | Image.Image) -> bytes:
    """Return a sheet, or an overlay (H, W, 3) uint8, as PNG."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    sink = io.BytesIO()
    image.save(sink, format="PNG")
    return sink.getvalue()


def _colours(palette: Sequence[int]) -> np.ndarray:
    return np.asarray(palette, dtype=np.float64).reshape(256, 3)


def _stretched(scores: np.ndarray, height: int, width: int) -> np.ndarray:
    """Return scores (h, w) at the photograph's size, within 0 to 1; not-a-number counts as 0."""
    image = Image.fromarray(np.nan_to_num(scores.astype(np.float32), posinf=1.0).clip(0, 1))
    return np.asarray(image.resize((width, height), Image.Resampling.BILINEAR))


def _outline(mask: np.ndarray) -> np.ndarray:
    """Return where a pixel's class differs from that of a neighbour (4-neighbourhood)."""
    edge = np.zeros(mask.shape, dtype=bool)
    down, right = mask[1:] != mask[:-1], mask[:, 1:] != mask[:, :-1]
    edge[1:] |= down
    edge[:-1] |= down
    edge[:, 1:] |= right
    edge[:, :-1] |= right
    return edge


def _cut(caption: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> str:
    if font.getlength(caption) <= width:
        return caption
    while caption and font.getlength(f"{caption}…") > width:
        caption = caption[:-1]
    return f"{caption.rstrip()}…" if caption else ""
