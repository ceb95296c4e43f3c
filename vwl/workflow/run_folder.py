"""A run folder: one recipe, one index, and a folder a stage with its data and a manifest that explains it.

```
run.json, recipe.yaml          what the run is
<stage>/manifest.json          settings, fingerprint, versions, times, counts, problems, scores
<stage>/...                    its data: weights.pt and checkpoints, part-*.parquet, *.png
scores.json, pictures/         made after the last stage
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
from vwl.workflow.stages import STAGES


class Run:
    """What every command knows of a run folder.

    Attributes:
        folder: the run folder.
        recipe: its settings.
        index: its data set.
    """

    def __init__(self, folder: Folder, recipe: Recipe, index: Index, index_path: str) -> None:
        self.folder, self.recipe, self.index, self.index_path = folder, recipe, index, index_path

    @classmethod
    def start(cls, folder: str, recipe: Recipe, index_path: str, overwrite: bool = False) -> "Run":
        """Open a run folder for this recipe and index, making it if it is new.

        Args:
            folder: path or URI.
            recipe: the settings wanted.
            index_path: the index table.
            overwrite: let the new recipe take the old one's place; stages that depend on a changed key are then done again.

        Raises:
            VwlError: the folder belongs to another recipe or index, or cannot be written; or the recipe scores an unknown class.
        """
        run = cls(Folder(folder), recipe, read_index(index_path), _absolute(index_path))
        run.index.class_ids(recipe.evaluation.classes or ())
        if run.folder.exists("run.json") and not overwrite:
            about = run.folder.read_json("run.json")
            changed = differences(recipe_from(_stored_recipe(run.folder), f"{folder}/recipe.yaml"), recipe)
            if changed:
                shown = ", ".join(changed[:3]) + (f" and {len(changed) - 3} more" if len(changed) > 3 else "")
                raise VwlError(f"{folder} is a run of another recipe ({shown}); use another --run folder, or --overwrite to change it")
            if about["index_fingerprint"] != run.index.fingerprint():
                raise VwlError(
                    f"{folder} is a run on another data set ({about['index']}); use another --run folder, or --overwrite to change it"
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
        place = Folder(folder)
        if not place.exists("run.json"):
            raise VwlError(f"{folder} is no run folder (it has no run.json); start one with: vwl run --data INDEX --run {folder}")
        index_path = place.read_json("run.json")["index"]
        return cls(place, recipe_from(_stored_recipe(place), f"{folder}/recipe.yaml"), read_index(index_path), index_path)

    def stage_folder(self, stage: str) -> Folder:
        """Return the folder of a stage."""
        return self.folder / stage

    def fingerprint(self, stage: str) -> str:
        """Return what identifies a stage's result: its settings, the seed, the data and the stages it reads."""
        return stage_fingerprint(stage, self.recipe, self.index.fingerprint())

    def manifest(self, stage: str) -> dict[str, Any] | None:
        """Return a stage's manifest, or none if it was never begun."""
        return stage_manifest(self.folder, stage)

    def is_done(self, stage: str) -> bool:
        """Return whether a stage's result is whole and of these settings and inputs."""
        return holds(self.folder, stage, self.fingerprint(stage))

    def begin(self, stage: str) -> dict[str, Any]:
        """Return the manifest of a stage that is to be worked on, keeping what an interrupted start of the same settings left."""
        folder, wanted = self.stage_folder(stage), self.fingerprint(stage)
        manifest = self.manifest(stage)
        if manifest is None or manifest["fingerprint"] != wanted:
            folder.clear()
            settings = STAGES[stage].settings(self.recipe)
            manifest = {
                "stage": stage,
                "state": "running",
                "fingerprint": wanted,
                "settings": settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings,
                "seed": self.recipe.seed,
                "recipe": self.recipe.name,
                "reads": {name: self.fingerprint(name) for name in STAGES[stage].reads},
                "index": self.index.fingerprint(),
                "versions": versions(),
                "started": _now(),
                "seconds": 0.0,
            }
            folder.write_json("manifest.json", manifest)
        return manifest

    def write_manifest(self, stage: str, manifest: dict[str, Any]) -> None:
        """Store a stage's manifest."""
        self.stage_folder(stage).write_json("manifest.json", manifest)

    def require(self, stage: str) -> None:
        """Check that the stages that a stage reads are done.

        Raises:
            VwlError: naming the first that is not, and its command.
        """
        for name in STAGES[stage].reads:
            if not self.is_done(name):
                verb = "train" if STAGES[name].kind == "train" else "infer"
                raise VwlError(f"{stage} needs the {name} stage, which is not done in {self.folder}: vwl {verb} {name} --run {self.folder}")


def stage_fingerprint(stage: str, recipe: Recipe, index_fingerprint: str) -> str:
    """Return what identifies a stage's result: its settings, the seed, the data and the stages it reads."""
    spec = STAGES[stage]
    settings = spec.settings(recipe)
    plain = settings.model_dump(mode="json") if isinstance(settings, BaseModel) else settings
    above = [stage_fingerprint(name, recipe, index_fingerprint) for name in spec.reads]
    threshold = recipe.cam.background_threshold if stage == "crf" and recipe.crf.background == "auto" else None
    return fingerprint([stage, plain, recipe.seed, index_fingerprint, above, threshold])


def stage_manifest(folder: Folder, stage: str) -> dict[str, Any] | None:
    """Return the manifest of a stage in a run folder, or none if it was never begun."""
    place = folder / stage
    return dict(place.read_json("manifest.json")) if place.exists("manifest.json") else None


def holds(folder: Folder, stage: str, wanted: str) -> bool:
    """Return whether a run folder holds a stage's whole result, of the fingerprint `wanted`."""
    manifest = stage_manifest(folder, stage)
    return manifest is not None and manifest["state"] == "done" and manifest["fingerprint"] == wanted


def _stored_recipe(folder: Folder) -> dict[str, Any]:
    return dict(yaml.safe_load(folder.read("recipe.yaml")))


def _absolute(path: str) -> str:
    return path if "://" in path else str(Path(path).absolute())


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S%z")
