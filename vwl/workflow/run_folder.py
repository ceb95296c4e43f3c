"""A run folder: one recipe, one index, and a folder per stage with its result and a manifest.

```
run.json, recipe.yaml          what the run is
<stage>/manifest.json          settings, fingerprint, versions, times, counts, failures, scores
<stage>/record.json            size and digest of each file of its result, and a copy of the manifest
<stage>/...                    its result: weights.pt and checkpoints, part-*.parquet, *.png
scores.json, pictures/, report.html   written after the last stage
```
"""

import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from pydantic import BaseModel

from vwl.config.files import differences
from vwl.config.recipe import Recipe, fingerprint
from vwl.config.versions import versions
from vwl.data.data_fingerprint import DataFingerprint
from vwl.data.index import Index, Rows, read_index, write_index
from vwl.data.rows import joined
from vwl.errors import VwlError
from vwl.inference.runner import Shard, shards
from vwl.inference.shard_files import expected_files
from vwl.storage.folder import Folder
from vwl.storage.record import Record, StoredFile, faults, listing, read_record, stored_file, write_record
from vwl.training.loop import WEIGHTS
from vwl.workflow.imported import STAGE as IMPORTED_STAGE
from vwl.workflow.imported import ImportedMaps, import_again, imported_maps, not_needed
from vwl.workflow.manifest import Manifest, read_manifest, write_manifest
from vwl.workflow.run_files import RunFiles, is_run, read_run_files, write_run_files
from vwl.workflow.stage_shards import catalogue_maps, shard_sizes, sizes_in_manifest
from vwl.workflow.stages import STAGES, stages_of


