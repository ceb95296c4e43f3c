"""What users may pass as data set, recipe, overrides and workers, turned into what the workflow takes."""

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vwl.config.layout import Layout
from vwl.config.recipe import Recipe
from vwl.data.index import Index
from vwl.errors import VwlError
from vwl.storage.folder import Folder

Data = str | Path | Index
"""An index table (path or URI), or an index."""
AnyRecipe = str | Path | Recipe
"""Name of a built-in recipe, path of a YAML file, or a recipe."""
Overrides = Mapping[str, Any] | Sequence[str]
"""Changes of a recipe: ``{"classifier.epochs": 4}``, ``{"classifier": {"epochs": 4}}`` or ``["classifier.epochs=4"]``."""
Workers = int | Layout
"""Number of training workers, or all options of their layout."""


def data_of(data: Data | None) -> str | Index | None:
    """Return a data set as the workflow takes it.

    Raises:
        VwlError: it is a folder of images, which has no labels.
    """
    if data is None or isinstance(data, Index):
        return data
    if "://" not in str(data) and Path(data).is_dir():
        raise VwlError(f"{data} is a folder; make an index of it with vwl.prepare_folder({str(data)!r}, LABELS.csv), and pass that")
    return str(data)


def recipe_of(recipe: AnyRecipe | None) -> str | Recipe | None:
    """Return a recipe as the workflow takes it."""
    return str(recipe) if isinstance(recipe, Path) else recipe


def override_lines(overrides: Overrides) -> list[str]:
    """Return overrides as lines ``section.key=value``.

    Raises:
        VwlError: a value has no form in JSON, or a line no `=`.
    """
    if isinstance(overrides, Mapping):
        return [f"{key}={_as_json(key, value)}" for key, value in flat(overrides)]
    if isinstance(overrides, str):
        raise VwlError(f"overrides are a mapping or a list; write [{overrides!r}]")
    wrong = next((line for line in overrides if "=" not in line), None)
    if wrong is not None:
        raise VwlError(f"the override '{wrong}' is not of the form section.key=value")
    return list(overrides)


def layout_of(workers: Workers, gpus_per_worker: int = 0) -> Layout:
    """Return the layout of trainings; each worker gets an equal share of this machine's CPUs where only their number is given.

    Raises:
        VwlError: it is no positive number.
    """
    if isinstance(workers, Layout):
        return workers
    if isinstance(workers, bool) or not isinstance(workers, int) or workers < 1:
        raise VwlError(f"workers={workers!r} is no positive number; for elastic trainings pass vwl.Layout(workers=4, min_workers=2)")
    if gpus_per_worker not in (0, 1):
        raise VwlError(f"gpus_per_worker={gpus_per_worker!r} is neither 0 nor 1")
    return Layout(workers, max(1, (os.cpu_count() or 1) // workers), gpus_per_worker)


def location(path: str | Path) -> str:
    """Return a path or URI that does not depend on the working folder."""
    return str(path) if "://" in str(path) else Folder(path).uri


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values of nested mappings by their keys, joined by dots."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _as_json(key: str, value: Any) -> str:
    try:
        return json.dumps(str(value) if isinstance(value, Path) else value, allow_nan=False)
    except (TypeError, ValueError):
        raise VwlError(f"override {key}: {value!r} is no value of a recipe; give a number, text, list, True, False or None") from None
