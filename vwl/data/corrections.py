"""Corrected masks as ground truth of an index (`vwl data add-masks`), after a review of the worst masks (`vwl review`).

The content of each mask is stored in the new index itself: a run cannot meet another version of it later, and the fingerprints of the
stages that use it follow from its content.
"""

import csv
import hashlib
import io
from dataclasses import dataclass, replace

import numpy as np

from vwl.constants import IGNORE
from vwl.data.index import Index, Row, Rows
from vwl.errors import VwlError, did_you_mean
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, encode_mask

QUEUE = "queue.csv"
"""File beside the masks of a review, with a digest of each mask as the run made it."""


@dataclass(frozen=True)
class AddedMasks:
    """The result of `add_masks`.

    Attributes:
        index: with the corrected masks.
        training, held_out: ids of the images of splits train and aug, and of the others, whose mask is corrected by this call.
        unchanged: ids of the images whose mask is as the run made it, left out.
        unlabelled: by image id, names of classes in the mask that are not labels of the image.
    """

    index: Index
    training: tuple[str, ...]
    held_out: tuple[str, ...]
    unchanged: tuple[str, ...]
    unlabelled: dict[str, tuple[str, ...]]


def add_masks(index: Index, folder: Folder, keep_unchanged: bool = False) -> AddedMasks:
    """Return an index in which the masks of a folder are the ground truth of their images; earlier corrections of other images stay.

    Args:
        index: the data set.
        folder: with `<image id>.png`, indexed or grey PNG of class ids (255 ignored), each as large as its upright image.
        keep_unchanged: also take masks that `vwl review` wrote into the folder and nobody has changed: they were found to be right.

    Raises:
        VwlError: the folder holds no masks or only unchanged ones, or a mask belongs to no image, is not as large as its image, holds an
            id that is not a class, labels no pixel or cannot be read; the message names the file.
    """
    names = folder.names(".png")
    if not names:
        raise VwlError(f"{folder} holds no masks; name indexed PNG files after the images, e.g. {index.rows[0].image_id}.png")
    positions = index.rows.columns.find([name.removesuffix(".png") for name in names])
    if (positions < 0).any():
        name = names[int(np.argmax(positions < 0))]
        image_id = name.removesuffix(".png")
        near = did_you_mean(image_id, index.rows.image_ids)
        raise VwlError(f"{folder.uri_of(name)} belongs to no image of the index: there is no '{image_id}'{near}")
    digests = {} if keep_unchanged else _digests(folder)
    unlabelled, unchanged = {}, []
    masks: dict[int, bytes] = {}
    added: list[Row] = []
    for position, name in zip(positions.tolist(), names, strict=True):
        row = index.rows[position]
        mask = _checked_mask(index, row, folder, name)
        if mask_digest(mask) == digests.get(row.image_id):
            unchanged.append(row.image_id)
            continue
        surplus = set(np.unique(mask).tolist()) - {0, IGNORE, *row.labels}
        if surplus:
            unlabelled[row.image_id] = tuple(index.classes[class_id] for class_id in sorted(surplus))
        masks[position] = encode_mask(mask, index.palette)
        added.append(row)
    if len(unchanged) == len(names):
        raise VwlError(f"no mask in {folder} was changed since vwl review wrote it; if all were found to be right, give --unchanged")
    training = tuple(row.image_id for row in added if row.split in {"train", "aug"})
    held_out = tuple(row.image_id for row in added if row.split not in {"train", "aug"})
    return AddedMasks(replace(index, rows=Rows(index.rows.columns.with_corrected(masks))), training, held_out, tuple(unchanged), unlabelled)


def mask_digest(mask: np.ndarray) -> str:
    """Return 16 hex digits of a hash of a mask (H, W) uint8, however its file is compressed."""
    return hashlib.sha256(f"{mask.shape}".encode() + np.ascontiguousarray(mask).tobytes()).hexdigest()[:16]


def _checked_mask(index: Index, row: Row, folder: Folder, name: str) -> np.ndarray:
    """Return a corrected mask (H, W) uint8 that fits its image and the classes."""
    uri = folder.uri_of(name)
    folder.require_inside(name)
    mask = decode_mask(folder.read(name), uri)
    width, height = index.read_image(row).size
    if mask.shape != (height, width):
        raise VwlError(f"mask {uri} is {mask.shape[1]} x {mask.shape[0]} pixels, its image {row.image} {width} x {height} (upright)")
    ids = np.unique(mask)
    unknown = [int(class_id) for class_id in ids if index.num_objects < class_id < IGNORE]
    if unknown:
        raise VwlError(f"mask {uri} holds the class id {unknown[0]}; valid ids are 0 to {index.num_objects} and {IGNORE} (ignored)")
    if ids.tolist() == [IGNORE]:
        raise VwlError(f"mask {uri} labels no pixel: all are {IGNORE}, ignored; correct it or delete the file")
    return mask


def _digests(folder: Folder) -> dict[str, str]:
    """Return the digest by image id of the masks as `vwl review` wrote them; none for a folder of other origin."""
    if not folder.exists(QUEUE):
        return {}
    try:
        lines = csv.DictReader(io.StringIO(folder.read(QUEUE).decode()))
        return {line["image_id"]: line["digest"] for line in lines}
    except (UnicodeDecodeError, KeyError, csv.Error):
        raise VwlError(f"{folder.uri_of(QUEUE)} is not the table of vwl review; restore it, or delete it to take all masks") from None
