"""Where results live: folders on any pyarrow file system, score maps in Parquet, masks in indexed PNG, manifests in JSON.

Every write goes to a temporary name and is renamed, so a reader sees a whole file or none. Paths may be local or URIs
(``s3://bucket/run``); names that come from data files cannot leave their folder.
"""

import io
import json
import re
import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from PIL import Image, UnidentifiedImageError
from pyarrow import fs

from vwl.errors import Unreachable, VwlError
from vwl.remote import Answer, passes, patiently

MAP_STRIDE = 4
"""Score maps are kept at this stride of the photograph, pixels."""
IGNORE = 255
"""Mask value of pixels that count nowhere."""


class Folder:
    """A folder on a pyarrow file system; picklable, so that it can be sent to workers.

    Where a server or the network is away, every method waits for it (`vwl/remote.py`) and then raises Unreachable.
    """

    def __init__(self, uri: str | Path) -> None:
        """Open `uri`, a local path (made absolute) or a URI; nothing is created yet.

        pyarrow reads options of S3 behind a question mark: ``s3://bucket/run?endpoint_override=minio.example:9000&scheme=http``.
        """
        text = str(uri)
        if "://" in text:
            self.uri = text.rstrip("/")
        else:
            self.uri = str(Path(text).expanduser().absolute())
        self._connect()

    def _connect(self) -> None:
        try:
            found = patiently(lambda: fs.FileSystem.from_uri(self.uri)) if "://" in self.uri else (fs.LocalFileSystem(), self.uri)
        except (pa.ArrowInvalid, OSError) as error:
            raise _refusal(f"cannot open {self.uri}", error) from None
        self.filesystem: fs.FileSystem = found[0]
        self.path: str = found[1]

    def __getstate__(self) -> dict[str, str]:
        return {"uri": self.uri}

    def __setstate__(self, state: dict[str, str]) -> None:
        self.uri = state["uri"]
        self._connect()

    def __truediv__(self, name: str) -> "Folder":
        if "://" not in self.uri:
            return Folder(Path(self.uri, _inside(name)))
        below = Folder.__new__(Folder)  # shares the connection
        below.uri, below.filesystem, below.path = self.place(name), self.filesystem, self._full(name)
        return below

    def __str__(self) -> str:
        return self.uri

    @property
    def is_local(self) -> bool:
        """Whether it lies on a disk of this machine, or is mounted like one."""
        return isinstance(self.filesystem, fs.LocalFileSystem)

    def place(self, name: str) -> str:
        """Return the path or URI of a file in it."""
        base, question, query = self.uri.partition("?") if "://" in self.uri else (self.uri, "", "")
        return f"{base}/{quote(_inside(name)) if '://' in self.uri else _inside(name)}{question}{query}"

    def _full(self, name: str) -> str:
        return f"{self.path.rstrip('/')}/{_inside(name)}"

    def exists(self, name: str = "") -> bool:
        """Return whether the folder, or the file `name` in it, is there."""
        return self._info(name).type != fs.FileType.NotFound

    def stamp(self, name: str) -> tuple[int, int]:
        """Return what changes with a file: its size (bytes), and when it was written (nanoseconds since 1970).

        Raises:
            VwlError: it is not there.
        """
        info = self._info(name)
        if info.type == fs.FileType.NotFound:
            raise VwlError(f"cannot read {self.place(name)}: No such file or directory")
        return int(info.size or 0), int(info.mtime_ns or 0)

    def _info(self, name: str) -> fs.FileInfo:
        path = self._full(name) if name else self.path
        return self._ask(f"look at {self.place(name) if name else self.uri}", lambda: self.filesystem.get_file_info(path))

    def names(self, suffix: str = "") -> list[str]:
        """Return the sorted names of the finished files directly in this folder that end in `suffix`; none if it is not there.

        Raises:
            VwlError: it cannot be listed (no permission, or a file).
        """
        selector = fs.FileSelector(self.path, allow_not_found=True)
        infos = self._ask(f"list {self.uri}", lambda: self.filesystem.get_file_info(selector))
        return sorted(i.base_name for i in infos if i.is_file and i.base_name.endswith(suffix) and not i.base_name.startswith(".part-"))

    def read(self, name: str) -> bytes:
        """Return a file's bytes.

        Raises:
            VwlError: it is not there or cannot be read.
        """

        def read() -> bytes:
            with self.filesystem.open_input_stream(path) as stream:
                return bytes(stream.read())

        path = self._full(name)
        return self._ask(f"read {self.place(name)}", read)

    def open(self, name: str) -> pa.NativeFile:
        """Return a file open for reading at any place.

        Raises:
            VwlError: it is not there or cannot be read.
        """
        path = self._full(name)
        return self._ask(f"read {self.place(name)}", lambda: self.filesystem.open_input_file(path))

    def write(self, name: str, data: bytes) -> None:
        """Write a file atomically, making its folder.

        Raises:
            VwlError: it cannot be written (no permission, disk full); what was there before is untouched.
        """
        target = self._full(name)
        self._ask(f"write {self.place(name)}", lambda: self._write(target, data), "; free space or choose another folder")

    def _write(self, target: str, data: bytes) -> None:
        parent, _, base = target.rpartition("/")
        temporary = f"{parent}/.part-{uuid.uuid4().hex}-{base}"
        try:
            if self.filesystem.type_name != "s3":  # a bucket has no folders; looking for them costs requests
                self.filesystem.create_dir(parent, recursive=True)
            with self.filesystem.open_output_stream(temporary) as stream:
                stream.write(data)
            self.filesystem.move(temporary, target)
        except BaseException as error:
            if not passes(error):  # a server that is away deletes nothing; `sweep` will
                with suppress(OSError):
                    self.filesystem.delete_file(temporary)
            raise

    def append(self, name: str, text: str) -> None:
        """Add text at the end of a log file (whole-file rewrite where the file system cannot append)."""
        if self.is_local:
            path = Path(self._full(name))
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with path.open("a") as stream:
                    stream.write(text)
            except OSError as error:
                raise _refusal(f"cannot write {path}", error, "; free space or choose another folder") from None
        else:
            before = self.read(name) if self.exists(name) else b""
            self.write(name, before + text.encode())

    def delete(self, name: str) -> None:
        """Delete a file if it is there."""

        def delete() -> None:
            with suppress(FileNotFoundError):
                self.filesystem.delete_file(path)

        path = self._full(name)
        if self.exists(name):
            self._ask(f"delete {self.place(name)}", delete)

    def sweep(self) -> None:
        """Delete the temporary files that a writer killed in the middle of `write` has left in this folder and below."""
        selector = fs.FileSelector(self.path, allow_not_found=True, recursive=True)
        for info in self._ask(f"list {self.uri}", lambda: self.filesystem.get_file_info(selector)):
            if info.is_file and info.base_name.startswith(".part-"):
                self.delete(info.path.removeprefix(f"{self.path.rstrip('/')}/"))

    def clear(self) -> None:
        """Delete everything in the folder.

        Raises:
            VwlError: it cannot be deleted (no permission, or a file).
        """
        self._ask(f"clear {self.uri}", lambda: self.filesystem.delete_dir_contents(self.path, missing_dir_ok=True))

    def read_json(self, name: str) -> Any:
        """Return a JSON file's value.

        Raises:
            VwlError: it is not there or no JSON.
        """
        try:
            return json.loads(self.read(name))
        except ValueError as error:
            raise VwlError(f"{self.place(name)} is not valid JSON: {error}") from None

    def write_json(self, name: str, value: Any) -> None:
        """Write a value as indented JSON, atomically."""
        self.write(name, (json.dumps(value, indent=2) + "\n").encode())

    def _ask(self, what: str, question: Callable[[], Answer], advice: str = "") -> Answer:
        """Ask the file system, with patience; its errors become one line: cannot do `what`, why, and `advice`."""
        try:
            return patiently(question)
        except OSError as error:
            raise _refusal(f"cannot {what}", error, advice) from None


