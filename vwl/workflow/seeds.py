"""Imports score maps of another method as the result of a run's CAM stage, and exports a run's maps for other methods' code.

Imported maps are written in the same shards with the same markers as computed ones, one file at a time, so that the memory does not grow
with the data set, an interrupted import is resumed, and every later stage works on them.
"""

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from vwl.config.versions import versions
from vwl.data.index import Index, Row
from vwl.engine.base import OnProgress, Progress
from vwl.errors import Unreachable, VwlError
from vwl.inference.runner import SHARD_SIZE, process, unfinished
from vwl.inference.seeds import NO_FILE, SeedBackground, SeedStage, probe
from vwl.inference.shard_files import check_shards, forget
from vwl.maps.cam import upsample
from vwl.storage.folder import Folder
from vwl.storage.irn_files import encode_irn
from vwl.storage.record import Record, write_record
from vwl.storage.safe_pickle import UnsafePickle
from vwl.storage.score_maps import MapReader
from vwl.storage.seed_files import image_files
from vwl.workflow.imported import STAGE, ImportedMaps, imported_maps
from vwl.workflow.manifest import Manifest
from vwl.workflow.pipeline import result_files
from vwl.workflow.run_folder import Run, local_time
from vwl.workflow.scoring import choose_and_score
from vwl.workflow.stage_shards import catalogue_maps, sizes_in_manifest
from vwl.workflow.stages import STAGES

Files = dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class ImportSummary:
    """What an import did.

    Attributes:
        format, background: of the maps.
        imported: number of images that have maps now.
        missing: images of the stage without a file; later stages leave them out.
        failed: reason by image id of each file that could not be imported.
        surplus: files that belong to no image of the stage.
        left_out: number of maps whose class is not a label of their image, of the files read by this call.
        example: one of these.
    """

    format: str
    background: str
    imported: int
    missing: list[str]
    failed: dict[str, str]
    surplus: list[str]
    left_out: int = 0
    example: str = ""


@dataclass(frozen=True)
class Inspection:
    """What a folder of maps holds for a data set.

    Attributes:
        record: its format and background, and a hash of its files.
        background: that of the record.
        files: names by image id.
        surplus: files that belong to no image of the stage.
    """

    record: ImportedMaps
    background: SeedBackground
    files: Files
    surplus: list[str]


def inspect_seeds(index: Index, index_path: str, folder: Folder, seed_format: str | None, background: SeedBackground | None) -> Inspection:
    """Look at the maps in a folder: lists it and reads a few files; arguments and errors are those of `import_seeds`."""
    if not folder.exists():
        raise VwlError(f"there is no folder {folder}")
    rows = STAGES[STAGE].rows(index)
    entries = folder.sizes_and_mtimes()
    found, other = image_files(entries)
    wanted: Files = {row.image_id: found[row.image_id] for row in rows if row.image_id in found}
    surplus = sorted([*other, *(name for image_id in found.keys() - wanted.keys() for name in found[image_id])])
    if not wanted:
        example = f"; it has {surplus[0]}" if surplus else ""
        raise VwlError(f"{folder} has no map of the images of {index_path}, such as {rows[0].image_id}.npy{example}")
    with_files = sorted((row for row in rows if row.image_id in wanted), key=lambda row: row.negative)  # a format is told by the labels
    try:
        known, own = probe(index, folder, wanted, with_files, seed_format)
        chosen: SeedBackground = background or ("own" if own else "fixed")
        content = hashlib.sha256(json.dumps([(name, entries[name]) for names in wanted.values() for name in names]).encode()).hexdigest()
        record = ImportedMaps(known, chosen, content[:16], len(wanted), str(folder))
        _try_some(SeedStage(index, folder, wanted, known, chosen), with_files)
    except UnsafePickle as error:
        raise VwlError(f"{folder}/{error}") from None
    return Inspection(record, chosen, wanted, surplus)


def import_seeds(
    run: Run,
    folder: Folder,
    seed_format: str | None,
    background: SeedBackground | None,
    on_progress: OnProgress,
    on_message: Callable[[str], None],
    overwrite: bool = False,
) -> ImportSummary:
    """Make the maps in a folder the result of a run's CAM stage.

    Args:
        run: the run.
        folder: of the files.
        seed_format: a name of `FORMATS`; none to tell it from the first file.
        background: what becomes the background; none for the files' own if they have it, else `fixed`.
        on_progress: called after each shard.
        on_message: called with lines for the user.
        overwrite: replace maps that the run has.

    Raises:
        VwlError: the folder does not exist or has no map of the run's images, a file would run code, all files are wrong, or the run has
            other maps.
    """
    own_folder = str(run.stage_folder(STAGE))
    if f"{folder}/".startswith(f"{own_folder}/"):
        raise VwlError(f"{folder} is in the folder that the import replaces; move the files elsewhere")
    found = inspect_seeds(run.index, run.index_path, folder, seed_format, background)
    record, rows = found.record, STAGES[STAGE].rows(run.index)
    known, chosen = record.format, found.background
    try:
        manifest = _start(run, record, overwrite)
        stage = SeedStage(run.index, folder, found.files, known, chosen)
        damaged = run.faults(STAGE)
        if damaged:
            forget(run.shards(STAGE), run.stage_folder(STAGE), True, damaged)
        if manifest.state == "done" and not damaged:
            on_message(f"{STAGE}: imported before, skipped")
        else:
            manifest = _import(run, manifest, stage, rows, on_progress)
    except UnsafePickle as error:
        raise VwlError(f"{folder}/{error}") from None
    missing = [image_id for image_id, reason in manifest.failed.items() if reason == NO_FILE]
    failed = {image_id: reason for image_id, reason in manifest.failed.items() if reason != NO_FILE}
    imported = len(rows) - len(manifest.failed)
    return ImportSummary(known, chosen, imported, missing, failed, found.surplus, stage.left_out, stage.example)


