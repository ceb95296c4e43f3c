"""The CSV file of labels that `vwl data prepare folder` reads: its rows, and how the labels of an image are separated.

Labels are separated by `;`, `|` or `,`, whichever occurs in the column, or by blanks if none does. The separator holds for the whole file,
so "traffic light" is one class wherever another row has a separator. Two different separators are refused, unless one is stated.
A name in quotes ("traffic light", 'dog, brown') is kept as it is.
"""

import csv
import io
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from vwl.errors import VwlError
from vwl.storage.folder import Folder

SEPARATORS = {"semicolon": ";", "bar": "|", "comma": ",", "blank": " "}
"""What labels may be separated by, under the names of the option `--separator`."""
_COLUMNS = ("image", "labels", "split")
_QUOTED = re.compile(r"""(?<![^;|,\s])(?:"[^"]*"|'[^']*')(?=[;|,\s]|$)""")
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


@dataclass(frozen=True)
class LabelledImage:
    """One row of the file.

    Attributes:
        line: its number in the file, from 1.
        image: name of the image file, with or without extension.
        labels: class names.
        split: name of the split, empty if the file has no such column.
    """

    line: int
    image: str
    labels: tuple[str, ...]
    split: str


@dataclass(frozen=True)
class LabelTable:
    """The content of the file.

    Attributes:
        rows: its rows, at least one.
        has_split: whether it has a column `split`.
        separator: what separates labels: `;`, `|`, `,` or a blank.
    """

    rows: tuple[LabelledImage, ...]
    has_split: bool
    separator: str


def read_labels(labels_csv: str | Path, separator: str | None = None) -> LabelTable:
    """Read the CSV file of labels.

    Args:
        labels_csv: file in UTF-8 with a header that has the columns `image`, `labels` and optionally `split`.
        separator: name of what separates labels, a key of `SEPARATORS`; without it, it is detected.

    Raises:
        VwlError: the file is not CSV in UTF-8, a column is missing or occurs twice, there are no rows, labels are separated in two
            ways, or a quote is not closed; the message names the file and line.
    """
    records = csv_records(_text(labels_csv), str(labels_csv))
    _, header = next(records, (1, []))
    columns = [name.strip() for name in header]
    for needed in _COLUMNS[:2]:
        if needed not in columns:
            raise VwlError(
                f"{labels_csv} has no column '{needed}' (it has: {', '.join(columns) or 'nothing'}); "
                "its header must be image,labels or image,labels,split"
            )
    for name in _COLUMNS:
        if columns.count(name) > 1:
            raise VwlError(f"{labels_csv} has {columns.count(name)} columns '{name}'; remove all but one")
    fields = []
    for line, record in records:
        if len(record) > len(columns):
            raise VwlError(f"{labels_csv} line {line} has more fields than the header; separate labels by ';', or put the field in quotes")
        values = dict(zip(columns, map(str.strip, record), strict=False))
        image, labels, split = (values.get(name, "") for name in _COLUMNS)
        if "split" in columns and not split:
            raise VwlError(f"{labels_csv} line {line} has no split; write train, aug, val or test")
        fields.append((line, image, labels, split))
    if not fields:
        raise VwlError(f"{labels_csv} lists no images")
    mark = SEPARATORS[separator] if separator else detect_separator(labels_csv, [(line, labels) for line, _, labels, _ in fields])
    rows = [
        LabelledImage(line, image, tuple(split_labels(labels, mark, f"{labels_csv} line {line}")), split)
        for line, image, labels, split in fields
    ]
    return LabelTable(tuple(rows), "split" in columns, mark)


def split_labels(text: str, separator: str, where: str) -> Iterator[str]:
    """Yield the class names of a field; empty ones are left out, and quotes around a name are taken off.

    Args:
        text: the field.
        separator: `;`, `|`, `,` or a blank, which stands for any run of blanks.
        where: file and line, for messages.

    Raises:
        VwlError: a name begins with a quote that does not end it.
    """
    ends = re.compile(r"\s" if separator == " " else re.escape(separator))
    position = 0
    while position < len(text):
        if text[position].isspace() or text[position] == separator:
            position += 1
            continue
        found = ends.search(text, position)
        end = found.start() if found else len(text)
        if text[position] in "\"'":
            quoted = _QUOTED.match(text, position)
            rest = ends.search(text, quoted.end()) if quoted else None
            end = (rest.start() if rest else len(text)) if quoted else end
            if not quoted or text[quoted.end() : end].strip():
                label = text[position:end].strip()[:60]
                advice = "put quotes around the whole name or remove them"
                raise VwlError(f"{where}: the label {label} begins with a quote that does not end it; {advice}")
            name = quoted.group()[1:-1].strip()
        else:
            name = text[position:end].strip()
        if name:
            yield name
        position = end


def _text(labels_csv: str | Path) -> str:
    path = Path(labels_csv)
    try:
        return Folder(path.parent).read(path.name).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise VwlError(f"{labels_csv} is not a text file in UTF-8") from None


def csv_records(text: str, labels_csv: str) -> Iterator[tuple[int, list[str]]]:
    """Yield the line number and the fields of each record that is not blank, the header first.

    Args:
        text: content of the file.
        labels_csv: its name, for messages.

    Raises:
        VwlError: it holds control characters or is not CSV.
    """
    control = _CONTROL.search(text)
    if control:
        line = len(text[: control.start() + 1].splitlines())
        raise VwlError(f"{labels_csv} line {line} holds the control character {ord(control.group()):#04x}; save it as text in UTF-8")
    reader = csv.reader(io.StringIO(text, newline=""), skipinitialspace=True, strict=True)
    try:
        for record in reader:
            if any(field.strip() for field in record):
                yield reader.line_num, record
    except csv.Error as error:
        advice = "quotes go around a whole field, and a field has at most 131,072 characters"
        raise VwlError(f"{labels_csv} line {reader.line_num} is not valid CSV ({error}); {advice}") from None


def detect_separator(labels_csv: str | Path, fields: list[tuple[int, str]]) -> str:
    """Return the separator that occurs in the fields (line, text) outside quotes, a blank if none does.

    Raises:
        VwlError: two do.
    """
    first: dict[str, int] = {}
    for line, text in fields:
        for mark in set(_QUOTED.sub("", text)) & {*";|,"}:
            first.setdefault(mark, line)
    if len(first) > 1:
        (one, line), (other, other_line), *_ = sorted(first.items(), key=lambda item: item[1])
        raise VwlError(
            f"{labels_csv} separates labels by '{one}' (line {line}) and by '{other}' (line {other_line}); use one of them, "
            "put a name that holds the other in quotes, or state one with --separator"
        )
    return next(iter(first), " ")