def _refusal(what: str, error: Exception, advice: str = "") -> VwlError:
    if passes(error):
        return Unreachable(f"{what}: {_reason(error)}; asked again and again: is the storage up? The same command goes on")
    return VwlError(f"{what}: {_reason(error)}{advice}")


def _inside(name: str) -> str:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name:
        raise VwlError(f"the name '{name}' would leave its folder")
    return str(path)


def _reason(error: Exception) -> str:
    """Return the system's own words where pyarrow wraps them."""
    text = getattr(error, "strerror", None) or str(error)
    detail = re.search(r"\[errno \d+\] ([^.\n]+)", text)
    return detail.group(1) if detail else " ".join(text.split())


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


def map_size(height: int, width: int) -> tuple[int, int]:
    """Return the size of a score map of a photograph of `height` x `width` pixels."""
    return -(-height // MAP_STRIDE), -(-width // MAP_STRIDE)


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
            return patiently(ask)
        except (pa.ArrowInvalid, OSError) as error:
            if passes(error):
                raise _refusal(f"cannot read {self.folder.place(name)}", error) from None
            raise VwlError(
                f"{self.folder.place(name)} is no whole file of score maps ({' '.join(str(error).split())}); "
                "delete it and run its stage again"
            ) from None


def encode_mask(mask: np.ndarray, palette: Sequence[int]) -> bytes:
    """Return an indexed PNG of class ids (H, W) uint8; `palette` holds 768 colour values."""
    assert mask.dtype == np.uint8, "class ids are bytes"
    assert mask.ndim == 2
    image = Image.fromarray(mask)
    image.putpalette(list(palette))
    sink = io.BytesIO()
    image.save(sink, format="PNG", optimize=False)
    return sink.getvalue()


def decode_mask(data: bytes, source: str) -> np.ndarray:
    """Return the class ids (H, W) uint8 of an indexed or 8-bit grey PNG.

    Raises:
        VwlError: not an image, or one whose pixels are no ids (RGB, 16-bit, JPEG).
    """
    try:
        image = Image.open(io.BytesIO(data))
        if image.format == "JPEG":
            raise VwlError(f"mask {source} is a JPEG, which blurs class ids; masks are indexed or grey PNG")
        if image.mode not in {"L", "P", "1"}:
            raise VwlError(f"mask {source} has mode {image.mode}; masks hold one 8-bit class id a pixel (indexed or grey PNG)")
        return np.array(image, dtype=np.uint8)
    except UnidentifiedImageError:
        raise VwlError(f"mask {source} cannot be read: it is no image") from None
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        raise VwlError(f"mask {source} cannot be read: {error}") from None


def voc_palette() -> list[int]:
    """Return the VOC devkit's colours, 256 x RGB: bit-interleaved class ids, distinct for neighbouring ids."""
    colours = []
    for index in range(256):
        for channel in range(3):
            colours.append(sum(((index >> (3 * bit + channel)) & 1) << (7 - bit) for bit in range(3)))
    return colours


def missing(folder: Folder, image_ids: Iterable[str], suffix: str = ".png") -> list[str]:
    """Return the ids that have no file of their own in the folder."""
    there = set(folder.names(suffix))
    return [image_id for image_id in image_ids if f"{image_id}{suffix}" not in there]
