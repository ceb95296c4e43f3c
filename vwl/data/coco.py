"""MS COCO (2014 or 2017) as an index table, with masks painted from its instances (paper section 4.1).

One way among four to make an index table. Classes are the categories in ascending id after the background, 80 in COCO; images without
annotation are left out (82,081 train and 40,137 val remain in 2014). A mask is painted from the largest instance to the
smallest, so that a tie lies on its person; regions of a crowd are ignored (255).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
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
_SIZES = {"train2014": 82_081, "val2014": 40_137}
_NUM_CLASSES = 80


def prepare_coco(
    root: str | Path | Folder, out_masks: str | Path | Folder | None = None, progress: Callable[[int, int], None] | None = None
) -> tuple[Index, list[str]]:
    """Paint COCO's masks and index its images in splits `train` and `val`; existing masks are kept.

    Labels are the categories of all annotations, those of crowds too.

    Args:
        root: folder with `annotations/instances_train2014.json` (val2014; or 2017) and the images in `train2014` or
            `images/train2014`.
        out_masks: folder of the masks; none: `SegmentationClass` in `root`. Each split has its own folder in it.
        progress: called with (done, total) after each mask of a split.

    Returns:
        the index, its root being the deepest folder above images and masks, and notes for the user.

    Raises:
        VwlError: annotations that are missing or broken, a missing image; the message names it.
    """
    root = root if isinstance(root, Folder) else Folder(root)
    painted = root / "SegmentationClass" if out_masks is None else out_masks if isinstance(out_masks, Folder) else Folder(out_masks)
    top = common_root(root, painted)
    years = [year for year in _YEARS if any(root.exists(_annotations(f"{split}{year}")) for split in ("train", "val"))]
    if not years:
        raise VwlError(f"{root} holds no {_annotations('train2014')} (nor val2014, train2017, val2017); give COCO's folder")
    year = next((year for year in years if any(root.exists(_place(root, f"{split}{year}")) for split in ("train", "val"))), years[0])
    sets = [(split, f"{split}{year}") for split in ("train", "val") if root.exists(_annotations(f"{split}{year}"))]
    rows: list[Row] = []
    notes = [f"annotations of {years[1]} are there too and are not used"] if year != years[-1] else []
    names: dict[int, str] = {}
    for split, name in sets:
        content = root.read_json(_annotations(name))
        categories = _categories(content, f"{root}/{_annotations(name)}")
        if names and categories != names:
            raise VwlError(f"{root}/{_annotations(name)} has other categories than {_annotations(sets[0][1])}")
        names = categories
        annotated, num_bare = _annotated(content, f"{root}/{_annotations(name)}")
        folder = _place(root, name)
        _require_files(root / folder, [image["file_name"] for image, _ in annotated])
        num_new = _paint_all(painted / name, annotated, names, progress)
        ids = {category: label for label, category in enumerate(names, 1)}
        for image, annotations in annotated:
            stem = Path(image["file_name"]).stem
            labels = tuple(sorted({ids[a["category_id"]] for a in annotations}))
            rows.append(
                Row(stem, f"{below(top, root)}{folder}/{image['file_name']}", labels, f"{below(top, painted)}{name}/{stem}.png", split)
            )
        notes.append(f"{name}: painted {num_new:,} masks, kept {len(annotated) - num_new:,} that existed")
        if num_bare:
            notes.append(f"{name}: {num_bare:,} images without annotation are left out")
        if len(annotated) != _SIZES.get(name, len(annotated)):
            notes.append(f"{name} has {len(annotated):,} annotated images; COCO has {_SIZES[name]:,}")
    if len(names) != _NUM_CLASSES:
        notes.append(f"there are {len(names)} categories; COCO has {_NUM_CLASSES}")
    return make_index(rows, ["background", *names.values()], top, f"MS COCO {year}"), notes


def paint_mask(annotations: Sequence[dict[str, Any]], ids: dict[int, int], height: int, width: int) -> np.ndarray:
    """Paint instances from the largest area to the smallest.

    Args:
        annotations: of one image, as in COCO's JSON: `segmentation` (polygons, or run lengths), `area`, `iscrowd`, `category_id`, `id`.
        ids: class id of each category id.
        height, width: of the image, pixels.

    Returns:
        (height, width) uint8: class ids, 255 where a crowd lies on top.

    Raises:
        VwlError: a segmentation that is none.
    """
    mask = np.zeros((height, width), np.uint8)
    for annotation in sorted(annotations, key=lambda a: -a["area"]):
        mask[_region(annotation, height, width)] = IGNORE if annotation.get("iscrowd") else ids[annotation["category_id"]]
    return mask


def _region(annotation: dict[str, Any], height: int, width: int) -> np.ndarray:
    """Return an instance's pixels (height, width) bool."""
    shape = annotation["segmentation"]
    try:
        if isinstance(shape, list):
            # fewer than three points enclose nothing, and the library would read two as the corners of a box
            outlines = [np.asarray(polygon, np.float64).reshape(-1, 2) for polygon in shape]
            polygons = [outline.ravel().tolist() for outline in outlines if len(outline) > 2]
            if not polygons:
                return np.zeros((height, width), bool)
            region = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(polygons, height, width))).astype(bool)
        else:
            runs = coco_mask.frPyObjects(shape, height, width) if isinstance(shape["counts"], list) else shape
            region = coco_mask.decode(runs).astype(bool)
    except (TypeError, ValueError, KeyError) as error:
        raise VwlError(f"COCO annotation {annotation['id']} has no valid segmentation ({error})") from None
    if region.shape != (height, width):
        raise VwlError(f"COCO annotation {annotation['id']} has a segmentation of {region.shape} pixels; its image has {height, width}")
    return region


