"""The index table: one Parquet file with a row for each image of a data set.

`vwl data prepare` writes it; every later stage reads it and needs to know nothing else about the data set.

Columns: `image_id` string, `image` string (path), `labels` list<int32> (class ids of the objects, 1..C, ascending), `mask` string
(path) or null, `split` string (`train`, `aug`, `val`, `test`), and two that only some tables have: `negative` bool and `corrected`
binary. The schema's metadata holds the class names (background first), the palette, the root folder and the source. Paths are relative
to the root folder and cannot lead out of it.

An image without labels either has not been labelled, or is *negative*: whoever labelled it said that it shows none of the classes.
Only the column tells the two apart, so that a forgotten label never counts as such a statement.

`corrected` is the PNG of a mask that a person has corrected, or null (`vwl data add-masks`). It is ground truth and, of a training
image, replaces the pseudo mask (`vwl.data.corrections`).
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vwl.data.class_names import BACKGROUND, check_object_names, class_ids
from vwl.data.data_fingerprint import DataFingerprint
from vwl.data.row_checks import metadata_problem, row_problem
from vwl.errors import VwlError
from vwl.storage.cache import read_cached
from vwl.storage.folder import Folder, split_path
from vwl.storage.images import load_upright
from vwl.storage.masks import decode_mask, voc_palette

_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("image", pa.string()),
        ("labels", pa.list_(pa.int32())),
        ("mask", pa.string()),
        ("split", pa.string()),
    ]
)
_NEGATIVE = pa.field("negative", pa.bool_())
_CORRECTED = pa.field("corrected", pa.binary())
_OPTIONAL = (_NEGATIVE, _CORRECTED)
"""Columns that only tables with negative images, or with corrected masks, have."""
_TRAINING = ("train", "aug")


@dataclass(frozen=True)
class Row:
    """One image of a data set.

    Attributes:
        image_id: unique name, without folder and extension.
        image: path of the image file, relative to the root.
        labels: class ids of the objects in it, 1..C, ascending.
        mask: path of the ground-truth mask, relative to the root; None if there is none.
        split: `train`, `aug`, `val` or `test`.
        negative: whether it is known to show no object; `labels` is then empty.
        corrected: PNG of its corrected mask; None if there is none.
    """

    image_id: str
    image: str
    labels: tuple[int, ...]
    mask: str | None
    split: str
    negative: bool = False
    corrected: bytes | None = field(default=None, repr=False)

    @property
    def is_labelled(self) -> bool:
        """Whether it is known which classes the image shows."""
        return bool(self.labels) or self.negative

    @property
    def has_truth(self) -> bool:
        """Whether the image has ground truth: a corrected mask, or one of the data set."""
        return self.corrected is not None or self.mask is not None


@dataclass(frozen=True)
class Index:
    """A data set: its images, classes and folder.

    Attributes:
        rows: the images, in a fixed order.
        classes: class names by id; `classes[0]` is the background.
        root: folder that the paths of the rows are relative to.
        palette: 768 values, RGB of each of the 256 class ids.
        source: description of the data set for users.
    """

    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    root: Folder
    palette: tuple[int, ...]
    source: str

    @property
    def num_objects(self) -> int:
        """Number of object classes C, without the background."""
        return len(self.classes) - 1

    def split(self, name: str) -> list[Row]:
        """Return the rows of a split, or of `train_aug` (`train` and `aug` together), or of `all`.

        Raises:
            VwlError: the split has no images.
        """
        wanted = {"train_aug": {"train", "aug"}, "all": {row.split for row in self.rows}}.get(name, {name})
        rows = [row for row in self.rows if row.split in wanted]
        if not rows:
            raise VwlError(f"the index has no images in split '{name}' (it has {', '.join(sorted({r.split for r in self.rows}))})")
        return rows

    def class_ids(self, names: Sequence[str]) -> list[int]:
        """Return the class ids of names.

        Raises:
            VwlError: a name is unknown; the message suggests the most similar one.
        """
        return class_ids(self.classes, names)

    def fingerprint(self) -> str:
        """Return 16 hex digits of a hash of rows and classes, and those of corrected masks, if any; the root folder does not count."""
        parts = [self.classes, *((r.image_id, r.image, r.labels, r.mask, r.split, *([True] if r.negative else [])) for r in self.rows)]
        training: list[tuple[str, str]] = []
        held_out: list[tuple[str, str]] = []
        for row in self.rows:
            if row.corrected is not None:
                (training if row.split in _TRAINING else held_out).append((row.image_id, hashlib.sha256(row.corrected).hexdigest()))
        return str(DataFingerprint(_hash(parts), _hash(training) if training else "", _hash(held_out) if held_out else ""))

    def read_image(self, row: Row) -> Image.Image:
        """Return the image of a row as 8-bit RGB, upright, see `decode_image`.

        Raises:
            VwlError: the file is missing, truncated, not an image, or a link that leads out of the root.
        """
        self.root.require_inside(row.image)
        return decode_image(read_cached(self.root, row.image), row.image)

    def read_mask(self, row: Row) -> np.ndarray:
        """Return the ground-truth mask of a row, (H, W) uint8: class ids, 255 ignored. A corrected mask goes before the data set's.

        Raises:
            VwlError: the row has no mask, or its file cannot be read or is a link that leads out of the root.
        """
        if row.corrected is not None:
            return decode_mask(row.corrected, f"of image {row.image_id} in the column 'corrected' of the index")
        if row.mask is None:
            raise VwlError(f"image {row.image_id} has no mask in the index")
        self.root.require_inside(row.mask)
        return decode_mask(read_cached(self.root, row.mask), row.mask)


def _hash(parts: object) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]


def decode_image(data: bytes, source: str) -> Image.Image:
    """Decode an image file to 8-bit RGB, upright.

    The EXIF orientation is applied, an animation is its first frame. Grey and palette images are converted, 16-bit grey is scaled to
    8 bits, float values that are not finite are black, transparency is dropped.

    Args:
        data: content of the file.
        source: name of the file for error messages.

    Raises:
        VwlError: the file is damaged or not an image.
    """
    return to_rgb(load_upright(data, f"image {source}"), source)


def to_rgb(image: Image.Image, source: str) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB as `decode_image` says, without turning it.

    Raises:
        VwlError: its mode cannot be converted.
    """
    if image.mode.startswith("I") or image.mode == "F":
        values = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
        top = 65535.0 if image.mode != "F" else max(float(values.max()), 1.0)
        image = Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8))
    try:
        return image.convert("RGB")
    except ValueError:  # rare modes such as premultiplied grey
        raise VwlError(f"image {source} cannot be read: its pixels have mode {image.mode}; convert it to PNG") from None


