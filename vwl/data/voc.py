"""PASCAL VOC 2012, with or without the extra masks of SBD, as an index table (paper section 4.1).

One of the importers behind `vwl data prepare`. It reads a devkit folder (`VOCdevkit/VOC2012`) or a subset of one: images, lists, masks, and
image labels from the annotations, a text file or the masks. The 10,582 training images of the literature are the splits `train`
(1,464 of VOC) and `aug` (the rest, from SBD) together.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from scipy.io import loadmat

from vwl.constants import IGNORE
from vwl.data.index import Index, Row, make_index
from vwl.errors import VwlError, did_you_mean
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, encode_mask, voc_palette

VOC_CLASSES = (
    "background",
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Class names in the order of the mask ids."""
_SIZES = {"train": 1464, "val": 1449, "train_aug": 10582}
_LISTS = "ImageSets/Segmentation"
_TEXT_LABELS = "ImageSets/image_labels.txt"


def prepare_voc(
    root: str | Path | Folder, sbd: str | Path | Folder | None = None, labels: str | Path | None = None
) -> tuple[Index, list[str]]:
    """Return the index of a VOC devkit folder.

    Splits: `train`, `val`, `aug` (`train_aug.txt` without train and val; without that list the images of SBD that are not in train or
    val) and `test` (without labels and masks). Masks: `SegmentationClassAug`, else `SegmentationClass`. Image labels: the file
    `labels` if given, else `Annotations/*.xml` (all objects, difficult ones too), else `ImageSets/image_labels.txt`, else the masks.

    Args:
        root: `VOCdevkit/VOC2012` or a folder laid out like it.
        sbd: folder of SBD: the one with `train.txt`, `val.txt` and `cls/*.mat`, or its parent. Its masks are written to
            `SegmentationClassAug` in `root` for images that have no mask yet.
        labels: text file with lines ``id name name ...``.

    Returns:
        The index, and notes for the user, one line each.

    Raises:
        VwlError: there is no list, an image is listed twice or is both in train and val, an image file is missing, a training image has
            no label, a class is unknown, or a file cannot be read or is a link out of `root`; the message names the file or image.
    """
    root = root if isinstance(root, Folder) else Folder(root)
    available = _stems(root, "JPEGImages", ".jpg")
    if not available:
        raise VwlError(f"{root} holds no images in JPEGImages; give the folder VOCdevkit/VOC2012")
    sbd = _sbd_folder(sbd) if sbd is not None else None
    splits, notes = _splits(root, sbd)
    if "test" in splits and available.isdisjoint(splits["test"]):
        notes.append(f"split test is left out: none of its {len(splits.pop('test')):,} images is in JPEGImages")
    listed = [image_id for ids in splits.values() for image_id in ids]
    missing = [image_id for image_id in listed if image_id not in available]
    if missing:
        raise VwlError(
            f"image {root}/JPEGImages/{missing[0]}.jpg is listed but missing ({len(missing):,} of {len(listed):,} images are missing); "
            f"add the images or remove them from the lists in {_LISTS}"
        )

    masks = _masks(root)
    if sbd is not None:
        notes += _convert_sbd(root, sbd, [image_id for image_id in splits.get("aug", []) if image_id not in masks])
        masks = _masks(root)
    label_ids, source = _labels(root, masks, labels, [image_id for image_id in listed if image_id not in splits.get("test", ())])
    notes.append(f"image labels from {source}")

    rows = []
    for split, ids in splits.items():
        num_without_mask = 0
        for image_id in ids:
            image_labels = label_ids.get(image_id, ())
            if not image_labels and split in {"train", "aug"}:
                raise VwlError(f"the training image {image_id} has no label in {source}; label it or remove it from the lists")
            mask = None if split == "test" else masks.get(image_id)
            num_without_mask += mask is None
            for path in filter(None, (f"JPEGImages/{image_id}.jpg", mask)):
                root.require_inside(path)
            rows.append(Row(image_id, f"JPEGImages/{image_id}.jpg", image_labels, mask, split))
        if num_without_mask and split != "test":
            notes.append(f"{num_without_mask:,} of {len(ids):,} images of split {split} have no mask")
    sizes = {split: len(ids) for split, ids in splits.items()}
    sizes["train_aug"] = sizes.get("train", 0) + sizes.get("aug", 0)
    notes += [
        f"split {split} has {sizes.get(split, 0):,} images; VOC 2012 has {size:,}"
        for split, size in _SIZES.items()
        if sizes.get(split, 0) != size
    ]
    return make_index(rows, VOC_CLASSES, root, "PASCAL VOC 2012"), notes


