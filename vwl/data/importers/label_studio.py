"""Choices of Label Studio: its exports JSON, JSON-MIN and CSV.

A task can have annotations of several people. Skipped (cancelled) ones do not count; where some are marked as ground truth, only these
do. A label is the image's if more than half of the annotations that count have it.
"""

import json
import re
from collections.abc import Iterable, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from vwl.data.image_files import ImageFiles, is_image
from vwl.data.importers.common import LabelFile, as_labels, find_image
from vwl.data.labels_csv import csv_records
from vwl.data.tagged import TaggedImage, TaggedImages
from vwl.errors import VwlError

CSV_COLUMNS = {"annotation_id", "annotator"}
"""Columns by which its CSV, and keys by which its JSON-MIN are told."""
_ABOUT = {"annotation_id", "annotator", "created_at", "updated_at", "id", "lead_time", "history", "agreement", "comments", "split"}
_UPLOAD_PREFIX = re.compile(r"^[0-9a-f]{8}-")


def read_label_studio(file: LabelFile, files: ImageFiles, field: str | None = None) -> TaggedImages:
    """Return the images of an export; tasks without an annotation that counts are left out.

    Args:
        file: the export.
        files: the images.
        field: name of the choices (`name` in the labelling configuration), where there are several.

    Raises:
        VwlError: the file is not such an export, has no choices or several, or annotations of a task contradict each other.
    """
    if file.name.lower().endswith(".csv"):
        kind, tasks = "CSV", _of_rows(_csv_rows(file), file, field)
    else:
        content = file.json()
        if not isinstance(content, list) or not all(isinstance(task, dict) for task in content):
            raise VwlError(f"{file} is not an export of Label Studio: it is no list of tasks")
        if content and "annotations" not in content[0]:
            kind, tasks = "JSON-MIN", _of_rows([(f"task {task.get('id')}", task) for task in content], file, field)
        else:
            kind, tasks = "JSON", _of_tasks(content, file, field)
    images = []
    num_open = num_differing = 0
    for where, image, annotations in tasks:
        if not annotations:
            num_open += 1
            continue
        labels, differing = _majority(annotations, where)
        num_differing += differing
        images.append(TaggedImage(where, _image(files, image), labels))
    if not images:
        raise VwlError(f"{file}: no task has an annotation; annotate some and export again")
    notes = [f"{num_open:,} tasks without an annotation, or only skipped ones, are left out"] if num_open else []
    if num_differing:
        notes.append(f"the annotations of {num_differing:,} tasks differ; labels are those that more than half of them have")
    return TaggedImages(images, str(file), f"Label Studio {kind} {file.name}", notes)


Task = tuple[str, str, list[tuple[str, ...]]]
"""Where it is, the value that names its image, and the labels of each annotation."""


def _of_tasks(content: list[dict[str, Any]], file: LabelFile, field: str | None) -> list[Task]:
    """Return the tasks of the full JSON."""
    names: dict[str, None] = {}
    other: set[str] = set()
    parsed: list[tuple[str, str, list[tuple[bool, list[dict[str, Any]]]]]] = []
    for task in content:
        where = f"{file} task {task.get('id')}"
        data, annotations = task.get("data"), task.get("annotations")
        if not isinstance(data, dict) or not isinstance(annotations, list):
            raise VwlError(f"{where} has no 'data' or no list of 'annotations'; export the project as JSON")
        counted = []
        for annotation in annotations:
            results = annotation.get("result") if isinstance(annotation, dict) else None
            if not isinstance(results, list) or not all(isinstance(result, dict) for result in results):
                raise VwlError(f"{where} has an annotation without a list 'result'; export the project as JSON")
            if annotation.get("was_cancelled"):
                continue
            choices = [result for result in results if result.get("type") == "choices"]
            other |= {str(result.get("type")) for result in results} - {"choices"}
            names |= dict.fromkeys(str(result.get("from_name")) for result in choices)
            counted.append((bool(annotation.get("ground_truth")), choices))
        parsed.append((where, _image_value(data, where), counted))
    if not names:
        found = f" (it has {', '.join(sorted(other))})" if other else ""
        raise VwlError(f"{file} holds no choices{found}; tag images with <Choices> in the labelling configuration")
    wanted = _the_one([*names], field, f"{file} has choices")
    tasks = []
    for where, image, counted in parsed:
        kept = [choices for is_truth, choices in counted if is_truth] or [choices for _, choices in counted]
        tasks.append((where, image, [_chosen(choices, wanted, where) for choices in kept]))
    return tasks


