"""Counts of images, labels and masks in an index table, for the tables and the JSON that `vwl data` prints."""

from dataclasses import dataclass

from vwl.data.index import Index, Rows


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
    for split in index.rows.split_counts():
        rows = index.split(split)
        counts = rows.label_counts(index.num_objects).tolist()
        classes = {name: counts[label] for label, name in enumerate(index.classes) if label}
        summaries.append(SplitSummary(split, len(rows), sum(counts) / len(rows), int(rows.has_truth.sum()), classes))
    return summaries


def without_contrast(index: Index, rows: Rows) -> str | None:
    """Return a line for the user on classes that every training image shows; none if there are no such classes.

    A classifier learns a class from what sets its images apart from the others. Without others it can take anything for the class.

    Args:
        index: the data set.
        rows: its training images.
    """
    counts = rows.label_counts(index.num_objects).tolist()
    everywhere = [index.classes[label] for label, count in enumerate(counts) if label and count == len(rows)]
    if not everywhere:
        return None
    names = ", ".join(f"'{name}'" for name in sorted(everywhere))
    return (
        f"every training image shows {names}: nothing tells the object from its surroundings, and its maps may cover these too; "
        "add images without it (see --negatives of vwl data prepare)"
    )
