"""A CSV file with a column of 0 and 1 for each class, as Roboflow (`_classes.csv`), Kaggle and spreadsheets have it."""

from collections.abc import Sequence

from vwl.data.image_files import ImageFiles
from vwl.data.importers.common import LabelFile, find_image, split_for
from vwl.data.labels_csv import csv_records
from vwl.data.tagged import TaggedImage, TaggedImages
from vwl.errors import VwlError

IMAGE_COLUMNS = ("image", "filename", "file_name", "file", "path", "image_path", "image_name", "image_id", "imageid", "img", "id", "name")
"""Names of the column that holds the image's file, in lower case."""
_VALUES = {"0": False, "1": True, "0.0": False, "1.0": True, "false": False, "true": True}


def looks_multi_hot(header: Sequence[str], first: Sequence[str]) -> bool:
    """Return whether a CSV file with this header and first row has an image column and mostly 0 and 1 beside it."""
    image = _image_column(header)
    values = [value for number, value in enumerate(first[: len(header)]) if number != image and header[number].strip().lower() != "split"]
    num_marks = sum(value.strip().lower() in _VALUES for value in values)
    return image is not None and num_marks > 0 and 2 * num_marks >= len(values)


def read_multi_hot(label_files: Sequence[LabelFile], files: ImageFiles) -> TaggedImages:
    """Return the images of CSV files, one or one a split; every column beside those of image and split is a class.

    Raises:
        VwlError: a file is not CSV, its columns differ from those of the first, or a value is neither 0 nor 1.
    """
    images: list[TaggedImage] = []
    classes: list[str] = []
    for file, split in zip(label_files, split_for(label_files), strict=True):
        records = csv_records(file.text(), str(file))
        _, header = next(records, (1, []))
        columns = [name.strip() for name in header]
        image = _image_column(columns)
        if image is None:
            raise VwlError(f"{file} has no column for the image (it has: {', '.join(columns) or 'nothing'}); call it image or filename")
        own = next((number for number, name in enumerate(columns) if name.lower() == "split"), None)
        places = {number: name for number, name in enumerate(columns) if number not in {image, own}}
        if len({*places.values()}) < len(places):
            twice = next(name for name in places.values() if [*places.values()].count(name) > 1)
            raise VwlError(f"{file} has two columns '{twice}'; remove one")
        if classes and sorted(classes) != sorted(places.values()):
            raise VwlError(f"{file} has other columns than {label_files[0]}; give both the same classes")
        classes = classes or [*places.values()]
        for line, record in records:
            where = f"{file} line {line}"
            if len(record) != len(columns):
                raise VwlError(f"{where} has {len(record)} fields and the header {len(columns)}; correct the line")
            labels = []
            for number, name in places.items():
                value = record[number].strip()
                if value.lower() not in _VALUES:
                    advice = "write 0 or 1, or remove the column if it is no class"
                    raise VwlError(f"{where}: the column '{name}' holds '{value[:40]}'; {advice}")
                labels += [name] if _VALUES[value.lower()] else []
            stated = record[own].strip() if own is not None else split
            name = find_image(files, record[image].strip(), (file.parent,))
            images.append(TaggedImage(where, name, tuple(labels), stated, line if len(label_files) == 1 else 0))
    if not images:
        raise VwlError(f"{label_files[0]} lists no images")
    return TaggedImages(images, str(label_files[0]), f"multi-hot CSV {label_files[0].name}", order=classes)


def _image_column(header: Sequence[str]) -> int | None:
    names = [name.strip().lower() for name in header]
    return next((names.index(wanted) for wanted in IMAGE_COLUMNS if wanted in names), None)
