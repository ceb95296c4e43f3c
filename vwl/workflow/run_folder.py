"""A run folder: one recipe, one index, and a folder per stage with its result and a manifest.

```
run.json, recipe.yaml          what the run is
<stage>/manifest.json          settings, fingerprint, versions, times, counts, failures, scores
<stage>/...                    its result: weights.pt and checkpoints, part-*.parquet, *.png
scores.json, pictures/         written after the last stage
```
"""

import time
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from vwl.config.files import differences, recipe_from, to_yaml
from vwl.config.recipe import Recipe, fingerprint
from vwl.config.versions import versions
from vwl.data.index import Index, read_index
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.workflow.imported import STAGE as IMPORTED_STAGE
from vwl.workflow.imported import ImportedMaps, import_again, imported_maps, not_needed
from vwl.workflow.manifest import Manifest, read_manifest, write_manifest
from vwl.workflow.stages import STAGES


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
    def start(cls, folder: str, recipe: Recipe, index_path: str, overwrite: bool = False) -> "Run":
        """Open a run folder with this recipe and index, or create it.

        Args:
            folder: path or URI.
            recipe: settings of the run.
            index_path: path or URI of the index table.
            overwrite: replace the folder's recipe; stages that depend on a changed key are then run again.

        Raises:
            VwlError: the folder belongs to another recipe or index, or cannot be written; or the recipe scores an unknown class.
        """
        run = cls(Folder(folder), recipe, read_index(index_path), _absolute(index_path))
        run.index.class_ids(recipe.evaluation.classes or ())
        if run.folder.exists("run.json") and not overwrite:
            stored = run.folder.read_json("run.json")
            changed = differences(recipe_from(_stored_recipe(run.folder), f"{folder}/recipe.yaml"), recipe)
            if changed:
                shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
                raise VwlError(
                    f"{folder} is a run with another recipe ({shown}); use another --run folder, or --overwrite to replace the recipe"
                )
            if stored["index_fingerprint"] != run.index.fingerprint():
                raise VwlError(
                    f"{folder} is a run on another data set ({stored['index']}); use another --run folder, or --overwrite to replace it"
                )
        run.folder.write("recipe.yaml", to_yaml(recipe).encode())
        run.folder.write_json("run.json", {"index": run.index_path, "index_fingerprint": run.index.fingerprint(), "recipe": recipe.name})
        return run

    @classmethod
    def open(cls, folder: str) -> "Run":
        """Open an existing run folder.

        Raises:
            VwlError: there is none.
        """
        opened = Folder(folder)
        if not opened.exists("run.json"):
            raise VwlError(f"{folder} is not a run folder (it has no run.json); start a run with: vwl run --data INDEX --run {folder}")
        index_path = opened.read_json("run.json")["index"]
        return cls(opened, recipe_from(_stored_recipe(opened), f"{folder}/recipe.yaml"), read_index(index_path), index_path)

    def stage_folder(self, stage: str) -> Folder:
        """Return the folder of a stage."""
        return self.folder / stage

    def fingerprint(self, stage: str) -> str:
        """Return the hash that identifies a stage's result: its settings, the seed, the data set and the stages it reads."""
        data = self.index.fingerprint()
        imported = self.imported_maps() if STAGES[stage].reads else None
        return stage_fingerprint(stage, self.recipe, data, None if imported is None else imported.fingerprint(data))

    def imported_maps(self) -> ImportedMaps | None:
        """Return where the maps of the CAM stage were imported from, or none if they are computed."""
        return imported_maps(self.manifest(IMPORTED_STAGE))

    def needs(self, stage: str) -> bool:
        """Return whether a stage's result is used: the classifier's is not where maps are imported."""
        return not not_needed(stage, self.imported_maps())

    def manifest(self, stage: str) -> Manifest | None:
        """Return a stage's manifest, or none if the stage was never started.

        Raises:
            VwlError: it is damaged or of another version of vwl.
        """
        return read_manifest(self.stage_folder(stage))

    def is_done(self, stage: str) -> bool:
        """Return whether a stage's result is complete and made with the current settings and inputs."""
        return has_result(self.folder, stage, self.fingerprint(stage))

    def start_stage(self, stage: str) -> Manifest:
        """Return the manifest of a stage that is about to run.

        What an interrupted start with the same settings left in the stage's folder stays; results of other settings are deleted.
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
                reads={name: self.fingerprint(name) for name in STAGES[stage].reads},
                index=self.index.fingerprint(),
                versions=versions(),
                started=local_time(),
            )
            write_manifest(folder, manifest)
        return manifest

    def write_manifest(self, manifest: Manifest) -> None:
        """Write a stage's manifest."""
        write_manifest(self.stage_folder(manifest.stage), manifest)

    def require(self, stage: str) -> None:
        """Check that the stages which a stage reads are done.

        Raises:
            VwlError: one is not; names it and its command. Imported maps are never computed, so they must be done themselves.
        """
        imported = self.imported_maps()
        if imported and IMPORTED_STAGE in (stage, *STAGES[stage].reads) and not self.is_done(IMPORTED_STAGE):
            again = import_again(str(self.folder), imported)
            raise VwlError(f"the import of the maps of {self.folder} is not complete, or its data set has changed since: {again}")
        for name in STAGES[stage].reads:
            if not self.is_done(name):
                verb = "train" if STAGES[name].kind == "train" else "infer"
                raise VwlError(f"{stage} needs the {name} stage, which is not done in {self.folder}: vwl {verb} {name} --run {self.folder}")


def stage_fingerprint(stage: str, recipe: Recipe, index_fingerprint: str, imported: str | None = None) -> str:
    """Return the hash that identifies a stage's result: its settings, the seed, the data set and the stages it reads.

    `imported` is the fingerprint of imported maps, which takes the place of the CAM stage's.
    """
    if stage == IMPORTED_STAGE and imported is not None:
        return imported
    spec = STAGES[stage]
    settings = spec.settings(recipe)
    plain = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
    reads = [stage_fingerprint(name, recipe, index_fingerprint, imported) for name in spec.reads]
    threshold = recipe.cam.background_threshold if stage == "crf" and recipe.crf.background == "auto" else None
    return fingerprint([stage, plain, recipe.seed, index_fingerprint, reads, threshold])


def has_result(run: Folder, stage: str, fingerprint: str) -> bool:
    """Return whether a run folder holds a stage's complete result with this fingerprint."""
    manifest = read_manifest(run / stage)
    return manifest is not None and manifest.state == "done" and manifest.fingerprint == fingerprint


def local_time() -> str:
    """Return the local time as ISO 8601."""
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")


def _stored_recipe(folder: Folder) -> dict[str, Any]:
    return dict(yaml.safe_load(folder.read("recipe.yaml")))


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())