def _try_some(stage: SeedStage, rows: Sequence[Row]) -> None:
    """Check that one of the first maps can be imported, before anything is deleted for them."""
    reasons = []
    for row in rows[:SHARD_SIZE]:
        try:
            stage(row)
        except Unreachable:
            raise
        except VwlError as error:
            reasons.append(str(error))
        else:
            return
    raise VwlError(f"{stage.folder}: none of the first {len(reasons)} maps can be imported, e.g. {reasons[0]}")


def _start(run: Run, record: ImportedMaps, overwrite: bool) -> Manifest:
    """Return the manifest of an import; one that the run has already is resumed, other maps are deleted if `overwrite` is given."""
    data = run.index.fingerprint()
    before = run.manifest(STAGE)
    if before is not None and before.fingerprint == record.fingerprint(data):
        return before
    earlier = imported_maps(before)
    is_unfinished_import = earlier is not None and before is not None and before.state == "running"
    if before is not None and not overwrite and not is_unfinished_import:
        origin = "computed by its classifier" if earlier is None else f"imported from {earlier.folder}, or an earlier state of it"
        raise VwlError(f"{run.folder}/{STAGE} has other maps ({origin}); use another --run folder, or --overwrite to replace them")
    run.stage_folder(STAGE).clear()
    manifest = Manifest(
        stage=STAGE,
        state="running",
        fingerprint=record.fingerprint(data),
        settings=record.settings(),
        seed=run.recipe.seed,
        recipe=run.recipe.name,
        reads={},
        index=data,
        versions=versions(),
        started=local_time(),
        shard_sizes=sizes_in_manifest(run.shard_sizes(STAGE)),
    )
    write_record(run.stage_folder(STAGE), Record(manifest.as_json()))
    run.write_manifest(manifest)
    catalogue_maps(run.stage_folder(STAGE), run.shards(STAGE), manifest.fingerprint)
    return manifest


def _import(run: Run, manifest: Manifest, stage: SeedStage, rows: Sequence[Row], on_progress: OnProgress) -> Manifest:
    """Import the shards that are left, choose the threshold, score, and return the finished manifest."""
    out, start = run.stage_folder(STAGE), time.monotonic()
    todo = unfinished(run.shards(STAGE), out)
    done = len(rows) - sum(len(shard.rows) for shard in todo)
    try:
        for shard in todo:
            process(stage, shard, out)
            done += len(shard.rows)
            on_progress(Progress(STAGE, done, len(rows)))
    finally:
        manifest = replace(manifest, seconds=round(manifest.seconds + time.monotonic() - start, 3))
        run.write_manifest(manifest)
    out.sweep()
    failed = check_shards(run.shards(STAGE), out, True).failed
    if len(failed) == len(rows):
        reasons = [reason for reason in failed.values() if reason != NO_FILE]
        out.clear()
        raise VwlError(f"{stage.folder}: none of the {len(reasons)} maps can be imported, e.g. {reasons[0]}")
    finished = choose_and_score(run, replace(manifest, state="done", finished=local_time(), images=len(rows), failed=failed))
    run.finish_stage(finished, result_files(run, STAGE))
    return finished


def export_seeds(run: Run, stage: str, out: Folder, on_progress: OnProgress) -> int:
    """Write a stage's maps as IRN's files `<image id>.npy`, one image at a time; return their number.

    The background of maps that have their own is left out: IRN has none.

    Raises:
        VwlError: the stage is not done, or a file cannot be written.
    """
    if not run.is_done(stage):
        raise VwlError(f"{run.folder} has no finished maps of the {stage} stage: vwl infer {stage} --run {run.folder}")
    maps = MapReader(run.stage_folder(stage))
    for number, image_id in enumerate(maps.locations, 1):
        found = maps.read(image_id)
        first = int(found.classes[:1] == (0,))
        keys, values = found.classes[first:], found.values[first:]
        data = encode_irn(np.array(keys, np.int64) - 1, values, upsample(values, found.height, found.width))
        out.write(f"{image_id}.npy", data)
        on_progress(Progress("export", number, len(maps)))
    return len(maps)
