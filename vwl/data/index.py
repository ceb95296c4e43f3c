"""The index table: one Parquet file that describes any data set; all later stages read only this.

Columns: `image_id` string, `image` string, `labels` list<int32> (object ids 1..C, ascending), `mask` string or null, `split`
string (`train`, `aug`, `val`, `test`). Schema metadata: class names (background first), palette, root folder, source. Paths are
relative to the root and cannot leave it.
"""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, ImageFile, UnidentifiedImageError

from vwl.errors import VwlError, did_you_mean
from vwl.storage.cache import read_cached
from vwl.storage.folder import Folder, split_path
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


@dataclass(frozen=True)
class Row:
    """One image: id, path below the root, object ids, mask path or None, split."""

    image_id: str
    image: str
    labels: tuple[int, ...]
    mask: str | None
    split: str


@dataclass(frozen=True)
class Index:
    """A data set.

    Attributes:
        rows: the images, in a fixed order.
        classes: names, `classes[0]` is the background.
        root: folder below which images and masks lie.
        palette: 768 colour values.
        source: what it was made from, for people.
    """

    rows: tuple[Row, ...]
    classes: tuple[str, ...]
    root: Folder
    palette: tuple[int, ...]
    source: str

    @property
    def num_objects(self) -> int:
        """Number of object classes C (without background)."""
        return len(self.classes) - 1

    def split(self, name: str) -> list[Row]:
        """Return a split's rows; `train_aug` is `train` and `aug`, `all` is every row.

        Raises:
            VwlError: no row is in it.
        """
        wanted = {"train_aug": {"train", "aug"}, "all": {row.split for row in self.rows}}.get(name, {name})
        rows = [row for row in self.rows if row.split in wanted]
        if not rows:
            raise VwlError(f"the index has no images in split '{name}' (it has {', '.join(sorted({r.split for r in self.rows}))})")
        return rows

    def class_ids(self, names: Sequence[str]) -> list[int]:
        """Return the ids of class names.

        Raises:
            VwlError: an unknown name, with the nearest known one.
        """
        for name in names:
            if name not in self.classes:
                raise VwlError(f"unknown class '{name}'{did_you_mean(name, self.classes)}")
        return [self.classes.index(name) for name in names]

    def fingerprint(self) -> str:
        """Return 16 hex digits that identify rows and classes, wherever the images lie."""
        parts = [self.classes, *((r.image_id, r.image, r.labels, r.mask, r.split) for r in self.rows)]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]

    def read_image(self, row: Row) -> Image.Image:
        """Return an image as 8-bit RGB (grey, palette and 16-bit files are converted).

        Raises:
            VwlError: it is missing, truncated or no image.
        """
        return decode_image(read_cached(self.root, row.image), row.image)

    def read_mask(self, row: Row) -> np.ndarray:
        """Return ground truth (H, W) uint8: class ids, 255 ignored.

        Raises:
            VwlError: there is none, or it cannot be read.
        """
        if row.mask is None:
            raise VwlError(f"image {row.image_id} has no mask in the index")
        return decode_mask(read_cached(self.root, row.mask), row.mask)


def decode_image(data: bytes, source: str) -> Image.Image:
    """Return an encoded image as 8-bit RGB; 16-bit grey is scaled to 8 bits, transparency is dropped.

    Raises:
        VwlError: truncated, or no image.
    """
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        image: Image.Image = Image.open(io.BytesIO(data))
        image.load()
    except UnidentifiedImageError:
        raise VwlError(f"image {source} cannot be read: it is not an image") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise VwlError(f"image {source} cannot be read: {str(error) or 'truncated file'}") from None
    if image.mode.startswith("I") or image.mode == "F":
        values = np.asarray(image, dtype=np.float32)
        top = 65535.0 if image.mode != "F" else max(float(values.max()), 1.0)
        image = Image.fromarray((values / top * 255).clip(0, 255).astype(np.uint8))
    return image.convert("RGB")


def make_index(
    rows: Iterable[Row], classes: Sequence[str], root: str | Path | Folder, source: str, palette: Sequence[int] | None = None
) -> Index:
    """Check rows and build an index.

    Raises:
        VwlError: no rows, an id listed twice, a label outside 1..C, or a path that leaves the root; each message names the image.
    """
    rows = tuple(rows)
    if not rows:
        raise VwlError(f"{source}: the data set has no images")
    twice = [image_id for image_id, count in Counter(row.image_id for row in rows).items() if count > 1]
    if twice:
        raise VwlError(f"{source}: image id '{twice[0]}' is listed twice" + (f" (and {len(twice) - 1} more)" if len(twice) > 1 else ""))
    for row in rows:
        if "/" in row.image_id or row.image_id.startswith("."):
            raise VwlError(f"{source}: image id '{row.image_id}' is not a plain file name")
        for path in filter(None, (row.image, row.mask)):
            if Path(path).is_absolute() or ".." in Path(path).parts:
                raise VwlError(f"{source}: the path '{path}' of image {row.image_id} leaves the root folder")
        wrong = [label for label in row.labels if not 1 <= label < len(classes)]
        if wrong:
            raise VwlError(f"{source}: image {row.image_id} has label {wrong[0]}, but the classes are 1 to {len(classes) - 1}")
    return Index(rows, tuple(classes), root if isinstance(root, Folder) else Folder(root), tuple(palette or voc_palette()), source)


def write_index(index: Index, path: str | Path) -> None:
    """Write an index as one Parquet file, atomically."""
    columns = list(zip(*((r.image_id, r.image, r.labels, r.mask, r.split) for r in index.rows), strict=True))
    arrays = [pa.array(list(column), field.type) for column, field in zip(columns, _SCHEMA, strict=True)]
    about = {"classes": index.classes, "palette": index.palette, "root": index.root.uri, "source": index.source, "format": 1}
    schema = _SCHEMA.with_metadata({b"vwl": json.dumps(about).encode()})
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_arrays(arrays, schema=schema), sink, compression="zstd")
    folder, name = split_path(path)
    folder.write(name, sink.getvalue())


def read_index(path: str | Path) -> Index:
    """Read an index table.

    Raises:
        VwlError: not there, or no index of this program.
    """
    folder, name = split_path(path)
    if not folder.exists(name):
        raise VwlError(f"{path} does not exist; make an index table with: vwl data prepare voc|coco|folder|scenes --out {path}")
    try:
        table = pq.read_table(pa.BufferReader(folder.read(name)))
        about = json.loads(table.schema.metadata[b"vwl"])
        classes, root, source, palette = (about[key] for key in ("classes", "root", "source", "palette"))
        columns = [table[field.name].to_pylist() for field in _SCHEMA]
    except (pa.ArrowInvalid, KeyError, TypeError, ValueError) as error:
        raise VwlError(f"{path} is not an index table made by vwl data prepare ({error})") from None
    rows = (Row(i, image, tuple(labels), mask, split) for i, image, labels, mask, split in zip(*columns, strict=True))
    return make_index(rows, classes, root, source, palette)
