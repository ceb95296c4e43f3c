"""Hugging Face's image folders: `metadata.csv` or `metadata.jsonl` beside the images, one or one in each split's folder.

Image folders without metadata have a folder for each class, see `class_folders`.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from vwl.data.image_files import ImageFiles
from vwl.data.importers.common import SPLIT_NAMES, LabelFile, as_labels, find_image, parsed
from vwl.data.labels_csv import SEPARATORS, csv_records, detect_separator, split_labels
from vwl.data.tagged import TaggedImage, TaggedImages
from vwl.errors import VwlError, did_you_mean

METADATA = ("metadata.csv", "metadata.jsonl")
_FILE, _LABELS = "file_name", ("labels", "label")


def read_hugging_face(
    label_files: Sequence[LabelFile], files: ImageFiles, field: str | None = None, separator: str | None = None
) -> TaggedImages:
    """Return the images of metadata files. The split is that of the first folder of an image's path.

    Args:
        label_files: the metadata.
        files: the images.
        field: column of the labels, if it is neither `label` (one name) nor `labels` (a list; in CSV separated as in `labels_csv`).
        separator: what separates labels in CSV, a key of `SEPARATORS`; without it, it is detected.

    Raises:
        VwlError: a file is neither CSV nor JSON lines, or a row has no file name or no label column.
    """
    images = []
    for file in label_files:
        for line, row in _rows(file, field, separator):
            where = f"{file} line {line}"
            name = row.get(_FILE)
            if not isinstance(name, str) or not name:
                raise VwlError(f"{where} has no '{_FILE}'")
            wanted = field or next((column for column in _LABELS if column in row), _LABELS[0])
            if wanted not in row:
                known = [column for column in row if column != _FILE]
                near = (
                    did_you_mean(wanted, known) if field else f"; name the column of the labels with --field ({', '.join(known) or 'none'})"
                )
                raise VwlError(f"{where} has no column '{wanted}'{near}")
            path = find_image(files, name, (file.parent,))
            top = path.partition("/")[0].lower() if "/" in path else ""
            split = SPLIT_NAMES.get(top, "")
            images.append(TaggedImage(where, path, as_labels(row[wanted], where), split, line if len(label_files) == 1 else 0))
    if not images:
        raise VwlError(f"{label_files[0]} lists no images")
    return TaggedImages(images, str(label_files[0]), f"Hugging Face image folder with {label_files[0].name}")


def _rows(file: LabelFile, field: str | None, separator: str | None) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yield the number of each line and its values by column."""
    if file.name.lower().endswith(".jsonl"):
        for line, text in enumerate(file.text().splitlines(), 1):
            if text.strip():
                row = parsed(text, f"{file} line {line}")
                if not isinstance(row, dict):
                    raise VwlError(f'{file} line {line} is no JSON object; write {{"{_FILE}": ..., "labels": [...]}}')
                yield line, row
        return
    records = csv_records(file.text(), str(file))
    _, header = next(records, (1, []))
    columns = [name.strip() for name in header]
    rows = []
    for line, record in records:
        if len(record) != len(columns):
            raise VwlError(f"{file} line {line} has {len(record)} fields and the header {len(columns)}; put fields with commas in quotes")
        rows.append((line, dict[str, Any](zip(columns, map(str.strip, record), strict=True))))
    several = field or _LABELS[0]
    if several in columns:
        fields = [(line, row[several]) for line, row in rows]
        mark = SEPARATORS[separator] if separator else detect_separator(str(file), fields)
        for line, row in rows:
            row[several] = [*split_labels(row[several], mark, f"{file} line {line}")]
    yield from rows
