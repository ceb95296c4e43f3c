"""PASCAL VOC 2012, with or without SBD's extra masks, as an index table (paper section 4.1).

One way among four to make an index table. It reads a devkit folder (`VOCdevkit/VOC2012`) or a subset of one: images, lists,
masks, and image labels from the annotations, a text file or the masks. The 10,582 training images of the literature are
`train` (1,464, VOC) and `aug` (the rest, SBD) together.
"""

import io
from collections import Counter
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from scipy.io import loadmat

from vwl.data.index import Index, Row, make_index
from vwl.errors import VwlError, did_you_mean
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, encode_mask, voc_palette

VOC_CLASSES = (
    "background",
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Names in the order of the mask ids."""
_SIZES = {"train": 1464, "val": 1449, "train_aug": 10582}
_LISTS = "ImageSets/Segmentation"


def prepare_voc(
    root: str | Path | Folder, sbd: str | Path | Folder | None = None, labels: str | Path | None = None
) -> tuple[Index, list[str]]:
    """Index a VOC devkit folder.

    Splits are `train`, `aug` (`train_aug.txt` without train and val; without such a list SBD's images that are not in val),
    `val`, and `test` (without labels and masks). Masks come from `SegmentationClassAug`, else `SegmentationClass`. Image labels
    come from `labels` if given, else `Annotations/*.xml` (all objects, difficult ones too), else
    `ImageSets/image_labels.txt`, else the masks.

    Args:
        root: `VOCdevkit/VOC2012` or a folder laid out like it.
        sbd: SBD's folder (with `train.txt`, `val.txt`, `cls/*.mat`, or with `dataset` that holds these); its masks are written to
            `SegmentationClassAug` below `root` for images without a mask.
        labels: text file with lines ``id name name ...``.

    Returns:
        the index, and notes for the user, one line each.

    Raises:
        VwlError: no list, an image listed twice or in train and val, a missing image, an image without label, an unknown
            class, an unreadable file; the message names it.
    """
    root = root if isinstance(root, Folder) else Folder(root)
    images = _stems(root, "JPEGImages", ".jpg")
    if not images:
        raise VwlError(f"{root} holds no images in JPEGImages; give the folder VOCdevkit/VOC2012")
    sbd = _sbd_folder(sbd) if sbd is not None else None
    splits, notes = _splits(root, sbd)
    if "test" in splits and images.isdisjoint(splits["test"]):
        notes.append(f"the split test is left out: none of its {len(splits.pop('test')):,} images is there")
    wanted = [image_id for ids in splits.values() for image_id in ids]
    gone = [image_id for image_id in wanted if image_id not in images]
    if gone:
        raise VwlError(f"{root}/JPEGImages/{gone[0]}.jpg is listed but missing ({len(gone):,} of {len(wanted):,} images are missing)")

    masks = _masks(root)
    if sbd is not None:
        notes += _convert_sbd(root, sbd, [image_id for image_id in splits.get("aug", []) if image_id not in masks])
        masks = _masks(root)
    label_ids, source = _labels(root, masks, labels, [image_id for image_id in wanted if image_id not in splits.get("test", ())])
    notes.append(f"image labels from {source}")

    rows = []
    for split, ids in splits.items():
        bare = 0
        for image_id in ids:
            known = label_ids.get(image_id, ())
            if not known and split in {"train", "aug"}:
                raise VwlError(f"the training image {image_id} has no label in {source}; remove it from the lists or label it")
            mask = None if split == "test" else masks.get(image_id)
            bare += mask is None
            rows.append(Row(image_id, f"JPEGImages/{image_id}.jpg", known, mask, split))
        if bare and split != "test":
            notes.append(f"{bare:,} of {len(ids):,} images of split {split} have no mask")
    for split, size in _SIZES.items():
        found = len(splits.get("train", [])) + len(splits.get("aug", [])) if split == "train_aug" else len(splits.get(split, []))
        if found != size:
            notes.append(f"split {split} has {found:,} images; VOC 2012 has {size:,}")
    return make_index(rows, VOC_CLASSES, root, "PASCAL VOC 2012"), notes


def _splits(root: Folder, sbd: Folder | None) -> tuple[dict[str, list[str]], list[str]]:
    lists = {name: _list(root, f"{_LISTS}/{name}.txt") for name in ("train", "val", "trainval", "train_aug", "test")}
    notes = []
    train, val = lists["train"], lists["val"]
    if train is None and lists["trainval"] is not None and val is not None:
        train = [image_id for image_id in lists["trainval"] if image_id not in set(val)]
        notes.append("train.txt is missing: the split train is trainval.txt without val.txt")
    both = sorted({*(train or ())} & {*(val or ())})
    if both:
        raise VwlError(f"image {both[0]} is in {_LISTS}/train.txt and in val.txt ({len(both):,} such images); remove it from one")
    augmented = lists["train_aug"]
    if augmented is None and sbd is not None:
        augmented = sorted({*(_list(sbd, "train.txt") or ()), *(_list(sbd, "val.txt") or ())})
        if not augmented:
            raise VwlError(f"{sbd} holds no lists train.txt and val.txt; give the folder 'dataset' of SBD")
        notes.append("train_aug is made by rule: SBD's images that are not in VOC's val, and VOC's train")
    elif augmented is not None and {*augmented} & {*(val or ())}:
        notes.append(f"{len({*augmented} & {*(val or ())}):,} images of train_aug.txt are in val.txt and stay there")
    known = {*(train or ()), *(val or ())}
    splits = {"train": train, "aug": [i for i in augmented or () if i not in known], "val": val, "test": lists["test"]}
    found = {split: ids for split, ids in splits.items() if ids}
    if not found:
        raise VwlError(f"{root} holds no list of images in {_LISTS} (train.txt, val.txt, train_aug.txt, trainval.txt or test.txt)")
    return found, notes


def _list(folder: Folder, name: str) -> list[str] | None:
    if not folder.exists(name):
        return None
    ids = [line.split()[0] for line in _text(folder, name).splitlines() if line.strip()]
    twice = [image_id for image_id, count in Counter(ids).items() if count > 1]
    if twice:
        raise VwlError(f"{folder}/{name} lists image {twice[0]} twice" + (f" (and {len(twice) - 1} more)" if len(twice) > 1 else ""))
    return ids


def _labels(root: Folder, masks: dict[str, str], file: str | Path | None, ids: list[str]) -> tuple[dict[str, tuple[int, ...]], str]:
    """Return the labels of the images by id, and a description of their source."""
    if file is not None:
        path = Path(file)
        return _labels_of_text(Folder(path.parent), path.name, ids), str(path)
    if root.exists("Annotations"):
        return _each(lambda image_id: _labels_of_xml(root, image_id), ids), "the objects of Annotations/*.xml"
    if root.exists("ImageSets/image_labels.txt"):
        return _labels_of_text(root, "ImageSets/image_labels.txt", ids), "ImageSets/image_labels.txt (there are no Annotations)"
    bare = [image_id for image_id in ids if image_id not in masks]
    if bare:
        raise VwlError(
            f"image {bare[0]} has neither annotation nor mask to take its labels from ({len(bare):,} such images); "
            "put Annotations there or give a text file with --labels"
        )
    return _each(
        lambda image_id: _labels_of_mask(root, masks[image_id]), ids
    ), "the masks: they are ground truth (no Annotations, no text file)"


def _each(labels_of: Callable[[str], tuple[int, ...]], ids: list[str]) -> dict[str, tuple[int, ...]]:
    with ThreadPoolExecutor() as pool:
        return dict(zip(ids, pool.map(labels_of, ids), strict=True))


def _labels_of_xml(root: Folder, image_id: str) -> tuple[int, ...]:
    name = f"Annotations/{image_id}.xml"
    if not root.exists(name):
        raise VwlError(f"image {image_id} has no annotation {root}/{name}; give a text file of labels with --labels")
    try:
        tree = ElementTree.fromstring(root.read(name))
    except ElementTree.ParseError as error:
        raise VwlError(f"{root}/{name} is not valid XML: {error}") from None
    return _class_ids([element.findtext("name", "").strip() for element in tree.iter("object")], f"{root}/{name}")


def _labels_of_text(folder: Folder, name: str, ids: list[str]) -> dict[str, tuple[int, ...]]:
    found: dict[str, tuple[int, ...]] = {}
    for number, line in enumerate(_text(folder, name).splitlines(), 1):
        if not line.strip():
            continue
        image_id, *names = line.split()
        if image_id in found:
            raise VwlError(f"{folder}/{name} line {number} lists image {image_id} a second time")
        found[image_id] = _class_ids(names, f"{folder}/{name} line {number}")
    gone = [image_id for image_id in ids if image_id not in found]
    if gone:
        raise VwlError(f"image {gone[0]} has no line in {folder}/{name} ({len(gone):,} images are missing there)")
    return found


def _labels_of_mask(root: Folder, name: str) -> tuple[int, ...]:
    labels = [int(label) for label in np.unique(decode_mask(root.read(name), name)) if 0 < label < 255]
    if labels and labels[-1] >= len(VOC_CLASSES):
        raise VwlError(f"mask {root}/{name} holds the id {labels[-1]}; VOC's classes are 1 to {len(VOC_CLASSES) - 1}")
    return tuple(labels)


def _class_ids(names: Iterable[str], source: str) -> tuple[int, ...]:
    names = set(names)
    for name in sorted(names):
        if name not in VOC_CLASSES[1:]:
            raise VwlError(f"{source}: unknown class '{name}'{did_you_mean(name, VOC_CLASSES[1:])}")
    return tuple(sorted(VOC_CLASSES.index(name) for name in names))


def _convert_sbd(root: Folder, sbd: Folder, ids: list[str]) -> list[str]:
    """Write SBD's masks of these images as PNG; return a note."""
    there = _stems(sbd, "cls", ".mat")
    ids = [image_id for image_id in ids if image_id in there]

    def convert(image_id: str) -> None:
        root.write(f"SegmentationClassAug/{image_id}.png", encode_mask(_sbd_mask(sbd, f"cls/{image_id}.mat"), voc_palette()))

    with ThreadPoolExecutor() as pool:
        list(pool.map(convert, ids))
    return [f"wrote {len(ids):,} masks of SBD to {root}/SegmentationClassAug"] if ids else []


def _sbd_mask(sbd: Folder, name: str) -> np.ndarray:
    try:
        content = loadmat(io.BytesIO(sbd.read(name)), squeeze_me=True, struct_as_record=False)
        return np.ascontiguousarray(content["GTcls"].Segmentation, dtype=np.uint8)
    except (ValueError, TypeError, KeyError, AttributeError, RuntimeError, EOFError) as error:
        raise VwlError(f"{sbd}/{name} is not a mask of SBD ({error})") from None


def _sbd_folder(sbd: str | Path | Folder) -> Folder:
    folder = sbd if isinstance(sbd, Folder) else Folder(sbd)
    inner = folder / "dataset"
    folder = inner if inner.exists("cls") else folder
    if not folder.exists("cls"):
        raise VwlError(f"{folder} is not SBD: it has no folder cls; give the folder 'dataset' of benchmark_RELEASE")
    return folder


def _masks(root: Folder) -> dict[str, str]:
    """Return the path of each image's mask by id."""
    return {
        image_id: f"{folder}/{image_id}.png"
        for folder in ("SegmentationClass", "SegmentationClassAug")
        for image_id in _stems(root, folder, ".png")
    }


def _stems(root: Folder, folder: str, suffix: str) -> set[str]:
    return {name.removesuffix(suffix) for name in (root / folder).names(suffix)}


def _text(folder: Folder, name: str) -> str:
    try:
        return folder.read(name).decode()
    except UnicodeDecodeError:
        raise VwlError(f"{folder}/{name} is not a UTF-8 text file") from None
