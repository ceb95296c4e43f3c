"""MS COCO (2014 or 2017) as an index table, with masks painted from its instances (paper section 4.1).

One of the importers behind `vwl data prepare`. Class ids follow the ascending category ids, 80 in COCO. Images without annotation are
left out (82,081 train and 40,137 val images of 2014 remain). Masks are painted from the largest instance to the smallest, so that a
tie stays visible on its wearer; regions of crowds are ignored (255).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from pycocotools import mask as coco_mask

from vwl.constants import IGNORE
from vwl.data.folder import below, common_root
from vwl.data.index import Index, Row, make_index
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask, voc_palette

_YEARS = ("2014", "2017")
_SPLITS = ("train", "val")
_SIZES = {"train2014": 82_081, "val2014": 40_137}
_NUM_CLASSES = 80


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
        """
        number, category, area, segmentation, crowd = (annotation[key] for key in ("id", "category_id", "area", "segmentation", "iscrowd"))
        return cls(number, category, area, segmentation, bool(crowd))


@dataclass(frozen=True, slots=True)
class _AnnotatedImage:
    file_name: str
    height: int
    width: int
    instances: list[Instance]

    @property
    def stem(self) -> str:
        return Path(self.file_name).stem


def prepare_coco(
    root: str | Path | Folder, out_masks: str | Path | Folder | None = None, progress: Callable[[int, int], None] | None = None
) -> tuple[Index, list[str]]:
    """Paint the masks of COCO and return the index of its splits `train` and `val`; existing masks are kept.

    The labels of an image are the categories of all its annotations, crowds included.

    Args:
        root: folder with `annotations/instances_train2014.json` (and val2014; or 2017) and the images in `train2014` or
            `images/train2014`.
        out_masks: folder of the masks, `SegmentationClass` in `root` if not given; each split has its own folder in it.
        progress: called with (done, total) after each mask of a split.

    Returns:
        The index, whose root is the deepest folder that holds images and masks, and notes for the user, one line each.

    Raises:
        VwlError: annotations are missing or invalid, or an image file is missing or a link out of the root; the message names the file.
    """
    root = root if isinstance(root, Folder) else Folder(root)
    masks = root / "SegmentationClass" if out_masks is None else out_masks if isinstance(out_masks, Folder) else Folder(out_masks)
    top = common_root(root, masks)
    years = [year for year in _YEARS if any(root.exists(_annotations_file(f"{split}{year}")) for split in _SPLITS)]
    if not years:
        raise VwlError(f"{root} holds no {_annotations_file('train2014')} (nor val2014, train2017, val2017); give COCO's folder")
    with_images = [year for year in years if any(root.exists(_images_folder(root, f"{split}{year}")) for split in _SPLITS)]
    year = (with_images or years)[0]
    notes = [f"the annotations of {other} are not used, those of {year} are" for other in years if other != year]
    names = [f"{split}{year}" for split in _SPLITS if root.exists(_annotations_file(f"{split}{year}"))]
    rows: list[Row] = []
    categories: dict[int, str] = {}
    for name in names:
        source = f"{root}/{_annotations_file(name)}"
        content = root.read_json(_annotations_file(name))
        split_categories = _categories(content, source)
        if categories and split_categories != categories:
            raise VwlError(f"{source} has other categories than {_annotations_file(names[0])}; take both files from one release of COCO")
        categories = split_categories
        class_ids = {category: class_id for class_id, category in enumerate(categories, 1)}
        images, num_bare = _annotated_images(content, source)
        folder = _images_folder(root, name)
        _require_files(root / folder, [image.file_name for image in images])
        for image in images:
            top.require_inside(f"{below(top, root)}{folder}/{image.file_name}")
        num_new = _paint_missing(masks / name, images, class_ids, progress)
        for image in images:
            path, mask = f"{below(top, root)}{folder}/{image.file_name}", f"{below(top, masks)}{name}/{image.stem}.png"
            labels = tuple(sorted({class_ids[instance.category_id] for instance in image.instances}))
            rows.append(Row(image.stem, path, labels, mask, name.removesuffix(year)))
        notes.append(f"{name}: painted {num_new:,} masks, kept {len(images) - num_new:,} existing ones")
        if num_bare:
            notes.append(f"{name}: {num_bare:,} images without annotation are left out")
        if len(images) != _SIZES.get(name, len(images)):
            notes.append(f"{name} has {len(images):,} annotated images; COCO has {_SIZES[name]:,}")
    if len(categories) != _NUM_CLASSES:
        notes.append(f"there are {len(categories)} categories; COCO has {_NUM_CLASSES}")
    return make_index(rows, ["background", *categories.values()], top, f"MS COCO {year}"), notes