class Run:
    """An open run folder.

    Attributes:
        folder: the run folder.
        recipe: its settings.
        index: its data set.
        index_path: path or URI of the index table.
    """

    def __init__(self, folder: Folder, recipe: Recipe, index: Index, index_path: str) -> None:
        self.folder, self.recipe, self.index, self.index_path = folder, recipe, index, index_path

    @classmethod
    def start(cls, folder: str, recipe: Recipe, index_path: str, overwrite: bool = False, index: Index | None = None) -> "Run":
        """Open a run folder with this recipe and index, or create it.

        Args:
            folder: path or URI.
            recipe: settings of the run.
            index_path: path or URI of the index table.
            overwrite: replace the folder's recipe; stages that depend on a changed key are then run again.
            index: the index, where it is not yet written at `index_path`.

        Raises:
            VwlError: the folder belongs to another recipe or index, or cannot be written; or the recipe scores an unknown class.
        """
        run = cls(Folder(folder), recipe, index or read_index(index_path), _absolute(index_path))
        run.index.class_ids(recipe.evaluation.classes or ())
        fingerprint = run.index.fingerprint()
        if is_run(run.folder) and not overwrite:
            stored = read_run_files(run.folder)
            changed = differences(stored.recipe, recipe)
            if changed:
                shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
                raise VwlError(
                    f"{folder} is a run with another recipe ({shown}); use another --run folder, or --overwrite to replace the recipe"
                )
            if stored.index_fingerprint != fingerprint:
                raise VwlError(
                    f"{folder} is a run on another data set ({stored.index}); use another --run folder, or --overwrite to replace it"
                )
        if index is not None:
            write_index(index, index_path)
        write_run_files(run.folder, RunFiles(run.index_path, fingerprint, recipe))
        return run

    @classmethod
    def open(cls, folder: str) -> "Run":
        """Open an existing run folder.

        Raises:
            VwlError: there is none, or its files are damaged.
        """
        opened = Folder(folder)
        if not is_run(opened):
            raise VwlError(f"{folder} is not a run folder (it has no run.json); start a run with: vwl run --data INDEX --run {folder}")
        stored = read_run_files(opened)
        return cls(opened, stored.recipe, read_index(stored.index), stored.index)

    def stage_folder(self, stage: str) -> Folder:
        """Return the folder of a stage."""
        return self.folder / stage

    def fingerprint(self, stage: str) -> str:
        """Return the hash that identifies a stage's result: its settings, the seed, the data set and the stages it reads."""
        data = self.index.fingerprint()
        imported = self.imported_maps() if STAGES[stage].reads(self.recipe) else None
        return stage_fingerprint(stage, self.recipe, data, None if imported is None else imported.fingerprint(data))

    def imported_maps(self) -> ImportedMaps | None:
        """Return where the maps of the CAM stage were imported from, or none if they are computed."""
        return imported_maps(self.manifest(IMPORTED_STAGE))

    def needs(self, stage: str) -> bool:
        """Return whether a stage's result is used: other refiners' are not, and the classifier's is not where maps are imported."""
        return stage in stages_of(self.recipe) and not not_needed(stage, self.imported_maps())

    def why_not_needed(self, stage: str) -> str:
        """Return why a stage that is not needed is not."""
        if stage not in stages_of(self.recipe):
            off = {"recam": "recam.epochs: 0", "lpcam": f"cam.method: {self.recipe.cam.method}"}
            return f"the recipe has {off.get(stage, f'refiner: {self.recipe.refiner}')}"
        return "the maps of this run are imported"

    def manifest(self, stage: str) -> Manifest | None:
        """Return a stage's manifest, or none if the stage was never started.

        Raises:
            VwlError: it is damaged or of another version of vwl.
        """
        return read_manifest(self.stage_folder(stage))

    def stage_rows(self, stage: str, more: Sequence[str] = ()) -> Rows:
        """Return the images of an inference stage, without those that failed in a stage before it; `more` as in `row_groups`."""
        return joined(*self.row_groups(stage, more))

    def row_groups(self, stage: str, more: Sequence[str] = ()) -> list[Rows]:
        """Return the images of an inference stage: those that it always processes, then those of each split that was asked for beside them.

        Args:
            stage: its name.
            more: splits (`all`: every image) that are asked for now.

        Raises:
            VwlError: the index has no images in a split.
        """
        groups = self._whole_groups(stage, [*self._splits(stage), *more])
        seen = self.index.rows.where(self.index.rows.among(self._failed_before(stage)))
        for number, rows in enumerate(groups):
            groups[number] = rows.where(~rows.includes(seen))
            seen = joined(seen, rows)
        return groups

    def _whole_groups(self, stage: str, splits: Sequence[str]) -> list[Rows]:
        return [STAGES[stage].rows(self.index), *(self.index.split(split) for split in splits)]

    def _started(self, stage: str) -> Manifest | None:
        """Return a stage's manifest if it is of the current settings and inputs."""
        manifest = self.manifest(stage)
        return manifest if manifest is not None and manifest.fingerprint == self.fingerprint(stage) else None

    def _splits(self, stage: str) -> list[str]:
        manifest = self._started(stage)
        return [] if manifest is None else manifest.splits or []

    def shards(self, stage: str) -> list[Shard]:
        """Return the shards of an inference stage."""
        return shards(*self.row_groups(stage), sizes=self.shard_sizes(stage, self._splits(stage)))

    def shard_sizes(self, stage: str, splits: Sequence[str] = ()) -> list[int]:
        """Return the images per shard of each group of an inference stage's images; a group that was started keeps its own.

        Args:
            stage: its name.
            splits: those of all groups but the first, which were started in this order.
        """
        return shard_sizes(self._started(stage), self._whole_groups(stage, splits))

    def failed_images(self, stage: str) -> list[str]:
        """Return the ids of the images that failed in a stage."""
        manifest = self.manifest(stage)
        return [] if manifest is None else list(manifest.failed)

    def _failed_before(self, stage: str) -> set[str]:
        """Return the images that failed in an inference stage that `stage` reads, directly or through others."""
        before = [name for name in STAGES[stage].reads(self.recipe) if STAGES[name].kind != "train"]
        return {image_id for name in before for image_id in (*self.failed_images(name), *self._failed_before(name))}

    def is_done(self, stage: str, splits: Sequence[str] = ()) -> bool:
        """Return whether a stage's result is complete, undamaged and made with the current settings and inputs.

        Args:
            stage: its name.
            splits: whose images it must include, too.
        """
        if not has_result(self.folder, stage, self.fingerprint(stage)):
            return False
        if splits and len(self.stage_rows(stage, splits)) > len(self.stage_rows(stage)):
            return False
        return not self.faults(stage)

    def faults(self, stage: str) -> dict[str, str]:
        """Return what is wrong, by name, of each file of a stage's result that is missing or damaged.

        Sizes are compared, and the content of files that have changed since. Of results of earlier versions, without a record, only
        the presence of the files is known. A stage that has not ended has no faults.
        """
        manifest, folder = self.manifest(stage), self.stage_folder(stage)
        if manifest is None or manifest.state != "done" or manifest.fingerprint != self.fingerprint(stage):
            return {}
        record = read_record(folder)
        if record is None or not record.files:
            expected = self.expected_files(manifest)
            there = listing(folder, {name.rpartition("/")[0] for name in expected})
            return {name: "is empty" if name in there else "is missing" for name in expected if not there.get(name, (0, 0))[0]}
        found, now = faults(folder, record.files)
        if not found and now != record.files:  # a copy: it is not read again the next time
            with suppress(VwlError):
                write_record(folder, replace(record, files=now))
        return found

    def expected_files(self, manifest: Manifest) -> list[str]:
        """Return the names of the files of a finished stage's result."""
        stage, kind = manifest.stage, STAGES[manifest.stage].kind
        if kind == "train":
            return [WEIGHTS]
        return [name for shard in self.shards(stage) for name in expected_files(shard, kind == "maps", manifest.failed)]

    def start_stage(self, stage: str, splits: Sequence[str] = ()) -> Manifest:
        """Return the manifest of a stage that is about to run.

        What an interrupted start with the same settings left in the stage's folder stays; results of other settings are deleted.

        Args:
            stage: its name.
            splits: whose images it is to process beside those that it always does.
        """
        folder, fingerprint = self.stage_folder(stage), self.fingerprint(stage)
        manifest = self.manifest(stage)
        if manifest is None or manifest.fingerprint != fingerprint:
            folder.clear()
            settings = STAGES[stage].settings(self.recipe)
            manifest = Manifest(
                stage=stage,
                state="running",
                fingerprint=fingerprint,
                settings=settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings,
                seed=self.recipe.seed,
                recipe=self.recipe.name,
                reads={name: self.fingerprint(name) for name in STAGES[stage].reads(self.recipe)},
                index=self.index.fingerprint(),
                versions=versions(),
                started=local_time(),
            )
        wanted = list(dict.fromkeys([*(manifest.splits or ()), *splits]))
        manifest = replace(manifest, state="running", finished=None, resumed=local_time(), splits=wanted or None)
        if STAGES[stage].kind != "train":
            manifest = replace(manifest, shard_sizes=sizes_in_manifest(self.shard_sizes(stage, wanted)))
        # Content that is written from now on is known by the shards' markers; the old record no longer holds.
        write_record(folder, Record(manifest.as_json()))
        write_manifest(folder, manifest)
        if STAGES[stage].kind == "maps":
            catalogue_maps(folder, self.shards(stage), fingerprint)
        return manifest

    def finish_stage(self, manifest: Manifest, files: Mapping[str, StoredFile]) -> None:
        """Write a stage's manifest, and the record of the files of its result."""
        folder = self.stage_folder(manifest.stage)
        scores = {name: stored_file(folder, name) for name in (f"scores-{score.split}.json" for score in manifest.scores)}
        write_record(folder, Record(manifest.as_json(), {**files, **scores}))
        write_manifest(folder, manifest)

    def write_manifest(self, manifest: Manifest) -> None:
        """Write a stage's manifest."""
        write_manifest(self.stage_folder(manifest.stage), manifest)

    def require(self, stage: str) -> None:
        """Check that the stages which a stage reads are done.

        Raises:
            VwlError: one is not; names it and its command. Imported maps are never computed, so they must be done themselves.
        """
        imported = self.imported_maps()
        if imported and IMPORTED_STAGE in (stage, *STAGES[stage].reads(self.recipe)) and not self.is_done(IMPORTED_STAGE):
            again = import_again(str(self.folder), imported)
            raise VwlError(f"the import of the maps of {self.folder} is not complete, or its data set has changed since: {again}")
        for name in STAGES[stage].reads(self.recipe):
            if self.is_done(name):
                continue
            command = f"vwl {'train' if STAGES[name].kind == 'train' else 'infer'} {name} --run {self.folder}"
            damage = fault_line(self.stage_folder(name), self.faults(name))
            if damage:
                raise VwlError(f"{stage} needs the {name} stage, of which {damage}; make it again with: {command}")
            raise VwlError(f"{stage} needs the {name} stage, which is not done in {self.folder}: {command}")


