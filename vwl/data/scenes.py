"""A data set without download: generated scenes for the demo and the tests.

One of the importers behind `vwl data prepare`, and the only one that makes the images itself; `vwl.data.animals` draws them. A scene
depends on (seed, split, number) only. So a larger data set contains the smaller one, and an interrupted command can be repeated
to draw the scenes that are missing.
"""

import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from vwl.data.animals import ANIMALS, draw_scene
from vwl.data.index import Index, Row, make_index
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, encode_mask, voc_palette

_SETTINGS = "scenes.json"
_MAX_SIDE = 4096
_DRAWING = 1  # version of the drawing code: increase it when the same settings give other images


def prepare_scenes(
    out: str | Path | Folder,
    num_train: int = 240,
    num_val: int = 80,
    heights: tuple[int, int] = (180, 220),
    widths: tuple[int, int] = (240, 280),
    num_classes: int = 4,
    seed: int = 0,
    heads: bool = False,
) -> tuple[Index, list[str]]:
    """Draw scenes into a folder (`images/*.jpg`, `masks/*.png`) and return their index; existing scenes are kept.

    Args:
        out: folder of the data set.
        num_train: number of scenes in split train.
        num_val: number of scenes in split val.
        heights: smallest and largest height, in pixels.
        widths: smallest and largest width, in pixels.
        num_classes: number of object classes, 1 to 6.
        seed: seed of the scenes.
        heads: also write `heads/*.png`, masks of the heads alone, which are the parts that tell the classes apart.

    Returns:
        The index, with splits `train` and `val`, and notes for the user, one line each.

    Raises:
        VwlError: a value is out of range, or the folder holds scenes of other settings.
    """
    folder = out if isinstance(out, Folder) else Folder(out)
    if not 1 <= num_classes <= len(ANIMALS):
        raise VwlError(f"the number of classes of scenes must be 1 to {len(ANIMALS)}, not {num_classes}")
    if num_train < 0 or num_val < 0 or num_train + num_val == 0:
        raise VwlError(f"the numbers of scenes cannot be negative and not both 0 ({num_train} train, {num_val} val)")
    if seed < 0:
        raise VwlError(f"the seed of scenes is {seed}; it cannot be negative")
    for name, (low, high) in (("heights", heights), ("widths", widths)):
        if not 32 <= low <= high <= _MAX_SIDE:
            raise VwlError(f"the {name} of scenes must be a range from at least 32 to at most {_MAX_SIDE} pixels, not {low} to {high}")
    settings = {"drawing": _DRAWING, "heights": [*heights], "widths": [*widths], "num_classes": num_classes, "seed": seed}
    if folder.exists(_SETTINGS):
        if folder.read_json(_SETTINGS) != settings:
            raise VwlError(f"{folder} holds scenes of other settings (see {_SETTINGS} there); delete the folder or choose another")
    else:
        folder.write_json(_SETTINGS, settings)

    scenes = [("train", number) for number in range(num_train)] + [("val", number) for number in range(num_val)]
    existing = {f"{part}/{name}" for part in ("images", "masks", "heads") for name in (folder / part).names()}

    def draw_or_keep(scene: tuple[str, int]) -> tuple[Row, bool]:
        split, number = scene
        image_id = f"{split}_{number:05d}"
        image, mask, head = f"images/{image_id}.jpg", f"masks/{image_id}.png", f"heads/{image_id}.png"
        if {image, mask, head} - existing <= ({head} if not heads else set()):
            return Row(image_id, image, _labels(decode_mask(folder.read(mask), mask)), mask, split), False
        rng = np.random.default_rng((seed, ("train", "val").index(split), number))
        height, width = rng.integers(*heights, endpoint=True), rng.integers(*widths, endpoint=True)
        drawn = draw_scene(rng, int(height), int(width), num_classes)
        sink = io.BytesIO()
        Image.fromarray(drawn.image).save(sink, format="JPEG", quality=92)
        folder.write(image, sink.getvalue())
        folder.write(mask, encode_mask(drawn.mask, voc_palette()))
        if heads:
            folder.write(head, encode_mask(drawn.heads, voc_palette()))
        return Row(image_id, image, _labels(drawn.mask), mask, split), True

    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(draw_or_keep, scenes))
    num_new = sum(new for _, new in rows)
    names = ["background", *(animal.name for animal in ANIMALS[:num_classes])]
    index = make_index((row for row, _ in rows), names, folder, f"generated scenes, seed {seed}")
    return index, [f"drew {num_new} scenes, kept {len(rows) - num_new} existing ones"]


def _labels(mask: np.ndarray) -> tuple[int, ...]:
    """Return the class ids that occur in a mask, without the background."""
    return tuple(int(label) for label in np.unique(mask) if label)
