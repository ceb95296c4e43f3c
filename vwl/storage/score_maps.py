"""Score maps on disk: Parquet shards, a row and a row group an image."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vwl.constants import map_size
from vwl.errors import VwlError
from vwl.storage.folder import Folder, storage_error
from vwl.storage.retry import is_transient, retry


@dataclass(frozen=True)
class ScoreMap:
    """Soft class scores of one photograph.

    Attributes:
        image_id: the photograph.
        classes: class id of each map (K,); ascending; 0, if present, is the background.
        height, width: the photograph's size, pixels.
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
    """Write one Parquet shard, one row and one row group per image, atomically; same maps, same bytes."""
    sink = io.BytesIO()
    with pq.ParquetWriter(sink, _MAP_SCHEMA, compression="zstd") as writer:
        for m in maps:
            if m.values.shape != (len(m.classes), *map_size(m.height, m.width)):
                raise ValueError(f"map of {m.image_id} has shape {m.values.shape} for {m.height} x {m.width} pixels")
            columns = [[m.image_id], [m.classes], [m.height], [m.width]]
            arrays = [pa.array(c, f.type) for c, f in zip(columns, _MAP_SCHEMA, strict=False)]
            flat = pa.array(np.ascontiguousarray(m.values, np.float16).ravel())
            arrays.append(pa.ListArray.from_arrays(pa.array([0, len(flat)], pa.int32()), flat))
            writer.write_table(pa.Table.from_arrays(arrays, schema=_MAP_SCHEMA))
    folder.write(name, sink.getvalue())


class MapReader:
    """Random access by image id to the Parquet shards of a folder; picklable, opens files when first used.

    Only footers and the asked rows are read, so a reader of a whole data set's maps stays small and shuffled access is cheap.
    """

    def __init__(self, folder: Folder, factors: Mapping[int, float] | None = None) -> None:
        """Open a folder of maps; those of a class in `factors` are multiplied by its factor when they are read (then float32)."""
        self.folder = folder
        self.factors = dict(factors or {})
        self._places: dict[str, tuple[str, int]] | None = None
        self._footers: dict[str, pq.FileMetaData] = {}
        self._open: tuple[str, pq.ParquetFile] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_footers": {}, "_open": None}

    @property
    def places(self) -> dict[str, tuple[str, int]]:
        """Shard and row group of each image id."""
        if self._places is None:
            places = {}
            for name in self.folder.names(".parquet"):
                ids = self._read(name, lambda shard: shard.read(columns=["image_id"]))["image_id"].to_pylist()
                places.update({image_id: (name, row) for row, image_id in enumerate(ids)})
            self._places = places
        return self._places

    def __contains__(self, image_id: str) -> bool:
        return image_id in self.places

    def __len__(self) -> int:
        return len(self.places)

    def read(self, image_id: str) -> ScoreMap:
        """Return one image's maps.

        Raises:
            VwlError: there are none, or their file is damaged.
        """
        if image_id not in self.places:
            raise VwlError(f"{self.folder} holds no map of image {image_id}; run the stage that makes it first")
        name, row_group = self.places[image_id]
        row = self._read(name, lambda shard: shard.read_row_group(row_group, use_threads=False))
        classes = tuple(row["classes"][0].as_py())
        height, width = row["height"][0].as_py(), row["width"][0].as_py()
        values = row["values"].chunk(0).values.to_numpy(zero_copy_only=False).reshape(len(classes), *map_size(height, width))
        if self.factors:
            scale = np.array([self.factors.get(class_id, 1.0) for class_id in classes], np.float32)
            values = values.astype(np.float32) * scale[:, None, None]
        return ScoreMap(image_id, classes, height, width, values)

    def _read(self, name: str, part: Callable[[pq.ParquetFile], pa.Table]) -> pa.Table:
        def ask() -> pa.Table:
            try:
                if self._open is None or self._open[0] != name:
                    remote = not self.folder.is_local  # there one request is cheaper than one a column
                    shard = pq.ParquetFile(self.folder.open(name), metadata=self._footers.get(name), pre_buffer=remote)
                    self._footers[name] = shard.metadata
                    self._open = (name, shard)
                return part(self._open[1])
            except OSError:
                self._open = None
                raise

        try:
            return retry(ask)
        except (pa.ArrowInvalid, OSError) as error:
            if is_transient(error):
                raise storage_error(f"cannot read {self.folder.uri_of(name)}", error) from None
            raise VwlError(
                f"{self.folder.uri_of(name)} is no whole file of score maps ({' '.join(str(error).split())}); "
                "delete it and run its stage again"
            ) from None
