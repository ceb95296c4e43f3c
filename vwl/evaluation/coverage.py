"""How much of whole objects score maps cover, on generated scenes whose masks tell the heads from the rest: the paper's claim, directly.

The head alone identifies a scene's animal (`vwl.data.animals`), so that a plain classifier activates there. Visual words and hybrid
pooling should extend the maps to the rest of the body.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vwl.data.index import Index, Row
from vwl.errors import VwlError
from vwl.maps.cam import argmax_with_background, upsample
from vwl.storage.masks import decode_mask
from vwl.storage.score_maps import MapReader


@dataclass(frozen=True)
class Coverage:
    """Shares of pixels in percent, over all animals of all images.

    Attributes:
        head_recall: of the heads' pixels, those with the animal's class.
        body_recall: of all other pixels of animals, those with the animal's class.
        precision: of the pixels that are given a class, those that have it.
    """

    head_recall: float
    body_recall: float
    precision: float


def coverage(index: Index, rows: Sequence[Row], maps: MapReader, threshold: float) -> Coverage:
    """Cut score maps at a background threshold and return what they cover.

    Args:
        index: of scenes that were prepared with `heads=True`.
        rows: images to look at.
        maps: score maps of these.
        threshold: background score.

    Raises:
        VwlError: the scenes have no masks of heads, or a map is missing.
    """
    counts: Counter[str] = Counter()
    for row in rows:
        found = maps.read(row.image_id)
        mask = argmax_with_background(upsample(found.values, found.height, found.width), found.classes, threshold)
        truth, path = index.read_mask(row), f"heads/{row.image_id}.png"
        if not index.root.exists(path):
            raise VwlError(f"{index.root} has no {path}; draw the scenes with: vwl data prepare scenes --heads")
        head = decode_mask(index.root.read(path), path) > 0
        right, body = (mask == truth) & (truth > 0), (truth > 0) & ~head
        for name, pixels in (("right", right), ("given", mask > 0), ("head", head), ("body", body)):
            counts[name] += int(pixels.sum())
        counts["right head"] += int((right & head).sum())
        counts["right body"] += int((right & body).sum())
    return Coverage(
        head_recall=_percent(counts["right head"], counts["head"]),
        body_recall=_percent(counts["right body"], counts["body"]),
        precision=_percent(counts["right"], counts["given"]),
    )


def _percent(part: int, whole: int) -> float:
    return round(100 * part / whole, 2) if whole else 0.0
