"""Ultralytics' YOLO segmentation format: a text file for each image, one line for each region, and `data.yaml`.

Classes count from 0, without the background. A line is one polygon: holes are joined to the outline by bridges without width. Readers
turn coordinates into pixels and fill the polygon with its border, so the corners are pixels of the region, a quarter of a pixel from
where rounding down and rounding to the nearest differ.
"""

import re

import numpy as np
import yaml

from vwl.exporters.polygons import bridged
from vwl.exporters.regions import Region
from vwl.exporters.source import Entry
from vwl.exporters.target import Target

_SPLITS = {"train": "train", "aug": "train", "val": "val", "test": "test"}
_INSIDE = 0.25


def write(target: Target) -> None:
    """Write `labels/SPLIT/NAME.txt`, SPLIT.txt with the paths of the images, and `data.yaml`; the images go to `images/SPLIT/`."""
    lists: dict[str, list[str]] = {}
    for entry, mask in target.masks():
        image = _image_path(entry)
        height, width = mask.shape
        lines = [_line(region, height, width) for region in target.regions(mask)]
        target.out.write(label_path(image), "".join(lines).encode())
        target.copy_image(entry, image)
        lists.setdefault(_SPLITS.get(entry.split, entry.split), []).append(f"./{image}")
    for split, images in lists.items():
        target.out.write(f"{split}.txt", "".join(f"{image}\n" for image in images).encode())
    first = next(iter(lists))
    splits = {split: f"{split if split in lists else first}.txt" for split in dict.fromkeys(["train", "val", *lists])}
    data = {**splits, "names": dict(enumerate(target.source.table.classes[1:]))}
    target.out.write("data.yaml", yaml.safe_dump(data, sort_keys=False, allow_unicode=True).encode())


def label_path(image: str) -> str:
    """Return where Ultralytics looks for the labels of an image: in `labels` instead of the last folder `images` of its path."""
    return re.sub(r"(.*/|^)images/", r"\1labels/", image).rpartition(".")[0] + ".txt"


def _image_path(entry: Entry) -> str:
    suffix = entry.image[entry.image.rfind(".") :]
    name = entry.name if entry.name.endswith(suffix) else f"{entry.name}{suffix}"
    return f"images/{_SPLITS.get(entry.split, entry.split)}/{name}"


def _line(region: Region, height: int, width: int) -> str:
    assert region.outline is not None
    corners = bridged(region.outline.pixels, [hole.pixels for hole in region.holes])
    shares = (corners + _INSIDE) / np.array([width, height])
    return f"{region.class_id - 1} {' '.join(f'{value:.6f}' for value in shares.ravel())}\n"