def make_index(
    rows: Iterable[Row],
    classes: Sequence[str],
    root: str | Path | Folder,
    source: str,
    palette: Sequence[int] | None = None,
    file: str | Path | None = None,
) -> Index:
    """Check rows and return their index.

    Args:
        rows: the images.
        classes: class names by id, background first.
        root: folder that the paths of the rows are relative to.
        source: description of the data set for users; error messages start with it.
        palette: 768 values; VOC's colours if not given.
        file: table that the rows were read from; error messages start with it instead, and with the number of the row.

    Raises:
        VwlError: there are no rows, a class name is not allowed, an id occurs twice, or a row has an unknown split, labels outside 1..C, an
            id that is not a plain file name or a path that leads out of the root; the message names the image.
    """
    rows, classes = tuple(rows), tuple(classes)
    name = str(file or source)
    if not rows:
        raise VwlError(f"{name}: the data set has no images")
    if classes[:1] != (BACKGROUND,):
        raise VwlError(f"{name}: the first class is '{next(iter(classes), '')}'; it must be '{BACKGROUND}'")
    check_object_names(classes[1:], name)
    for number, row in enumerate(rows, 1):
        problem = row_problem(row.image_id, row.image, row.labels, row.mask, row.split, len(classes) - 1, row.negative)
        if not problem and not isinstance(row.corrected, bytes | None):
            problem = f"the corrected mask of image {row.image_id} is not the content of a file"
        if problem:
            raise VwlError(f"{name} row {number}: {problem}" if file else f"{name}: {problem}")
    duplicates = [image_id for image_id, count in Counter(row.image_id for row in rows).items() if count > 1]
    if duplicates:
        numbers = [str(number) for number, row in enumerate(rows, 1) if row.image_id == duplicates[0]]
        where = f"{name} rows {' and '.join(numbers[:2])}" if file else name
        more = f" (and {len(duplicates) - 1} more)" if len(duplicates) > 1 else ""
        raise VwlError(f"{where}: image id '{duplicates[0]}' occurs more than once{more}; every image needs an id of its own")
    return Index(rows, classes, root if isinstance(root, Folder) else Folder(root), tuple(palette or voc_palette()), source)