def _splits(root: Folder, sbd: Folder | None) -> tuple[dict[str, list[str]], list[str]]:
    """Return the image ids of each split that has any, and notes for the user."""
    lists = {name: _read_list(root, f"{_LISTS}/{name}.txt") for name in ("train", "val", "trainval", "train_aug", "test")}
    notes = []
    train, val = lists["train"], lists["val"]
    if train is None and lists["trainval"] is not None and val is not None:
        train = [image_id for image_id in lists["trainval"] if image_id not in set(val)]
        notes.append("there is no train.txt: split train is trainval.txt without val.txt")
    both = sorted({*(train or ())} & {*(val or ())})
    if both:
        raise VwlError(f"image {both[0]} is in {_LISTS}/train.txt and in val.txt ({len(both):,} such images); remove it from one of them")
    augmented = lists["train_aug"]
    if augmented is None and sbd is not None:
        augmented = sorted({*(_read_list(sbd, "train.txt") or ()), *(_read_list(sbd, "val.txt") or ())})
        if not augmented:
            raise VwlError(f"{sbd} holds no train.txt and no val.txt; give the folder 'dataset' of SBD")
        notes.append("there is no train_aug.txt: split aug holds the images of SBD that are not in train or val")
    elif augmented is not None and {*augmented} & {*(val or ())}:
        notes.append(f"{len({*augmented} & {*(val or ())}):,} images of train_aug.txt are also in val.txt; they are used for val only")
    used = {*(train or ()), *(val or ())}
    splits = {"train": train, "aug": [i for i in augmented or () if i not in used], "val": val, "test": lists["test"]}
    non_empty = {split: ids for split, ids in splits.items() if ids}
    if not non_empty:
        raise VwlError(f"{root} holds no list of images; put train.txt, val.txt, train_aug.txt, trainval.txt or test.txt into {_LISTS}")
    return non_empty, notes


def _read_list(folder: Folder, name: str) -> list[str] | None:
    """Return the ids of a list, the first field of each line; None if the file is missing."""
    if not folder.exists(name):
        return None
    ids = [line.split()[0] for line in _read_text(folder, name).splitlines() if line.strip()]
    duplicates = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if duplicates:
        more = f" (and {len(duplicates) - 1} more)" if len(duplicates) > 1 else ""
        raise VwlError(f"{folder}/{name} lists image {duplicates[0]} more than once{more}; remove the duplicates")
    return ids


def _labels(root: Folder, masks: dict[str, str], file: str | Path | None, ids: list[str]) -> tuple[dict[str, tuple[int, ...]], str]:
    """Return the labels of each image id, and a description of where they come from."""
    if file is not None:
        path = Path(file)
        return _labels_of_text(Folder(path.parent), path.name, ids), str(path)
    if root.exists("Annotations"):
        return _read_labels(lambda image_id: _labels_of_xml(root, image_id), ids), "the objects of Annotations/*.xml"
    if root.exists(_TEXT_LABELS):
        return _labels_of_text(root, _TEXT_LABELS, ids), f"{_TEXT_LABELS} (there is no folder Annotations)"
    without = [image_id for image_id in ids if image_id not in masks]
    if without:
        raise VwlError(
            f"image {without[0]} has neither annotation nor mask to take its labels from ({len(without):,} such images); "
            "add the folder Annotations or give a text file with --labels"
        )
    source = "the masks, which are ground truth (there is no folder Annotations and no text file)"
    return _read_labels(lambda image_id: _labels_of_mask(root, masks[image_id]), ids), source


