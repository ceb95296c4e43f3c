"""Counts of images, labels and masks in an index table, for the tables and the JSON that `vwl data` prints."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from vwl.data.index import Index, Row


@dataclass(frozen=True)
class SplitSummary:
    """Counts of one split.

    Attributes:
        split: name of the split.
        images: number of images.
        labels_per_image: mean number of labels of an image.
        masks: number of images that have a mask.
        classes: number of images that have the label, for each class name in the order of the ids, without background.
    """

    split: str
    images: int
    labels_per_image: float
    masks: int
    classes: dict[str, int]


def summarise(index: Index) -> list[SplitSummary]:
    """Return the counts of each split, in the order in which the splits first occur."""
    summaries = []
    for split in dict.fromkeys(row.split for row in index.rows):
        rows = index.split(split)
        counts = Counter(label for row in rows for label in row.labels)
        classes = {name: counts[label] for label, name in enumerate(index.classes) if label}
        summaries.append(SplitSummary(split, len(rows), counts.total() / len(rows), sum(row.has_truth for row in rows), classes))
    return summaries


def without_contrast(index: Index, rows: Sequence[Row]) -> str | None:
    """Return a line for the user on classes that every training image shows; none if there are no such classes.

    A classifier learns a class from what sets its images apart from the others. Without others it can take anything for the class.

    Args:
        index: the data set.
        rows: its training images.
    """
    counts = Counter(label for row in rows for label in row.labels)
    everywhere = [index.classes[label] for label, count in counts.items() if count == len(rows)]
    if not everywhere:
        return None
    names = ", ".join(f"'{name}'" for name in sorted(everywhere))
    return (
        f"every training image shows {names}: nothing tells the object from its surroundings, and its maps may cover these too; "
        "add images without it (see --negatives of vwl data prepare)"
    )
