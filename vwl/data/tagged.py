"""From images with label names to an index table: the second half of every importer that reads labels which people gave.

An importer (`vwl.data.folder`, `vwl.data.importers`) finds the images and the names of their labels; here these become classes with ids,
splits, masks and negatives, by the same rules and the same checks for every format.

An image of split train without a label is refused, unless the user has said how the labels mark an image that shows none of the classes:
by a word of their own (`--negatives none`), or by having no label (`--negatives empty`). So neither a forgotten label nor a misspelt word
becomes a statement about an image.
"""

import difflib
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from vwl.data.class_names import BACKGROUND, check_object_name, check_object_names, key
from vwl.data.image_files import ImageFiles, below, common_root, image_id_of, without_links
from vwl.data.index import Index, Row, make_index
from vwl.data.row_checks import SPLITS
from vwl.errors import VwlError, did_you_mean
from vwl.storage.folder import Folder

EMPTY = "empty"
"""The value of `negatives` that takes images without a label as images without objects, where no label has this name."""
_NEARLY = 0.8
"""Similarity from which a class name is taken for a misspelling of the word for negatives."""
_ABSENT = {"none", "nothing", "negative", "negatives", "empty", "noobject", "noobjects", "nolabel", "unlabelled", "unlabeled", "normal"}
_NOT = ("no ", "no_", "no-", "non-", "not ", "without ")


@dataclass(frozen=True)
class TaggedImage:
    """An image with the names of its labels.

    Attributes:
        where: file and line or entry that it is from, for messages.
        image: name or path of its file, with or without extension.
        labels: class names.
        split: name of the split, empty if the format states none.
        line: number of the line in a text file, 0 for other formats.
    """

    where: str
    image: str
    labels: tuple[str, ...]
    split: str = ""
    line: int = 0


@dataclass(frozen=True)
class TaggedImages:
    """What an importer has found.

    Attributes:
        images: at least one.
        file: file or folder that the labels are from, for messages.
        source: description of the data set for users.
        notes: lines for the user.
        order: class names in the format's own order; empty if it has none.
    """

    images: Sequence[TaggedImage]
    file: str
    source: str
    notes: Sequence[str] = ()
    order: Sequence[str] = ()


@dataclass(frozen=True)
class Choices:
    """What the user states beside the labels.

    Attributes:
        masks: folder of indexed or grey PNG masks, laid out like the images; images of split test and negatives need none.
        val_share: share of the images for val, at least 0 and below 1; only for labels without splits.
        classes: text file with one class name per line, in the order of the mask ids 1..C.
        negatives: label of images that show none of the classes; `EMPTY`: those without a label.
    """

    masks: str | Path | Folder | None = None
    val_share: float = 0.0
    classes: str | Path | None = None
    negatives: str | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.val_share < 1:
            raise VwlError(f"the share of images for val is {self.val_share}; it must be at least 0 and below 1")
        if self.negatives is not None and not self.negatives.strip():
            raise VwlError(f"--negatives '{self.negatives}' names no label; write the label of images without objects, or '{EMPTY}'")


def tagged_index(tagged: TaggedImages, files: ImageFiles, choices: Choices) -> tuple[Index, list[str]]:
    """Return the index of images with label names, and notes for the user, one line each.

    Without splits a share of the images is in val and the others are in train. The hash of an image's id decides, so that an image keeps
    its split on every machine and when others are added.

    Raises:
        VwlError: an image, label or mask is missing, an image is listed twice, a split or class is unknown, a class name is not allowed,
            two differ only in case or blanks, a mark of negatives is contradicted or never used, or a file is a link that leads out of
            its folder; the message names it.
    """
    if choices.val_share and any(image.split for image in tagged.images):
        stated = "has a column 'split'" if tagged.file.lower().endswith(".csv") else "states splits"
        raise VwlError(f"{tagged.file} {stated}, so a share for val cannot be given as well; drop one of them")
    negatives = _Negatives(tagged, choices.negatives)
    names, notes = _class_names(tagged, negatives, choices.classes)
    class_ids = {name: number for number, name in enumerate(names, 1)}
    masks = choices.masks if choices.masks is None or isinstance(choices.masks, Folder) else Folder(choices.masks)
    images = files.folder
    if masks:
        images, masks = without_links(images), without_links(masks)
    root = common_root(images, *([masks] if masks else []))
    images_below, masks_below = below(root, images), below(root, masks) if masks else ""
    mask_files = set(masks.paths()) if masks else set()

    rows, num_without_mask = [], 0
    for image in tagged.images:
        where, file = image.where, files.find(image.image)
        if file is None:
            raise VwlError(f"{where}: there is no image '{image.image}' in {files.folder}{did_you_mean(image.image, files.names)}")
        image_id = image_id_of(file)
        split = image.split or ("val" if _unit_hash(image_id) < choices.val_share else "train")
        if split not in SPLITS:
            raise VwlError(f"{where}: unknown split '{split}'{did_you_mean(split, SPLITS)} (splits are train, aug, val and test)")
        negative = negatives.includes(image)
        labels = () if negative else image.labels
        if not labels and not negative and split in {"train", "aug"}:
            advice = f"add one or remove it; if images without a label show none of the classes, say so with --negatives {EMPTY}"
            raise VwlError(f"{where}: the training image '{image.image}' has no label; {advice}")
        unknown = [name for name in labels if name not in class_ids]
        if unknown:
            raise VwlError(f"{where}: class '{unknown[0]}' is not in {choices.classes}{did_you_mean(unknown[0], names)}")
        mask, name = None, f"{file.rpartition('.')[0]}.png"
        if name in mask_files:
            mask = f"{masks_below}{name}"
        elif masks is not None and negative:
            num_without_mask += 1
        elif masks is not None and split != "test":
            missing = f"the mask {masks}/{name} of image '{image.image}' is missing; only images of split test need none"
            raise VwlError(f"{where}: {missing}")
        for path in filter(None, (f"{images_below}{file}", mask)):
            root.require_inside(path)
        rows.append(Row(image_id, f"{images_below}{file}", tuple(sorted({class_ids[name] for name in labels})), mask, split, negative))
    if not names:
        what = f"no image has another label than '{negatives.word}'" if negatives.marks else "no image has a label"
        raise VwlError(f"{tagged.file}: {what}; write class names into the column 'labels'")
    notes += negatives.notes(sum(row.negative for row in rows), num_without_mask)
    num_unlisted = len(files.paths) - len({row.image for row in rows})
    if num_unlisted:
        notes.append(f"{num_unlisted:,} images of {files.folder} are not in {tagged.file} and are left out")
    return make_index(rows, [BACKGROUND, *names], root, tagged.source), notes


