"""Score maps on disk: Parquet files (shards) with one row, in a row group of its own, per image."""

import io
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vwl.constants import map_size
from vwl.errors import Damaged, VwlError
from vwl.storage.folder import Folder, storage_error
from vwl.storage.map_catalogue import MapCatalogue, part_name, read_catalogue
from vwl.storage.record import Record, content_fault, read_record, remake
from vwl.storage.retry import is_transient, retry

_KEPT = 64
"""Files whose footers and image ids a reader keeps."""


@dataclass(frozen=True)
class ScoreMap:
    """Soft class scores of one image.

    Attributes:
        image_id: id of the image.
        classes: class id of each map (K,), ascending; 0, if present, is the background.
        height, width: the image's size, pixels.
        values: (K, ceil(height / 4), ceil(width / 4)) float16.
    """

    image_id: str
    classes: tuple[int, ...]
    height: int
    width: int
    values: np.ndarray


_MAP_SCHEMA = pa.schema(
    [
        ("image_id", pa.string()),
        ("classes", pa.list_(pa.int32())),
        ("height", pa.int32()),
        ("width", pa.int32()),
        ("values", pa.list_(pa.float16())),
    ]
)


def write_maps(folder: Folder, name: str, maps: Sequence[ScoreMap]) -> None:
    """Write a shard atomically.

    Raises:
        VwlError: the file cannot be written.
        ValueError: a map does not have the size that its image asks for.
    """
    folder.write(name, encode_maps(maps))


def encode_maps(maps: Sequence[ScoreMap]) -> bytes:
    """Return the content of a shard; equal maps give equal bytes.

    Raises:
        ValueError: a map does not have the size that its image asks for.
    """
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, _MAP_SCHEMA, compression="zstd") as writer:
        for m in maps:
            if m.values.shape != (len(m.classes), *map_size(m.height, m.width)):
                raise ValueError(f"map of {m.image_id} has shape {m.values.shape} for an image of {m.height} x {m.width} pixels")
            columns = [[m.image_id], [m.classes], [m.height], [m.width]]
            arrays = [pa.array(c, f.type) for c, f in zip(columns, _MAP_SCHEMA, strict=False)]
            flat = pa.array(np.ascontiguousarray(m.values, np.float16).ravel())
            arrays.append(pa.ListArray.from_arrays(pa.array([0, len(flat)], pa.int32()), flat))
            writer.write_table(pa.Table.from_arrays(arrays, schema=_MAP_SCHEMA))
    return bytes(sink.getvalue())