def write_index(index: Index, path: str | Path) -> None:
    """Write an index as one Parquet file, atomically: readers see the whole file or none.

    Raises:
        VwlError: `path` names no file, or a folder or device, or it cannot be written.
    """
    columns = list(zip(*((r.image_id, r.image, r.labels, r.mask, r.split) for r in index.rows), strict=True))
    fields = [*_SCHEMA]
    if any(row.negative for row in index.rows):  # tables without one keep the bytes that they always had
        columns.append(tuple(row.negative for row in index.rows))
        fields.append(_NEGATIVE)
    arrays = [pa.array(list(column), field.type) for column, field in zip(columns, fields, strict=True)]
    about = {"classes": index.classes, "palette": index.palette, "root": index.root.uri, "source": index.source, "format": 1}
    if any(row.corrected is not None for row in index.rows):
        arrays.append(pa.array([row.corrected for row in index.rows], _CORRECTED.type))
        fields.append(_CORRECTED)
    schema = pa.schema(fields).with_metadata({b"vwl": json.dumps(about).encode()})
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink, compression="zstd")
    folder, name = _located(path)
    folder.write(name, sink.getvalue())


def read_index(path: str | Path) -> Index:
    """Read an index table.

    Raises:
        VwlError: the file is missing, is not an index table, or holds values that no data set has (see `make_index`); the message names
            the file and the row.
    """
    folder, name = _located(path)
    if not folder.exists(name):
        raise VwlError(f"there is no index table at {path}; make one with: vwl data prepare auto|voc|coco|folder|scenes --out {path}")
    data = folder.read(name)
    try:
        file = pq.ParquetFile(pa.BufferReader(data))
        names = [*_SCHEMA.names, *(field.name for field in _OPTIONAL if field.name in file.schema_arrow.names)]
        table = file.read(names)
        about = json.loads(table.schema.metadata[b"vwl"])
        columns = [table[name].to_pylist() for name in names]
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError) as error:
        raise VwlError(f"{path} is not an index table made by vwl data prepare ({error})") from None
    problem = metadata_problem(about)
    if problem:
        raise VwlError(f"{path} is not an index table made by vwl data prepare: {problem}; make it again")
    columns[2] = [tuple(labels) if isinstance(labels, list) else labels for labels in columns[2]]
    rows = (Row(**dict(zip(names, values, strict=True))) for values in zip(*columns, strict=True))
    return make_index(rows, about["classes"], about["root"], about["source"], about["palette"], file=path)


def _located(path: str | Path) -> tuple[Folder, str]:
    """Return the folder and the name of an index table's file."""
    folder, name = split_path(path)
    if not name:
        raise VwlError(f"'{path}' names no file; give an index table such as index.parquet")
    return folder, name