class _Negatives:
    """Which images show no object: those with the label that the user has named, or those without any label."""

    def __init__(self, tagged: TaggedImages, word: str | None) -> None:
        self.file, self.word = tagged.file, word
        self.names = list(dict.fromkeys(name for image in tagged.images for name in image.labels))
        self.marks = set() if word is None else {name for name in self.names if key(name) == key(word)}
        self.by_absence = word is not None and key(word) == EMPTY and not self.marks
        if word is None or self.marks or (self.by_absence and not all(image.labels for image in tagged.images)):
            return
        if self.by_absence:
            raise VwlError(
                f"{self.file}: every image has a label, so that --negatives {EMPTY} finds no image without objects; leave it out"
            )
        near = did_you_mean(word, self.names)
        raise VwlError(f"{self.file}: no image is labelled '{word}'{near} (--negatives names the label of images without objects)")

    def includes(self, image: TaggedImage) -> bool:
        """Return whether an image shows no object.

        Raises:
            VwlError: it has another label as well.
        """
        marked = [name for name in image.labels if name in self.marks]
        others = [name for name in image.labels if name not in self.marks]
        if marked and others:
            raise VwlError(
                f"{image.where}: the labels '{marked[0]}' (no object) and '{others[0]}' contradict each other; remove one of them"
            )
        return bool(marked) or (self.by_absence and not image.labels)

    def require_no_misspelling(self, names: Sequence[str], where: Mapping[str, str]) -> None:
        """Refuse a class name that is nearly the word for negatives; not called for names that the user has listed."""
        word = key(self.word or "")
        for name in names if self.marks else ():
            own = key(name)
            if own in word and len(word) - len(own) > 1:  # "crack" in "no crack"
                continue
            if difflib.SequenceMatcher(None, own, word).ratio() >= _NEARLY:
                advice = "correct it, or list the classes in a file for --classes"
                raise VwlError(f"{where[name]}: the class '{name}' is nearly '{self.word}', the label of images without objects; {advice}")

    def notes(self, num: int, num_without_mask: int) -> list[str]:
        """Return notes on the images without objects, and on class names that seem to mean them."""
        if self.word is None:
            seeming = [name for name in self.names if key(name) in _ABSENT or name.casefold().startswith(_NOT)]
            meant = "is taken for a class of objects; if it marks images that show none of the classes, give --negatives"
            return [f"'{name}' {meant} '{name}'" for name in seeming]
        how = "without a label" if self.by_absence else f"labelled '{self.word}'"
        notes = [f"{num:,} images show no object ({how})"]
        return [*notes, f"{num_without_mask:,} of them have no mask and are not scored"] if num_without_mask else notes


def _class_names(tagged: TaggedImages, negatives: _Negatives, file: str | Path | None) -> tuple[list[str], list[str]]:
    """Return the names of the classes 1..C, from the file, else in the format's order, else sorted; and notes for the user."""
    where: dict[str, str] = {}
    lines: dict[str, int] = {}
    for image in tagged.images:
        for name in image.labels:
            if name not in negatives.marks and name not in where:
                where[name], lines[name] = image.where, image.line
                check_object_name(name, image.where)
    if file is not None:
        names = _listed_names(file)
        unused = sorted({*names} - {*where})
        return names, [*tagged.notes, *([f"no image is labelled {', '.join(unused)}"] if unused else [])]
    check_object_names([*where], tagged.file, lines if all(lines.values()) else None)
    negatives.require_no_misspelling([*where], where)
    ordered = [name for name in tagged.order if name in where]
    names = ordered if {*ordered} == {*where} else sorted(where)
    unused = [name for name in tagged.order if name not in where and name not in negatives.marks]
    how = "in the order of the format" if names is ordered else "in alphabetical order"
    notes = [f"classes 1 to {len(names)} are the label names {how}: {', '.join(names)}", *tagged.notes]
    return names, [*notes, *([f"no image is labelled {', '.join(unused)}, which is left out"] if unused else [])]


def _listed_names(file: str | Path) -> list[str]:
    """Return the names in a text file, without the background."""
    path = Path(file)
    try:
        text = Folder(path.parent).read(path.name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise VwlError(f"{file} is not a text file in UTF-8") from None
    names = [line.strip() for line in text.splitlines() if line.strip()]
    names = names[1:] if names and key(names[0]) == BACKGROUND else names
    if not names:
        raise VwlError(f"{file} holds no class names; write one per line")
    check_object_names(names, str(file))
    return names


def _unit_hash(image_id: str) -> float:
    """Return a hash of the id as a number in [0, 1)."""
    return int.from_bytes(hashlib.sha256(image_id.encode()).digest()[:8], "big") / 2**64