def _read_labels(labels_of: Callable[[str], tuple[int, ...]], ids: list[str]) -> dict[str, tuple[int, ...]]:
    """Return the labels of each image, read in threads."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(ids, pool.map(labels_of, ids), strict=True))


def _labels_of_xml(root: Folder, image_id: str) -> tuple[int, ...]:
    name = f"Annotations/{image_id}.xml"
    if not root.exists(name):
        raise VwlError(f"image {image_id} has no annotation {root}/{name}; add it or give a text file of labels with --labels")
    try:
        tree = ElementTree.fromstring(root.read(name))
    except (ElementTree.ParseError, ValueError, LookupError) as error:  # the last two: encodings that do not exist
        raise VwlError(f"{root}/{name} is not valid XML: {error}") from None
    return _class_ids([element.findtext("name", "").strip() for element in tree.iter("object")], f"{root}/{name}")


def _labels_of_text(folder: Folder, name: str, ids: list[str]) -> dict[str, tuple[int, ...]]:
    labels: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(_read_text(folder, name).splitlines(), 1):
        if not line.strip():
            continue
        image_id, *names = line.split()
        if image_id in labels:
            raise VwlError(f"{folder}/{name} line {number} lists image {image_id} a second time; remove one of the lines")
        labels[image_id] = _class_ids(names, f"{folder}/{name} line {number}")
    missing = [image_id for image_id in ids if image_id not in labels]
    if missing:
        raise VwlError(
            f"image {missing[0]} has no line in {folder}/{name} ({len(missing):,} images have none); add a line 'id name name ...'"
        )
    return labels


def _labels_of_mask(root: Folder, name: str) -> tuple[int, ...]:
    labels = [int(label) for label in np.unique(decode_mask(root.read(name), name)) if label not in (0, IGNORE)]
    if labels and labels[-1] >= len(VOC_CLASSES):
        raise VwlError(f"mask {root}/{name} holds the class id {labels[-1]}; VOC's classes are 1 to {len(VOC_CLASSES) - 1}")
    return tuple(labels)


def _class_ids(names: Iterable[str], source: str) -> tuple[int, ...]:
    names = set(names)
    for name in sorted(names):
        if name not in VOC_CLASSES[1:]:
            raise VwlError(f"{source}: unknown class '{name}'{did_you_mean(name, VOC_CLASSES[1:])}")
    return tuple(sorted(VOC_CLASSES.index(name) for name in names))


def _convert_sbd(root: Folder, sbd: Folder, ids: list[str]) -> list[str]:
    """Write SBD's masks of these images as PNG and return a note for the user."""
    available = _stems(sbd, "cls", ".mat")
    ids = [image_id for image_id in ids if image_id in available]

    def convert(image_id: str) -> None:
        root.write(f"SegmentationClassAug/{image_id}.png", encode_mask(_sbd_mask(sbd, f"cls/{image_id}.mat"), voc_palette()))

    with ThreadPoolExecutor() as pool:
        list(pool.map(convert, ids))
    return [f"wrote {len(ids):,} masks of SBD to {root}/SegmentationClassAug"] if ids else []


def _sbd_mask(sbd: Folder, name: str) -> np.ndarray:
    """Return a mask of SBD, (H, W) uint8 class ids."""
    data = sbd.read(name)
    try:
        content = loadmat(io.BytesIO(data), squeeze_me=True, struct_as_record=False)
        ids = np.asarray(content["GTcls"].Segmentation)
    except Exception as error:  # a damaged file raises almost anything in scipy's reader
        reason = " ".join(str(error).split()) or type(error).__name__
        raise VwlError(f"{sbd}/{name} is not a mask of SBD ({reason}); download it again") from None
    if ids.ndim != 2 or ids.dtype.kind not in "iu" or not np.isin(ids, [*range(len(VOC_CLASSES)), IGNORE]).all():
        raise VwlError(f"{sbd}/{name} is not a mask of SBD (it holds no class ids 0 to {len(VOC_CLASSES) - 1}); download it again")
    return np.ascontiguousarray(ids, dtype=np.uint8)


def _sbd_folder(sbd: str | Path | Folder) -> Folder:
    """Return the folder that holds `cls`: the given one, or `dataset` in it."""
    folder = sbd if isinstance(sbd, Folder) else Folder(sbd)
    inner = folder / "dataset"
    folder = inner if inner.exists("cls") else folder
    if not folder.exists("cls"):
        raise VwlError(f"{folder} is not SBD: it has no folder cls; give the folder 'dataset' of benchmark_RELEASE")
    return folder


def _masks(root: Folder) -> dict[str, str]:
    """Return the path of the mask of each image id that has one; augmented masks take precedence."""
    return {
        image_id: f"{folder}/{image_id}.png"
        for folder in ("SegmentationClass", "SegmentationClassAug")
        for image_id in _stems(root, folder, ".png")
    }


def _stems(root: Folder, folder: str, suffix: str) -> set[str]:
    """Return the names of the files with a suffix in a folder below `root`, without the suffix."""
    return {name.removesuffix(suffix) for name in (root / folder).names(suffix)}


def _read_text(folder: Folder, name: str) -> str:
    try:
        return folder.read(name).decode()
    except UnicodeDecodeError:
        raise VwlError(f"{folder}/{name} is not a text file in UTF-8") from None