def _chosen(choices: list[dict[str, Any]], wanted: str, where: str) -> tuple[str, ...]:
    """Return the labels of one annotation."""
    labels: list[str] = []
    for result in choices:
        if str(result.get("from_name")) == wanted:
            value = result.get("value")
            labels += as_labels(value.get("choices") if isinstance(value, dict) else value, where)
    return tuple(labels)


def _csv_rows(file: LabelFile) -> list[tuple[str, dict[str, Any]]]:
    """Return the rows of the CSV with their lines; a cell may hold choices as JSON."""
    records = csv_records(file.text(), str(file))
    _, header = next(records, (1, []))
    rows = []
    for line, record in records:
        if len(record) != len(header):
            raise VwlError(f"{file} line {line} has {len(record)} fields and the header {len(header)}; export the project again")
        rows.append((f"line {line}", dict(zip(header, record, strict=True))))
    return rows


def _of_rows(rows: Sequence[tuple[str, dict[str, Any]]], file: LabelFile, field: str | None) -> list[Task]:
    """Return the tasks of CSV or JSON-MIN, which have a row for each annotation."""
    tasks: dict[str, Task] = {}
    images = [_image_value({name: value for name, value in row.items() if name not in _ABOUT}, f"{file} {place}") for place, row in rows]
    others = [name for image, (_, row) in zip(images, rows, strict=True) for name in row if name not in _ABOUT and row[name] != image]
    name = _the_one([*dict.fromkeys(others)], field, f"{file} has the columns")
    for image, (place, row) in zip(images, rows, strict=True):
        where, value = f"{file} {place}", row.get(name)  # JSON-MIN has no key for an annotation without a choice
        if isinstance(value, str) and value.startswith("{"):
            try:
                value = json.loads(value)
            except (ValueError, RecursionError):
                raise VwlError(f"{where}: the choices {value[:60]} are not valid JSON; export the project again") from None
        value = value.get("choices") if isinstance(value, dict) else value
        tasks.setdefault(str(row.get("id")), (where, image, []))[2].append(as_labels(value, where))
    return [*tasks.values()]


def _image_value(data: dict[str, Any], where: str) -> str:
    """Return the value of a task's data that names its image: `image`, or else the only one that looks like an image."""
    value = data.get("image")
    if isinstance(value, str) and value:
        return value
    found = {own for own in data.values() if isinstance(own, str) and is_image(_path(own).rpartition("/")[2])}
    if len(found) != 1:
        raise VwlError(f"{where} has {len(found)} values that name an image; the task's data needs one, called image")
    return found.pop()


def _the_one(names: Sequence[str], wanted: str | None, what: str) -> str:
    if wanted is not None:
        if wanted not in names:
            raise VwlError(f"{what} {', '.join(names)}, and --field says '{wanted}'")
        return wanted
    if len(names) != 1:
        raise VwlError(f"{what} {', '.join(names)}; say with --field which are the labels")
    return names[0]


def _majority(annotations: Sequence[Iterable[str]], where: str) -> tuple[tuple[str, ...], bool]:
    """Return the labels of more than half of the annotations, and whether these differ."""
    sets = [frozenset(own) for own in annotations]
    names = dict.fromkeys(name for own in annotations for name in own)
    labels = tuple(name for name in names if 2 * sum(name in own for own in sets) > len(sets))
    if names and not labels:
        advice = "mark one annotation as ground truth, or remove those that are wrong"
        raise VwlError(f"{where}: its annotations agree on none of {', '.join(names)}; {advice}")
    return labels, len(set(sets)) > 1


def _path(value: str) -> str:
    """Return the path that a URL or path names: `d` of Label Studio's local files, else the path itself."""
    try:
        url = urlsplit(value)
        query = parse_qs(url.query)
    except ValueError:  # brackets that look like an IPv6 address
        return value
    return query["d"][0] if "d" in query else unquote(url.path) if url.scheme or url.query else value


def _image(files: ImageFiles, value: str) -> str:
    """Return the path of a task's image; Label Studio puts eight hexadecimal digits before the names of uploaded files."""
    path = _path(value)
    found = find_image(files, path)
    name = path.rpartition("/")[2]
    if files.find(found) is None and _UPLOAD_PREFIX.match(name):
        return find_image(files, _UPLOAD_PREFIX.sub("", name))
    return found
