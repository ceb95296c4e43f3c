"""The files that say what a run is: `run.json` (its data set) and `recipe.yaml` (its settings)."""

import json
from dataclasses import dataclass

import yaml

from vwl.config.files import recipe_from, to_yaml
from vwl.config.recipe import Recipe
from vwl.errors import VwlError
from vwl.storage.checked import digest
from vwl.storage.folder import Folder


@dataclass(frozen=True)
class RunFiles:
    """What a run is.

    Attributes:
        index: path or URI of the index table.
        index_fingerprint: of the data set.
        recipe: all settings.
    """

    index: str
    index_fingerprint: str
    recipe: Recipe


def is_run(folder: Folder) -> bool:
    """Return whether a folder is a run folder."""
    return folder.exists("run.json")


def write_run_files(folder: Folder, run: RunFiles) -> None:
    """Write both files, each atomically."""
    text = to_yaml(run.recipe).encode()
    folder.write("recipe.yaml", text)
    about = {"index": run.index, "index_fingerprint": run.index_fingerprint, "recipe": run.recipe.name, "recipe_digest": digest(text)}
    folder.write_json("run.json", about)


def read_run_files(folder: Folder) -> RunFiles:
    """Return what a run is.

    Raises:
        VwlError: a file is missing or damaged, or the recipe has keys of an earlier version.
    """
    try:
        stored = json.loads(folder.read("run.json"))
    except ValueError:
        raise _damaged(folder, "run.json") from None
    if not isinstance(stored, dict) or not all(isinstance(stored.get(key), str) for key in ("index", "index_fingerprint")):
        raise _damaged(folder, "run.json")
    text = folder.read("recipe.yaml") if folder.exists("recipe.yaml") else b""
    # A recipe that was cut off would be read with defaults instead; runs of earlier versions have no digest.
    if stored.get("recipe_digest", digest(text)) != digest(text):
        raise _damaged(folder, "recipe.yaml")
    try:
        values = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):
        values = None
    if not isinstance(values, dict):
        raise _damaged(folder, "recipe.yaml")
    return RunFiles(stored["index"], stored["index_fingerprint"], recipe_from(values, folder.uri_of("recipe.yaml")))


def _damaged(folder: Folder, name: str) -> VwlError:
    return VwlError(
        f"{folder.uri_of(name)} is missing or damaged; "
        "write it again with --data INDEX, --recipe RECIPE and --overwrite (finished stages are kept)"
    )