def _paint_all(
    folder: Folder,
    annotated: list[tuple[dict[str, Any], list[dict[str, Any]]]],
    names: dict[int, str],
    progress: Callable[[int, int], None] | None,
) -> int:
    """Paint the missing masks; return their number."""
    there = set(folder.names(".png"))
    ids = {category: label for label, category in enumerate(names, 1)}
    wanted = [(image, annotations) for image, annotations in annotated if f"{Path(image['file_name']).stem}.png" not in there]

    def paint(item: tuple[dict[str, Any], list[dict[str, Any]]]) -> None:
        image, annotations = item
        mask = paint_mask(annotations, ids, image["height"], image["width"])
        folder.write(f"{Path(image['file_name']).stem}.png", encode_mask(mask, voc_palette()))

    with ThreadPoolExecutor() as pool:
        for done, _ in enumerate(pool.map(paint, wanted), 1):
            if progress is not None:
                progress(done, len(wanted))
    return len(wanted)


def _annotated(content: dict[str, Any], source: str) -> tuple[list[tuple[dict[str, Any], list[dict[str, Any]]]], int]:
    """Return images with their annotations, by file name, and the number of images without any."""
    try:
        images = {image["id"]: image for image in content["images"]}
        categories = {category["id"] for category in content["categories"]}
        grouped: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for a in content["annotations"]:
            if a["image_id"] not in images:
                raise VwlError(f"{source}: annotation {a['id']} belongs to image {a['image_id']}, which is not listed")
            if a["category_id"] not in categories:
                raise VwlError(f"{source}: annotation {a['id']} has category {a['category_id']}, which is not listed")
            grouped[a["image_id"]].append({key: a[key] for key in ("id", "category_id", "area", "segmentation", "iscrowd")})
        found = [({key: image[key] for key in ("file_name", "height", "width")}, grouped[i]) for i, image in images.items() if i in grouped]
    except KeyError as error:
        raise VwlError(f"{source} is not a file of COCO instances: an entry has no {error}") from None
    return sorted(found, key=lambda item: item[0]["file_name"]), len(images) - len(found)


def _categories(content: dict[str, Any], source: str) -> dict[int, str]:
    """Return category names by id, ascending."""
    try:
        return {category["id"]: category["name"] for category in sorted(content["categories"], key=lambda c: c["id"])}
    except (KeyError, TypeError):
        raise VwlError(f"{source} is not a file of COCO instances: it has no categories") from None


def _require_files(folder: Folder, names: list[str]) -> None:
    there = set(folder.names())
    gone = [name for name in names if name not in there]
    if gone:
        raise VwlError(f"{folder}/{gone[0]} is annotated but missing ({len(gone):,} of {len(names):,} images are missing)")


def _place(root: Folder, name: str) -> str:
    return f"images/{name}" if root.exists(f"images/{name}") else name


def _annotations(name: str) -> str:
    return f"annotations/instances_{name}.json"
