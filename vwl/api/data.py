"""Preparing data sets: each function returns the index of a data set, and writes it where `out` names a file."""

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vwl.data.index import Index, write_index
from vwl.data.summary import without_contrast

Notes = Callable[[str], None]
logger = logging.getLogger("vwl")


def prepare_folder(
    images: str | Path,
    labels: str | Path,
    masks: str | Path | None = None,
    *,
    val_share: float = 0.0,
    classes: str | Path | None = None,
    separator: str | None = None,
    negatives: str | None = None,
    out: str | Path | None = None,
    on_note: Notes = logger.info,
) -> Index:
    """Return the index of a folder of images with a CSV file of labels.

    Args:
        images: folder of the images.
        labels: CSV file with the columns `image`, `labels` and optionally `split` (train, aug, val, test).
        masks: folder of indexed or grey PNG masks named like the images.
        val_share: share of the images for split val, 0 to below 1; only for a file without the column `split`.
        classes: text file with one class name per line, in the order of the mask ids; default: the sorted names.
        separator: of labels: `semicolon`, `bar`, `comma` or `blank`; default: detected.
        negatives: the label of images that show none of the classes, e.g. `none`; `empty`: images without a label. Default: training
            images need a label.
        out: index table to write (Parquet).
        on_note: called with each line on what was found; default: logged at level INFO.

    Raises:
        VwlError: a column, image, label or mask is missing or wrong; the message names file and line.
    """
    from vwl.data.folder import prepare_folder as prepare

    return _finish(prepare(images, labels, masks, val_share, classes, separator, negatives), out, on_note)


def prepare_any(
    path: str | Path,
    images: str | Path | None = None,
    masks: str | Path | None = None,
    *,
    val_share: float = 0.0,
    classes: str | Path | None = None,
    separator: str | None = None,
    negatives: str | None = None,
    label_format: Any = None,
    field: str | None = None,
    out: str | Path | None = None,
    on_found: Notes = logger.info,
    on_note: Notes = logger.info,
    on_progress: Callable[[int, int], None] | None = None,
) -> Index:
    """Find out the format of a data set's labels and return its index.

    Args:
        path: the data set's folder, or its file of labels.
        images: folder of the images; default: the data set's folder, or the one that the file lies in.
        masks: folder of PNG masks, laid out like the images.
        val_share, classes, separator, negatives, out, on_note: as `prepare_folder`.
        label_format: the format, a name of `vwl.data.importers.detect.DESCRIBED`, where several are found.
        field: the choices (Label Studio) or column (Hugging Face) that holds the labels, where there are several.
        on_found: called with the line that says what was found; default: logged at level INFO.
        on_progress: called with (done, total) while masks of MS COCO are painted.

    Raises:
        VwlError: no format or more than one is found, or the files have a fault; the message names it.
    """
    from vwl.data.importers.detect import prepare_any as prepare
    from vwl.data.tagged import Choices

    choices = Choices(masks, val_share, classes, negatives)
    prepared = prepare(path, images, choices, label_format, field, separator, on_progress)
    on_found(prepared.found)
    return _finish((prepared.index, prepared.notes), out, on_note)


def prepare_voc(
    root: str | Path,
    sbd: str | Path | None = None,
    labels: str | Path | None = None,
    *,
    out: str | Path | None = None,
    on_note: Notes = logger.info,
) -> Index:
    """Return the index of PASCAL VOC 2012, with or without SBD.

    Args:
        root: `VOCdevkit/VOC2012`, or a folder laid out like it.
        sbd: folder of SBD, whose masks are converted and whose images extend the training set.
        labels: text file of image labels with lines ``id name name ...``.
        out, on_note: as `prepare_folder`.

    Raises:
        VwlError: a list, image or label is missing or wrong; the message names it.
    """
    from vwl.data.voc import prepare_voc as prepare

    return _finish(prepare(root, sbd, labels), out, on_note)


def prepare_coco(
    root: str | Path,
    masks: str | Path | None = None,
    *,
    out: str | Path | None = None,
    on_note: Notes = logger.info,
    on_progress: Callable[[int, int], None] | None = None,
) -> Index:
    """Paint the masks of MS COCO and return its index.

    Args:
        root: folder with `annotations/` and the images of 2014 or 2017.
        masks: folder for the masks; default: `SegmentationClass` in `root`.
        out, on_note: as `prepare_folder`.
        on_progress: called with (done, total) after each mask.

    Raises:
        VwlError: annotations or images are missing or wrong; the message names the file.
    """
    from vwl.data.coco import prepare_coco as prepare

    return _finish(prepare(root, masks, on_progress), out, on_note)


def prepare_scenes(
    folder: str | Path,
    num_train: int = 240,
    num_val: int = 80,
    *,
    heights: tuple[int, int] = (180, 220),
    widths: tuple[int, int] = (240, 280),
    num_classes: int = 4,
    seed: int = 0,
    heads: bool = False,
    out: str | Path | None = None,
    on_note: Notes = logger.info,
) -> Index:
    """Draw scenes with exact masks and return their index; needs no download.

    Args:
        folder: for the scenes; those that are there are kept.
        num_train, num_val: number of scenes in each split.
        heights, widths: smallest and largest size, pixels.
        num_classes: number of object classes, 1 to 6.
        seed: of the scenes.
        heads: also write masks of the parts that tell the classes apart.
        out, on_note: as `prepare_folder`.

    Raises:
        VwlError: a value is out of range, or the folder holds scenes of other settings.
    """
    from vwl.data.scenes import prepare_scenes as prepare

    return _finish(prepare(folder, num_train, num_val, heights, widths, num_classes, seed, heads), out, on_note)


def _finish(prepared: tuple[Index, list[str]], out: Any, on_note: Notes) -> Index:
    index, notes = prepared
    if out is not None:
        write_index(index, out)
    remark = without_contrast(index, index.rows.where(index.rows.in_splits("train", "aug")))
    for note in [*notes, *([remark] if remark else [])]:
        on_note(note)
    return index
