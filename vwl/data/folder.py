"""A folder of images with a CSV file of labels, as an index table.

One of the importers behind `vwl data prepare`, for data sets of one's own. Masks are optional; only images that have one can be scored.
"""

from collections.abc import Callable
from pathlib import Path

from vwl.data.image_files import ImageFiles, as_folder
from vwl.data.index import Index
from vwl.data.labels_csv import read_labels
from vwl.data.tagged import Choices, TaggedImage, TaggedImages, tagged_index
from vwl.storage.folder import Folder


def prepare_folder(
    images: str | Path | Folder,
    labels_csv: str | Path,
    masks: str | Path | Folder | None = None,
    val_share: float = 0.0,
    classes: str | Path | None = None,
    separator: str | None = None,
    negatives: str | None = None,
) -> tuple[Index, list[str]]:
    """Return the index of a folder of images with a CSV file that has the columns `image`, `labels` and optionally `split`.

    `image` is the name of a file in `images`, with or without extension. `labels` are class names separated by ``;``, ``|`` or ``,``,
    whichever the file uses, or by blanks if it uses none of them (`vwl.data.labels_csv`). `split` is train, aug, val or test.

    Args:
        images: folder of the images.
        labels_csv: the CSV file, in UTF-8, with a header.
        masks, val_share, classes, negatives: see `vwl.data.tagged.Choices`; without `classes` the names are sorted.
        separator: what separates labels, a key of `vwl.data.labels_csv.SEPARATORS`; without it, it is detected.

    Returns:
        The index, whose root is the deepest folder that holds images and masks, and notes for the user, one line each.

    Raises:
        VwlError: a column is missing, or as `vwl.data.tagged.tagged_index`; the message names the file and line.
    """
    choices = Choices(masks, val_share, classes, negatives)
    folder = as_folder(images)
    source = f"folder {Path(folder.path).name} with {Path(labels_csv).name}"
    tagged = read_labels_csv(labels_csv, source, separator)
    return tagged_index(tagged, ImageFiles(folder, recursive=False), choices)


def read_labels_csv(
    labels_csv: str | Path, source: str, separator: str | None = None, path_of: Callable[[str], str] = lambda name: name
) -> TaggedImages:
    """Return the images of a CSV file of labels.

    Args:
        labels_csv: the file.
        source: description of the data set.
        separator: what separates labels; without it, it is detected.
        path_of: returns the image that a name in the file means.
    """
    table = read_labels(labels_csv, separator)
    found = [TaggedImage(f"{labels_csv} line {row.line}", path_of(row.image), row.labels, row.split, row.line) for row in table.rows]
    notes = []
    if any(len(row.labels) > 1 for row in table.rows):
        blanks = "blanks; if a class name has blanks, separate labels by ';' or put the name in quotes"
        notes.append(f"labels are separated by {blanks if table.separator == ' ' else repr(table.separator)}")
    return TaggedImages(found, str(labels_csv), source, notes)
