"""MS COCO (2014 or 2017) as an index table, with masks painted from its instances (paper section 4.1).

One of the importers behind `vwl data prepare`. Class ids follow the ascending category ids, 80 in COCO. Images without annotation are
left out (82,081 train and 40,137 val images of 2014 remain). Masks are painted from the largest instance to the smallest, so that a
tie stays visible on its wearer; regions of crowds are ignored (255).
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from vwl.constants import IGNORE
from vwl.data.class_names import check_object_names
from vwl.data.coco_json import AnnotatedImage, Instance, instance_region, read_categories, read_images
from vwl.data.image_files import below, common_root, without_links
from vwl.data.index import Index, Row, make_index
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask, voc_palette

_YEARS = ("2014", "2017")
_SPLITS = ("train", "val")
_SIZES = {"train2014": 82_081, "val2014": 40_137}
_NUM_CLASSES = 80


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
    root, masks = without_links(root), without_links(masks)
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
        split_categories = read_categories(content, source)
        if categories and split_categories != categories:
            raise VwlError(f"{source} has other categories than {_annotations_file(names[0])}; take both files from one release of COCO")
        categories = split_categories
        check_object_names([*categories.values()], source)
        class_ids = {category: class_id for class_id, category in enumerate(categories, 1)}
        images, num_bare = read_images(content, source, categories)
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
        mask[instance_region(instance, height, width)] = IGNORE if instance.is_crowd else class_ids[instance.category_id]
    return mask


def _paint_missing(
    folder: Folder, images: list[AnnotatedImage], class_ids: dict[int, int], progress: Callable[[int, int], None] | None
) -> int:
    """Paint and write the masks that are not in the folder yet; return their number."""
    existing = set(folder.names(".png"))
    missing = [image for image in images if f"{image.stem}.png" not in existing]

    def paint(image: AnnotatedImage) -> None:
        mask = paint_mask(image.instances, class_ids, image.height, image.width)
        folder.write(f"{image.stem}.png", encode_mask(mask, voc_palette()))

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(paint, missing), 1):
            if progress is not None:
                progress(done, len(missing))
    return len(missing)


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
