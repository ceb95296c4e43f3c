"""The JSON of COCO's instances: its images, categories and annotations, checked, and the pixels of an annotation.

`vwl.data.coco` paints masks from them. The file may come from anywhere, and pycocotools is C code that trusts its input: what it gets
is checked here, and run lengths are decoded here.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vwl.errors import VwlError

_MAX_PIXELS = 178_956_970
"""Pixels of the largest image that Pillow decodes."""


@dataclass(frozen=True, slots=True)
class Instance:
    """One annotated object, or crowd of objects, of an image.

    Attributes:
        annotation_id: COCO's id of the annotation.
        category_id: COCO's id of its category.
        area: its area as COCO states it, in square pixels.
        segmentation: polygons ``[[x, y, x, y, ...], ...]`` in pixels, or run lengths ``{"counts": ..., "size": [height, width]}``.
        is_crowd: whether it is a crowd.
    """

    annotation_id: int
    category_id: int
    area: float
    segmentation: Any
    is_crowd: bool

    @classmethod
    def from_json(cls, annotation: dict[str, Any]) -> "Instance":
        """Return the instance of an entry of `annotations` in COCO's JSON.

        Raises:
            KeyError: a field is missing.
            TypeError: a field is of another type.
        """
        number, category, area, segmentation, crowd = (annotation[key] for key in ("id", "category_id", "area", "segmentation", "iscrowd"))
        if not isinstance(area, int | float) or not np.isfinite(area) or crowd not in (0, 1) or not isinstance(segmentation, list | dict):
            raise TypeError(f"annotation {number} has no valid area, iscrowd or segmentation")
        return cls(number, category, area, segmentation, bool(crowd))


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """An image that has annotations.

    Attributes:
        file_name: name of its file.
        height, width: its size as COCO states it, in pixels.
        instances: its annotations.
    """

    file_name: str
    height: int
    width: int
    instances: list[Instance]

    @property
    def stem(self) -> str:
        """The file's name without extension."""
        return Path(self.file_name).stem


def read_categories(content: Any, source: str) -> dict[int, str]:
    """Return category names by id, ascending.

    Args:
        content: the value of the JSON file.
        source: the file, for messages.

    Raises:
        VwlError: there is no list of categories with numbers and names.
    """
    try:
        categories = [(category["id"], category["name"]) for category in content["categories"]]
        if not all(type(number) is int and isinstance(name, str) for number, name in categories):
            raise TypeError("ids are numbers, names are text")
    except (KeyError, TypeError):
        raise VwlError(f"{source} is not a file of COCO instances: it has no valid list 'categories'") from None
    if len(dict(categories)) < len(categories):
        raise VwlError(f"{source} has two categories of one id; give each its own")
    return dict(sorted(categories))


def read_images(content: Any, source: str, categories: dict[int, str]) -> tuple[list[AnnotatedImage], int]:
    """Return the images that have annotations, sorted by file name, and the number of images without any.

    Args:
        content: the value of the JSON file.
        source: the file, for messages.
        categories: names of the categories by id.

    Raises:
        VwlError: an entry lacks a key, holds a value of another type, or names an image or category that is not listed.
    """
    try:
        images = {image["id"]: image for image in content["images"]}
        instances: dict[Any, list[Instance]] = defaultdict(list)
        for annotation in content["annotations"]:
            if annotation["image_id"] not in images:
                raise VwlError(f"{source}: annotation {annotation['id']} belongs to image {annotation['image_id']}, which is not listed")
            if annotation["category_id"] not in categories:
                raise VwlError(f"{source}: annotation {annotation['id']} has category {annotation['category_id']}, which is not listed")
            instances[annotation["image_id"]].append(Instance.from_json(annotation))
        annotated = [_annotated(image, instances[image_id]) for image_id, image in images.items() if image_id in instances]
    except KeyError as error:
        raise VwlError(f"{source} is not a file of COCO instances: an entry lacks the key {error}") from None
    except (TypeError, AttributeError, OverflowError) as error:
        raise VwlError(f"{source} is not a file of COCO instances: an entry has a value of another type ({error})") from None
    return sorted(annotated, key=lambda image: image.file_name), len(images) - len(annotated)


def _annotated(image: dict[str, Any], instances: list[Instance]) -> AnnotatedImage:
    """Return an image of the list of images.

    Raises:
        KeyError: a field is missing.
        TypeError: its file name is not text, or its size is none.
    """
    name, height, width = image["file_name"], image["height"], image["width"]
    if not isinstance(name, str):
        raise TypeError(f"the file name of image {image['id']} is {name}")
    if type(height) is not int or type(width) is not int or min(height, width) < 1 or height * width > _MAX_PIXELS:
        raise TypeError(f"image {image['id']} has width {width!r} and height {height!r}")
    return AnnotatedImage(name, height, width, instances)


def instance_region(instance: Instance, height: int, width: int) -> np.ndarray:
    """Return the pixels of an instance, (height, width) bool.

    Raises:
        VwlError: its segmentation is not valid or of another size; the message names the annotation.
    """
    shape, name = instance.segmentation, f"COCO annotation {instance.annotation_id}"
    try:
        if isinstance(shape, list):
            return _polygon_region(shape, height, width)
        if [*shape["size"]] != [height, width]:
            rows, columns = shape["size"]
            raise VwlError(f"{name} has a segmentation of {columns} x {rows} pixels, but its image has {width} x {height}")
        return _run_region(shape["counts"], height, width)
    except (TypeError, ValueError, KeyError, OverflowError) as error:
        raise VwlError(f"{name} has no valid segmentation ({error}); correct it in the file of annotations") from None


def _polygon_region(polygons: list[Any], height: int, width: int) -> np.ndarray:
    """Return the pixels inside polygons ``[x, y, x, y, ...]``."""
    # Fewer than three points enclose nothing; pycocotools would take two points for the corners of a box.
    outlines = [outline for polygon in polygons if len(outline := np.asarray(polygon, np.float64).reshape(-1, 2)) > 2]
    if not outlines:
        return np.zeros((height, width), bool)
    reach = 2 * max(height, width)
    if not all((np.abs(outline) <= reach).all() for outline in outlines):  # pycocotools takes memory for every pixel of an outline
        raise ValueError(f"a point is not a number or farther than {reach} pixels away")
    flat = [outline.ravel().tolist() for outline in outlines]
    return coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(flat, height, width))).astype(bool)


def _run_region(counts: Sequence[int] | str, height: int, width: int) -> np.ndarray:
    """Return the pixels of run lengths, of zeros and ones in turn down the columns, plain or as COCO's compressed text."""
    lengths = np.array(_uncompressed(counts) if isinstance(counts, str) else counts)
    size = height * width
    if lengths.ndim != 1 or lengths.dtype.kind != "i" or ((lengths < 0) | (lengths > size)).any() or lengths.sum() != size:
        raise ValueError(f"its run lengths do not add up to {size} pixels")
    return np.repeat(np.arange(len(lengths)) % 2 == 1, lengths).reshape((height, width), order="F")


def _uncompressed(text: str) -> list[int]:
    """Return the run lengths of a compressed text: numbers of five bits a character, from the third on less the one before the last."""
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        bits = ord(character) - 48
        if not 0 <= bits < 64 or shift > 60:
            raise ValueError(f"its run lengths hold the character {character!a}, or a number that is too long")
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:  # more characters follow
            continue
        if bits & 0x10:
            value -= 1 << shift
        lengths.append(value + (lengths[-2] if len(lengths) > 2 else 0))
        value = shift = 0
    return lengths
