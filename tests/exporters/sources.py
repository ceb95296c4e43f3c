"""Masks for the tests of exports: awkward ones in memory, and real ones."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from tests.helpers import real_data
from vwl.exporters.source import Entry, MaskSource
from vwl.storage.class_table import ClassTable
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, voc_palette

NAMES = ("background", *(f"class {number}" for number in range(1, 21)))
TABLE = ClassTable(NAMES, tuple(voc_palette()))


def ring() -> np.ndarray:
    """A frame of class 1 around a hole with an island of class 2, a lone pixel, a line and two pixels that touch at a corner."""
    mask = np.zeros((24, 31), np.uint8)
    mask[2:14, 3:17] = 1
    mask[5:11, 6:13] = 0
    mask[7:9, 8:11] = 2
    mask[20, 29] = 3
    mask[18, 2:20] = 4
    mask[21, 22] = mask[22, 23] = 5
    mask[0, 30] = 255
    return mask


def noise(seed: int, height: int = 23, width: int = 37, num_classes: int = 4) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, num_classes, (height, width)).astype(np.uint8)


def awkward() -> list[np.ndarray]:
    """Holes, lone pixels, noise, a full image, an empty one and one that is ignored."""
    full = [np.full((9, 14), value, np.uint8) for value in (1, 0, 255)]
    return [ring(), noise(1), noise(2, num_classes=3), *full]


def real() -> list[np.ndarray]:
    """20 real masks: of the folder VWL_MASKS, or the ground truth of VOC images."""
    folder = Path(os.environ["VWL_MASKS"]) if "VWL_MASKS" in os.environ else real_data("voc12mini") / "SegmentationClassAug"
    files = sorted(folder.glob("*.png"))
    assert len(files) >= 20
    return [decode_mask(file.read_bytes(), file.name) for file in files[:: len(files) // 20][:20]]


def source_of(masks: Sequence[np.ndarray], images: Path | None = None, split: str = "train") -> MaskSource:
    """A source of masks in memory; with a folder, their images are drawn there."""
    entries = [Entry(f"n{number:03}", f"deep/n{number:03}.jpg", split, f"n{number:03}.png") for number in range(len(masks))]
    by_name = {entry.name: mask for entry, mask in zip(entries, masks, strict=True)}
    if images is not None:
        (images / "deep").mkdir(parents=True)
        for entry in entries:
            Image.new("RGB", by_name[entry.name].shape[::-1], (90, 120, 150)).save(images / entry.image)
    return MaskSource(entries, TABLE, None if images is None else Folder(images), "vwl test", lambda entry: by_name[entry.name])


def painted(shape: tuple[int, int], parts: Sequence[tuple[int, np.ndarray]]) -> np.ndarray:
    """A mask with the class ids of bitmaps."""
    mask = np.zeros(shape, np.uint8)
    for class_id, bitmap in parts:
        mask[bitmap.astype(bool)] = class_id
    return mask


def without_ignored(mask: np.ndarray) -> np.ndarray:
    """What a format without ignored pixels can hold of a mask."""
    return np.where(mask == 255, 0, mask)


def ious(mask: np.ndarray, found: np.ndarray) -> list[float]:
    """The IoU of each object class of a mask."""
    classes = [class_id for class_id in np.unique(mask) if class_id not in (0, 255)]
    return [float(((mask == c) & (found == c)).sum() / ((mask == c) | (found == c)).sum()) for c in classes]