class MapReader:
    """Reads score maps by image id from the shards of a folder; picklable, opens files at first use.

    Only the footers and the rows of the requested images are read, so that random access to a large data set is cheap. Where a map lies is
    known from the stage's catalogue (`vwl.storage.map_catalogue`), or found in a scan of the files if there is none.
    """

    def __init__(self, folder: Folder, class_scales: Mapping[int, float] | None = None) -> None:
        """Open a folder of maps; maps of a class in `class_scales` are multiplied by its value when read, and are then float32."""
        self.folder = folder
        self.class_scales = dict(class_scales or {})
        self._forget()

    def _forget(self) -> None:
        self._locations: dict[str, tuple[str, int]] | None = None
        self._damaged: dict[str, str] = {}
        self._opened = False
        self._record: Record | None = None
        self._catalogue: MapCatalogue | None = None
        self._checked: set[str] = set()
        self._rows_of: dict[str, dict[str, int]] = {}
        self._footers: dict[str, pq.FileMetaData] = {}
        self._open: tuple[str, pq.ParquetFile] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "class_scales": self.class_scales}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def _open_folder(self) -> None:
        """Read the record and the catalogue, once; a catalogue that does not know all files is not used."""
        if self._opened:
            return
        self._record = read_record(self.folder)
        found = read_catalogue(self.folder, self._record.manifest.get("fingerprint")) if self._record is not None else None
        if found is not None and {part_name(shard) for shard in range(found.num_shards)}.issuperset(self.folder.names(".parquet")):
            self._catalogue = found
        self._opened = True

    @property
    def locations(self) -> dict[str, tuple[str, int]]:
        """File name and row group of each image, by image id; without the images of damaged files. Opens every file."""
        if self._locations is None:
            self._open_folder()
            locations = {}
            for name in self.folder.names(".parquet"):
                try:
                    locations.update({image_id: (name, row) for image_id, row in self._rows_in(name).items()})
                except Damaged as error:
                    self._damaged[name] = str(error)
            self._locations = locations
        return self._locations

    def __contains__(self, image_id: str) -> bool:
        try:
            return self._find(image_id) is not None
        except Damaged:
            return False

    def __len__(self) -> int:
        return len(self.locations)

    def first_id(self) -> str | None:
        """Return the id of the first image that can be read; none if there is none."""
        for name in self.folder.names(".parquet"):
            with suppress(Damaged):
                for image_id in self._rows_in(name):
                    return image_id
        return None

    def _find(self, image_id: str) -> tuple[str, int] | None:
        """Return file name and row group of an image's maps; none if it has none.

        Raises:
            Damaged: the file that should hold them is damaged.
        """
        self._open_folder()
        if self._locations is not None or self._catalogue is None:
            return self.locations.get(image_id)
        for shard in self._catalogue.shards_of(image_id):
            name = part_name(shard)
            if name not in self._rows_of and not self.folder.exists(name):
                continue
            row = self._rows_in(name).get(image_id)
            if row is not None:
                return name, row
        return None

    def _rows_in(self, name: str) -> dict[str, int]:
        """Return the row group of each image in a file, by image id.

        Raises:
            Damaged: the file is damaged.
        """
        if name not in self._rows_of:
            ids = self._read(name, lambda shard: shard.read(columns=["image_id"]))["image_id"].to_pylist()
            _bound(self._rows_of)
            self._rows_of[name] = {image_id: row for row, image_id in enumerate(ids)}
        return self._rows_of[name]

    def read(self, image_id: str) -> ScoreMap:
        """Return one image's maps.

        Raises:
            Damaged: the image's file is damaged.
            VwlError: the image has no maps.
        """
        found = self._find(image_id)
        if found is None:
            for reason in self._damaged.values():  # which images a damaged file holds is unknown
                raise Damaged(reason)
            raise VwlError(f"{self.folder} has no score map of image {image_id}; run its stage first")
        name, row_group = found
        self._check(name)
        row = self._read(name, lambda shard: shard.read_row_group(row_group, use_threads=False))
        try:
            classes = tuple(row["classes"][0].as_py())
            height, width = row["height"][0].as_py(), row["width"][0].as_py()
            values = row["values"].chunk(0).values.to_numpy(zero_copy_only=False).reshape(len(classes), *map_size(height, width))
        except (ValueError, TypeError) as error:
            raise self._damage(name, error) from None
        if self.class_scales:
            scale = np.array([self.class_scales.get(class_id, 1.0) for class_id in classes], np.float32)
            values = values.astype(np.float32) * scale[:, None, None]
        return ScoreMap(image_id, classes, height, width, values)

    def _check(self, name: str) -> None:
        """Compare a file with its digest before its first map is read; stages read maps in the order of the files."""
        file = self._record.files.get(name) if self._record is not None and name not in self._checked else None
        if file is not None and file.digest and (fault := content_fault(self.folder, name, file)):
            raise Damaged(f"{self.folder.uri_of(name)} {fault}; {remake(self.folder)}")
        self._checked.add(name)

    def _damage(self, name: str, error: Exception) -> Damaged:
        return Damaged(f"{self.folder.uri_of(name)} is damaged ({' '.join(str(error).split())}); {remake(self.folder)}")

    def _read(self, name: str, part: Callable[[pq.ParquetFile], pa.Table]) -> pa.Table:
        def read() -> pa.Table:
            try:
                if self._open is None or self._open[0] != name:
                    remote = not self.folder.is_local  # one request is cheaper than one per column
                    shard = pq.ParquetFile(self.folder.open(name), metadata=self._footers.get(name), pre_buffer=remote)
                    if name not in self._footers:
                        _bound(self._footers)
                        self._footers[name] = shard.metadata
                    self._open = (name, shard)
                return part(self._open[1])
            except OSError:
                self._open = None
                raise

        try:
            return retry(read)
        except (pa.ArrowException, OSError, KeyError) as error:
            if is_transient(error):
                raise storage_error(f"cannot read {self.folder.uri_of(name)}", error) from None
            raise self._damage(name, error) from None


def _bound(kept: dict[str, Any]) -> None:
    """Make room for one more file: drop the one that was added first."""
    if len(kept) >= _KEPT:
        del kept[next(iter(kept))]