def fault_line(folder: Folder, found: Mapping[str, str]) -> str:
    """Return one line on faulty files, which names the first by its full path; empty if there are none."""
    if not found:
        return ""
    (name, fault), more = min(found.items()), len(found) - 1
    return f"{folder.uri_of(name)} {fault}" + (f" (and {more} more file{'s' if more > 1 else ''})" if more else "")


def stage_fingerprint(stage: str, recipe: Recipe, index_fingerprint: str, imported: str | None = None) -> str:
    """Return the hash that identifies a stage's result: its settings, the seed, the data set and the stages it reads.

    `imported` is the fingerprint of imported maps, which takes the place of the CAM stage's. Corrected masks count for the stages that
    use them: `masks` puts those of training images in place of its own, `segment` processes the other images, too.
    """
    if stage == IMPORTED_STAGE and imported is not None:
        return imported
    spec = STAGES[stage]
    settings = spec.settings(recipe)
    plain = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
    reads = [stage_fingerprint(name, recipe, index_fingerprint, imported) for name in spec.reads(recipe)]
    threshold = recipe.cam.background_threshold if stage == "crf" and recipe.crf.background == "auto" else None
    data = DataFingerprint.parse(index_fingerprint)
    corrected = {"masks": data.training, "segment": data.held_out}.get(stage)
    return fingerprint([stage, plain, recipe.seed, data.data, reads, threshold, *([corrected] if corrected else [])])


def has_result(run: Folder, stage: str, fingerprint: str) -> bool:
    """Return whether a run folder holds a stage's complete result with this fingerprint."""
    manifest = read_manifest(run / stage)
    return manifest is not None and manifest.state == "done" and manifest.fingerprint == fingerprint


def local_time() -> str:
    """Return the local time as ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())
