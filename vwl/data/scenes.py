"""A data set that needs no download: generated scenes for the demo and the tests.

One way among four to make an index table, and the only one that also makes the images. What is drawn, and why, stands in
`vwl.data.animals`. Every scene is drawn from (seed, split, number) alone, so that a larger set contains the smaller one
and a set that was cut off goes on where it stopped.
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
_DRAWING = 1  # increase when the same settings give other images


def prepare_scenes(
    out: str | Path | Folder,
    num_train: int = 240,
    num_val: int = 80,
    heights: tuple[int, int] = (180, 220),
    widths: tuple[int, int] = (240, 280),
    num_classes: int = 4,
    seed: int = 0,
) -> tuple[Index, list[str]]:
    """Draw scenes into a folder (`images/*.jpg`, `masks/*.png`) and index them; existing scenes are kept.

    Args:
        out: folder of the data set.
        num_train, num_val: number of scenes of each split.
        heights, widths: closed ranges of the sizes, pixels.
        num_classes: object classes, 1 to 6.
        seed: another seed, other scenes.

    Returns:
        the index, with splits `train` and `val`, and notes for the user.

    Raises:
        VwlError: a value out of range, or the folder holds scenes of other settings.
    """
    folder = out if isinstance(out, Folder) else Folder(out)
    if not 1 <= num_classes <= len(ANIMALS):
        raise VwlError(f"scenes have 1 to {len(ANIMALS)} classes, not {num_classes}")
    if num_train < 0 or num_val < 0:
        raise VwlError(f"the number of scenes cannot be negative ({num_train} train, {num_val} val)")
    for name, (low, high) in (("heights", heights), ("widths", widths)):
        if not 32 <= low <= high:
            raise VwlError(f"the {name} of scenes are a range from at least 32 pixels, not {low} to {high}")
    settings = {"drawing": _DRAWING, "heights": [*heights], "widths": [*widths], "num_classes": num_classes, "seed": seed}
    if folder.exists(_SETTINGS):
        if folder.read_json(_SETTINGS) != settings:
            raise VwlError(f"{folder} holds scenes of other settings (see {_SETTINGS} there); choose another folder or delete it")
    else:
        folder.write_json(_SETTINGS, settings)

    wanted = [("train", number) for number in range(num_train)] + [("val", number) for number in range(num_val)]
    there = {*(f"images/{name}" for name in (folder / "images").names()), *(f"masks/{name}" for name in (folder / "masks").names())}

    def row(key: tuple[str, int]) -> tuple[Row, bool]:
        split, number = key
        image_id = f"{split}_{number:05d}"
        image, mask = f"images/{image_id}.jpg", f"masks/{image_id}.png"
        if image in there and mask in there:
            return Row(image_id, image, _labels(decode_mask(folder.read(mask), mask)), mask, split), False
        rng = np.random.default_rng((seed, ("train", "val").index(split), number))
        height, width = rng.integers(*heights, endpoint=True), rng.integers(*widths, endpoint=True)
        picture, classes = draw_scene(rng, int(height), int(width), num_classes)
        sink = io.BytesIO()
        Image.fromarray(picture).save(sink, format="JPEG", quality=92)
        folder.write(image, sink.getvalue())
        folder.write(mask, encode_mask(classes, voc_palette()))
        return Row(image_id, image, _labels(classes), mask, split), True

    with ThreadPoolExecutor() as pool:
        rows = list(pool.map(row, wanted))
    num_new = sum(new for _, new in rows)
    names = ["background", *(animal.name for animal in ANIMALS[:num_classes])]
    index = make_index((row for row, _ in rows), names, folder, f"generated scenes, seed {seed}")
    return index, [f"drew {num_new} scenes, kept {len(rows) - num_new} that were there"]


def _labels(mask: np.ndarray) -> tuple[int, ...]:
    return tuple(int(label) for label in np.unique(mask) if label)
