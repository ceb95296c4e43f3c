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

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache, partial
from itertools import chain, islice
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image

from vwl.data.class_names import BACKGROUND, check_object_names, class_ids
from vwl.data.columns import CORRECTED, SCHEMA, Columns
from vwl.data.index_columns import in_memory, table_in_memory, unchecked
from vwl.data.index_hash import fingerprint_of
from vwl.data.index_source import IndexSource
from vwl.data.mapped_index import is_mapped, mapped
from vwl.data.row_checks import SPLITS, metadata_problem
from vwl.data.rows import Row, Rows
from vwl.errors import VwlError
from vwl.storage.cache import read_cached
from vwl.storage.folder import Folder, split_path
from vwl.storage.images import load_upright
from vwl.storage.masks import decode_mask, voc_palette

__all__ = ["Index", "Row", "Rows", "decode_image", "make_index", "read_index", "to_rgb", "write_index"]
_TRAINING = ("train", "aug")
_SPLIT = pa.field("split", pa.string())
_STREAMED = 64 * 2**20
"""Bytes of a local file from which on it is not read at once."""
_ROW_GROUP = 2**20
"""Rows that are encoded at a time."""


@dataclass(frozen=True)
class Index:
    """A data set: its images, classes and folder.

    Attributes:
        rows: the images, in a fixed order; any sequence is accepted.
        classes: class names by id; `classes[0]` is the background.
        root: folder that the paths of the rows are relative to.
        palette: 768 values, RGB of each of the 256 class ids.
        source: description of the data set for users.
    """

    rows: Rows
    classes: tuple[str, ...]
    root: Folder
    palette: tuple[int, ...]
    source: str
    _known: dict[str, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Turn the rows into columns."""
        rows = self.rows.compact() if isinstance(self.rows, Rows) else Rows(unchecked(self.rows))
        object.__setattr__(self, "rows", rows)

    @property
    def num_objects(self) -> int:
        """Number of object classes C, without the background."""
        return len(self.classes) - 1

    def without_rows(self) -> "Index":
        """Return the data set without its images, for processes whose rows come with their work."""
        return replace(self, rows=self.rows[:0])

    def split(self, name: str) -> Rows:
        """Return the rows of a split, or of `train_aug` (`train` and `aug` together), or of `all`.

        Raises:
            VwlError: the split has no images.
        """
        if name == "all" and len(self.rows):
            return self.rows
        rows = self.rows.where(self.rows.in_splits(*(_TRAINING if name == "train_aug" else (name,))))
        if not len(rows):
            raise VwlError(f"the index has no images in split '{name}' (it has {', '.join(sorted(self.rows.split_counts()))})")
        return rows

    def row(self, image_id: str) -> Row | None:
        """Return the row of an image, None if there is none of this id."""
        position = int(self.rows.columns.find([image_id])[0])
        return None if position < 0 else self.rows[position]

    def class_ids(self, names: Sequence[str]) -> list[int]:
        """Return the class ids of names.

        Raises:
            VwlError: a name is unknown; the message suggests the most similar one.
        """
        return class_ids(self.classes, names)

    def fingerprint(self) -> str:
        """Return 16 hex digits of a hash of rows and classes, and those of corrected masks, if any; the root folder does not count.

        It is computed at the first call, and for a mapped index only once on a node.
        """
        if "fingerprint" not in self._known:
            self._known["fingerprint"] = fingerprint_of(self.rows.columns, self.classes)
        return self._known["fingerprint"]

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
) -> Index:
    """Check rows and return their index.

    Args:
        rows: the images.
        classes: class names by id, background first.
        root: folder that the paths of the rows are relative to.
        source: description of the data set for users; error messages start with it.
        palette: 768 values; VOC's colours if not given.

    Raises:
        VwlError: there are no rows, a class name is not allowed, an id occurs twice, or a row has an unknown split, labels outside 1..C, an
            id that is not a plain file name or a path that leads out of the root; the message names the image.
    """
    remaining, classes = iter(rows), tuple(classes)
    first = list(islice(remaining, 1))
    _check_data_set(source, len(first), classes)
    columns = in_memory(source, len(classes) - 1, chain(first, remaining))
    return Index(Rows(columns), classes, root if isinstance(root, Folder) else Folder(root), tuple(palette or voc_palette()), source)


def _check_data_set(name: str, num_rows: int, classes: tuple[str, ...]) -> None:
    if not num_rows:
        raise VwlError(f"{name}: the data set has no images")
    if classes[:1] != (BACKGROUND,):
        raise VwlError(f"{name}: the first class is '{next(iter(classes), '')}'; it must be '{BACKGROUND}'")
    check_object_names(classes[1:], name)


def write_index(index: Index, path: str | Path) -> None:
    """Write an index as one Parquet file, atomically: readers see the whole file or none.

    Raises:
        VwlError: `path` names no file, or a folder or device, or it cannot be written.
    """
    rows = index.rows
    names = [*SCHEMA.names[:5], *(["negative"] if rows.negative.any() else [])]  # tables without one keep the bytes that they always had
    names += [CORRECTED.name] if rows.is_corrected.any() else []
    about = {"classes": index.classes, "palette": index.palette, "root": index.root.uri, "source": index.source, "format": 1}
    schema = pa.schema([_SPLIT if name == _SPLIT.name else SCHEMA.append(CORRECTED).field(name) for name in names])
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, schema.with_metadata({b"vwl": json.dumps(about).encode()}), compression="zstd") as writer:
        for first in range(0, len(rows), _ROW_GROUP):
            some = rows[first : first + _ROW_GROUP]
            table = pa.Table.from_batches(rows.columns.pieces(some.positions, names)).combine_chunks()
            split = pa.array(SPLITS).take(table["split"].combine_chunks())
            writer.write_table(table.set_column(4, _SPLIT, split).cast(writer.schema))
    folder, name = _located(path)
    folder.write(name, sink.getvalue())


def read_index(path: str | Path) -> Index:
    """Read an index table; the columns of a large one are mapped, see `vwl.data.mapped_index`.

    Raises:
        VwlError: the file is missing, is not an index table, announces more than it can hold, or holds values that no data set has (see
            `make_index`); the message names the file and the row.
    """
    folder, name = _located(path)
    if not folder.exists(name):
        raise VwlError(f"there is no index table at {path}; make one with: vwl data prepare auto|voc|coco|folder|scenes --out {path}")
    size_and_mtime = folder.size_and_mtime(name)
    large = folder.is_local and size_and_mtime[0] > _STREAMED
    with folder.open(name) if large else pa.BufferReader(folder.read(name)) as file:
        try:
            source = IndexSource(file)
            problem = metadata_problem(source.about)
            if problem:
                raise VwlError(f"{path} is not an index table made by vwl data prepare: {problem}; make it again")
            classes = tuple(source.about["classes"])
            _check_data_set(str(path), source.num_rows, classes)
            found = mapped(file, source, str(path), len(classes) - 1) if is_mapped(source) else None
            columns, fingerprint = found or (table_in_memory(source, str(path), len(classes) - 1), None)
        except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError) as error:
            raise VwlError(f"{path} is not an index table made by vwl data prepare ({error})") from None
    columns.reopen = partial(_opened_again, folder.uri_of(name), size_and_mtime)
    about = source.about
    index = Index(Rows(columns), classes, Folder(about["root"]), tuple(about["palette"]), about["source"])
    if fingerprint is not None:
        index._known["fingerprint"] = fingerprint
    return index


def _opened_again(path: str, size_and_mtime: tuple[int, int]) -> Columns:
    folder, name = _located(path)
    if not folder.exists(name) or folder.size_and_mtime(name) != size_and_mtime:
        raise VwlError(f"{path} was changed while a command worked with it; run the same command again")
    return _columns(path, size_and_mtime)


@lru_cache(maxsize=1)  # rows of one index come with it several times
def _columns(path: str, size_and_mtime: tuple[int, int]) -> Columns:
    return read_index(path).rows.columns


def _located(path: str | Path) -> tuple[Folder, str]:
    """Return the folder and the name of an index table's file."""
    folder, name = split_path(path)
    if not name:
        raise VwlError(f"'{path}' names no file; give an index table such as index.parquet")
    return folder, name
