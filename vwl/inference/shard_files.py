"""Which shards of an inference stage are really finished: those whose files are there and have the content that was written.

A shard's marker, `done/00012.json`, states size and digest of its files. Sizes are compared always, content only of files that are newer
than their marker. Markers of earlier versions state no files; for these it is enough that the expected ones are there.

A stage of masks whose shards are larger than `SHARD_SIZE` has hundreds of thousands of files or more. They are never listed, and the record
of the finished stage holds its markers only, which name them: no process holds something for each mask.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

from vwl.data.rows import image_ids
from vwl.errors import Damaged
from vwl.inference.runner import SHARD_SIZE, Shard
from vwl.storage.checked import digest, parse_checked
from vwl.storage.folder import Folder
from vwl.storage.record import StoredFile, content_fault, listing

_THREADS = 8
"""Markers that are read at the same time."""


@dataclass
class ShardFiles:
    """What the shards of a stage have left.

    Attributes:
        files: of the finished shards, markers included, by name; of many masks the markers only.
        failed: reason by id of each image that could not be processed.
        faults: what is wrong, by name, of the files for which a shard has to run again.
    """

    files: dict[str, StoredFile] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    faults: dict[str, str] = field(default_factory=dict)


def expected_files(shard: Shard, maps: bool, failed: Iterable[str]) -> list[str]:
    """Return the names of the files of a finished shard of score maps, or of masks, of which some images failed."""
    lost = set(failed)
    made = [image_id for image_id in image_ids(shard.rows) if image_id not in lost]
    data = ([shard.part] if made else []) if maps else [f"{image_id}.png" for image_id in made]
    return [f"done/{shard.marker}", *data]


def check_shards(all_shards: Sequence[Shard], out: Folder, maps: bool) -> ShardFiles:
    """Return what the shards that have a marker have left.

    Args:
        all_shards: of the stage.
        out: the stage's folder.
        maps: whether it leaves score maps; else masks.
    """
    many = not maps and any(len(shard.rows) > SHARD_SIZE for shard in all_shards)
    there = listing(out, {"done"} if many else {"", "done"})
    marked = [shard for shard in all_shards if f"done/{shard.marker}" in there]
    found = ShardFiles()
    with ThreadPoolExecutor(_THREADS) as pool:
        for part in pool.map(lambda shard: _check(shard, out, maps, there, many), marked):
            found.failed |= part.failed
            found.faults |= part.faults
            found.files |= part.files
    return found


def _check(shard: Shard, out: Folder, maps: bool, there: Mapping[str, tuple[int, int]], many: bool) -> ShardFiles:
    """Return what a shard with a marker has left; `there` has size and time of all files, or, where they are `many`, of the markers."""
    marker = f"done/{shard.marker}"
    if many:
        there = {marker: there[marker]} | out.sizes_and_mtimes_of(expected_files(shard, maps, ())[1:])
    data = out.read(marker)
    try:
        stored = parse_checked(data, marker)
        failed = dict(stored["failed"])
        if stored.get("ids", shard.images_digest) != shard.images_digest:
            return ShardFiles(faults={marker: "is of other images"})
        if "files" in stored:
            files = {name: StoredFile(int(size), str(content)) for name, (size, content) in stored["files"].items()}
        else:
            files = {name: StoredFile(there.get(name, (0, 0))[0], "") for name in expected_files(shard, maps, failed)[1:]}
    except (Damaged, KeyError, TypeError, ValueError, AttributeError):
        return ShardFiles(faults={marker: "is damaged"})
    faults = {name: fault for name, file in files.items() if (fault := _fault(out, name, file, there, there[marker][1]))}
    if faults:
        return ShardFiles(faults=faults)
    kept = {} if many else files
    intact = {name: StoredFile(file.size, file.digest, there[name][1]) for name, file in kept.items()}
    return ShardFiles(intact | {marker: StoredFile(len(data), digest(data), there[marker][1])}, failed)


def _fault(out: Folder, name: str, file: StoredFile, there: Mapping[str, tuple[int, int]], marked_ns: int) -> str:
    if name not in there:
        return "is missing"
    size, mtime_ns = there[name]
    if size != file.size:
        return f"is damaged: it has {size} bytes instead of {file.size}"
    if not size:
        return "is empty"
    return content_fault(out, name, file) if file.digest and mtime_ns > marked_ns else ""


def shards_of(all_shards: Sequence[Shard], maps: bool, names: Iterable[str]) -> list[Shard]:
    """Return the shards that some files belong to."""
    wanted = set(names)
    if not wanted:
        return []
    return [shard for shard in all_shards if wanted.intersection(expected_files(shard, maps, ()))]


def forget(all_shards: Sequence[Shard], out: Folder, maps: bool, faulty: Iterable[str]) -> None:
    """Delete faulty files and the markers of their shards, so that these shards run again."""
    names = set(faulty)
    for shard in shards_of(all_shards, maps, names):
        own = names.intersection(expected_files(shard, maps, ()))
        for name in (f"done/{shard.marker}", *sorted(own)):
            out.delete(name)