def paint_mask(instances: Sequence[Instance], class_ids: dict[int, int], height: int, width: int) -> np.ndarray:
    """Return the mask of an image: its instances painted over each other, from the largest area to the smallest.

    Args:
        instances: the instances of the image.
        class_ids: class id of each category id.
        height: of the image, in pixels.
        width: of the image, in pixels.

    Returns:
        (height, width) uint8: class ids, 255 where a crowd is on top.

    Raises:
        VwlError: a segmentation is not valid; the message names the annotation.
    """
    mask = np.zeros((height, width), np.uint8)
    for instance in sorted(instances, key=lambda instance: -instance.area):
        mask[_region(instance, height, width)] = IGNORE if instance.is_crowd else class_ids[instance.category_id]
    return mask


def _region(instance: Instance, height: int, width: int) -> np.ndarray:
    """Return (height, width) bool, the pixels of an instance."""
    shape, name = instance.segmentation, f"COCO annotation {instance.annotation_id}"
    try:
        if isinstance(shape, list):
            # Fewer than three points enclose nothing; pycocotools would take two points for the corners of a box.
            outlines = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in shape]
            polygons = [outline.ravel().tolist() for outline in outlines if len(outline) > 2]
            if not polygons:
                return np.zeros((height, width), bool)
            region = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))).astype(bool)
        else:
            runs = coco_mask.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
            region = coco_mask.decode(runs).astype(bool)
    except (TypeError, ValueError, KeyError) as error:
        raise VwlError(f"{name} has no valid segmentation ({error}); correct it in the file of annotations") from None
    if region.shape != (height, width):
        size = f"{region.shape[1]} x {region.shape[0]}"
        raise VwlError(f"{name} has a segmentation of {size} pixels, but its image has {width} x {height}")
    return region


def _paint_missing(
    folder: Folder, images: list[_AnnotatedImage], class_ids: dict[int, int], progress: Callable[[int, int], None] | None
) -> int:
    """Paint and write the masks that are not in the folder yet; return their number."""
    existing = set(folder.names(".png"))
    missing = [image for image in images if f"{image.stem}.png" not in existing]

    def paint(image: _AnnotatedImage) -> None:
        mask = paint_mask(image.instances, class_ids, image.height, image.width)
        folder.write(f"{image.stem}.png", encode_mask(mask, voc_palette()))

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(paint, missing), 1):
            if progress is not None:
                progress(done, len(missing))
    return len(missing)


def _annotated_images(content: dict[str, Any], source: str) -> tuple[list[_AnnotatedImage], int]:
    """Return the images that have annotations, sorted by file name, and the number of images without any."""
    try:
        images = {image["id"]: image for image in content["images"]}
        categories = {category["id"] for category in content["categories"]}
        instances: dict[int, list[Instance]] = defaultdict(list)
        for annotation in content["annotations"]:
            if annotation["image_id"] not in images:
                raise VwlError(f"{source}: annotation {annotation['id']} belongs to image {annotation['image_id']}, which is not listed")
            if annotation["category_id"] not in categories:
                raise VwlError(f"{source}: annotation {annotation['id']} has category {annotation['category_id']}, which is not listed")
            instances[annotation["image_id"]].append(Instance.from_json(annotation))
        annotated = [
            _AnnotatedImage(image["file_name"], image["height"], image["width"], instances[image_id])
            for image_id, image in images.items()
            if image_id in instances
        ]
    except KeyError as error:
        raise VwlError(f"{source} is not a file of COCO instances: an entry lacks the key {error}") from None
    return sorted(annotated, key=lambda image: image.file_name), len(images) - len(annotated)


def _categories(content: dict[str, Any], source: str) -> dict[int, str]:
    """Return category names by id, ascending."""
    try:
        return {category["id"]: category["name"] for category in sorted(content["categories"], key=lambda c: c["id"])}
    except (KeyError, TypeError):
        raise VwlError(f"{source} is not a file of COCO instances: it has no valid list 'categories'") from None


def _require_files(folder: Folder, names: list[str]) -> None:
    existing = set(folder.names())
    missing = [name for name in names if name not in existing]
    if missing:
        raise VwlError(
            f"image {folder}/{missing[0]} is annotated but missing ({len(missing):,} of {len(names):,} images are missing); "
            "unpack all of COCO's images"
        )


def _images_folder(root: Folder, name: str) -> str:
    """Return where the images of a split such as `train2014` are, below the root."""
    return f"images/{name}" if root.exists(f"images/{name}") else name


def _annotations_file(name: str) -> str:
    return f"annotations/instances_{name}.json"
