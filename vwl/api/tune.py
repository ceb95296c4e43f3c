"""Searches: every setting of a space trained and scored with several seeds on Ray Tune, and the tables of what came out."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from vwl.api.inputs import AnyRecipe, Data, Overrides, data_of, location, override_lines, recipe_of
from vwl.config.files import load_recipe, overridden
from vwl.config.layout import Layout
from vwl.config.recipe import Recipe
from vwl.data.index import Index, read_index, write_index
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.lock import exclusive_lock
from vwl.tuning import report, results, runner
from vwl.tuning.given import with_given
from vwl.tuning.report import Best
from vwl.tuning.search import Search, open_searches
from vwl.tuning.space import load_space
from vwl.tuning.table import Table
from vwl.tuning.trials import FAILED
from vwl.workflow.start import INDEX_NAME, default_recipe

logger = logging.getLogger("vwl")


@dataclass(frozen=True)
class TrialProgress:
    """How far a trial of a search is.

    Attributes:
        trial: its name.
        state: `waiting`, `starting`, the stage that runs, `done`, `failed` or `stopped`.
        text: score, reason or metrics; may be empty.
        done, total: steps or images of the stage that runs; 0 if none does.
    """

    trial: str
    state: str
    text: str = ""
    done: int = 0
    total: int = 0


@dataclass(frozen=True)
class TrialResources:
    """What each trial of a search runs with; none: as before in a search that is resumed, else the default.

    Attributes:
        workers: data-parallel training workers (1).
        cpus_per_worker: CPU threads of each (1).
        gpus_per_worker: 0 or 1 (0).
        micro_batch: images that a worker passes through the network at once (by device).
        precision: `float32` or `bf16` (`float32`).
        checkpoint_steps: steps between checkpoints (25).
        concurrent: trials at a time, or `auto`: as many as fit (`auto`).
        backend: `ray`, or `local`: one trial after the other in this process, without Ray (`ray`).
    """

    workers: int | None = None
    cpus_per_worker: int | None = None
    gpus_per_worker: int | None = None
    micro_batch: int | None = None
    precision: Literal["float32", "bf16"] | None = None
    checkpoint_steps: int | None = None
    concurrent: int | Literal["auto"] | None = None
    backend: Literal["ray", "local"] | None = None


OnTrial = Callable[[TrialProgress], None]


class TuneResult:
    """A search folder, which holds the searches of one or more spaces."""

    def __init__(self, root: Folder, space: str | None = None) -> None:
        self._root, self._space = root, space

    def __repr__(self) -> str:
        return f"TuneResult({self.folder!r})"

    @property
    def folder(self) -> str:
        """Path or URI of the search folder."""
        return self._root.uri

    @property
    def tables(self) -> list[Table]:
        """Each search as a table like the paper's: mIoU over seeds by setting, with differences and their intervals."""
        return report.tables(self._root, self._space)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """One row for each trial, finished or not: setting, seed, state, scores in percent, times, recipe (`trials.parquet`)."""
        return results.trial_rows(self._root, open_searches(self._root, self._space))

    @property
    def failed(self) -> dict[str, str]:
        """Reason by name of each trial that has failed."""
        return {row["trial"]: row["reason"] for row in self.rows if row["state"] == FAILED}

    def best(self, split: Literal["train", "val"] = "val") -> Best:
        """Return the best trial and its recipe: the best seed of the setting with the best mean over seeds.

        Raises:
            VwlError: no trial has a score on the split.
        """
        return report.best(self._root, self._space, split)

    def update(self) -> None:
        """Write `trials.parquet` in the search folder anew."""
        results.write_parquet(self._root)

    def write(self, out: str | Path) -> None:
        """Write the tables in every format, their plots and the trials (Parquet) into a folder.

        Raises:
            VwlError: it cannot be written.
        """
        self.update()
        report.write_tables(self.tables, Folder(out))
        Folder(out).write(results.PARQUET, self._root.read(results.PARQUET))


def open_tune(folder: str | Path, space: str | None = None) -> TuneResult:
    """Return the searches of a folder, or that of one space.

    Raises:
        VwlError: the folder holds no search, or none of this space.
    """
    root = Folder(folder)
    open_searches(root, space)
    return TuneResult(root, space)


def tune(
    space: str | Path,
    data: Data,
    recipe: AnyRecipe | None = None,
    out: str | Path | None = None,
    *,
    overrides: Overrides = (),
    seeds: int = 1,
    threshold: str | float = "auto",
    maps: Mapping[str, str | Path] | None = None,
    weights: Mapping[str, str | Path] | None = None,
    resources: TrialResources | None = None,
    address: str | None = None,
    on_trial: OnTrial | None = None,
) -> TuneResult:
    """Train and score every setting of a space with several seeds. Trials that the folder holds already are not run again.

    Args:
        space: built-in space (`vwl tune spaces`) or YAML file.
        data: index table (path or URI), or an index, which is then stored in the search folder.
        recipe: that the settings change; default: the space's, else that of `vwl.run`.
        out: folder of the search, path or URI; it can hold several.
        overrides: changes of the recipe, as in `vwl.run`.
        seeds: number of seeds of each setting, counted up from the recipe's.
        threshold: background threshold: `auto`, `auto-by-class`, `recipe` (the recipe's) or a number.
        maps: folders of maps of other methods (`vwl seeds import`) by the label of the row that each becomes.
        weights: files by the names that rows of the space take; a row whose weights are not given is left out.
        resources: what each trial runs with.
        address: Ray cluster; default: RAY_ADDRESS, else a local Ray.
        on_trial: called with the state of each trial when it changes.

    Raises:
        VwlError: an argument, the space, the data or the recipe is wrong.
        Interrupted: stopped by Ctrl-C; finished trials and checkpoints are kept.
    """
    if out is None:
        raise VwlError("name the folder of the search: vwl.tune(space, data, recipe, out)")
    root = Folder(out)
    given = data_of(data)
    assert given is not None
    index = given if isinstance(given, Index) else read_index(given)
    index_path = root.uri_of(INDEX_NAME) if isinstance(given, Index) else location(given)
    loaded = with_given(load_space(str(space)), _located(maps), _located(weights), index, index_path)
    wanted = _recipe(recipe_of(recipe) or loaded.recipe or default_recipe(index), override_lines(overrides))
    search = Search.plan(loaded, wanted, index, index_path, seeds, str(threshold))
    if isinstance(given, Index):
        search.joined_with_stored(root)  # refuses another data set before its index is replaced
        write_index(given, index_path)
    return _run([search], root, {}, _given(resources, address), on_trial)


def resume_tune(
    out: str | Path,
    space: str | None = None,
    data: str | Path | None = None,
    *,
    resources: TrialResources | None = None,
    address: str | None = None,
    on_trial: OnTrial | None = None,
) -> TuneResult:
    """Go on with the searches of a folder, or with that of one space, as they were started; other arguments are those of `tune`.

    Args:
        out: folder of the searches.
        space: name of one space.
        data: new path of their data set.
        resources, address: what is not given is as before.
        on_trial: as in `tune`.

    Raises:
        VwlError: the folder holds no search, or the data set has changed.
        Interrupted: as `tune`.
    """
    root = Folder(out)
    searches = open_searches(root, space, None if data is None else location(data))
    return _run(
        searches, root, root.read_json(runner.RESOURCES) if root.exists(runner.RESOURCES) else {}, _given(resources, address), on_trial
    )


_STORED = {"cpus_per_worker": "cpus", "gpus_per_worker": "gpus"}
"""Options whose names in `resources.json` are others."""
_DEFAULTS: dict[str, Any] = {"workers": 1, "cpus": 1, "gpus": 0, "micro_batch": None, "precision": "float32", "checkpoint_steps": 25}
_DEFAULTS |= {"concurrent": "auto", "address": None, "backend": "ray"}


class _View:
    """Passes the states of trials on to a callback."""

    def __init__(self, on_trial: OnTrial | None) -> None:
        self._on_trial = on_trial

    def show_trial(self, name: str, state: str, text: str = "", done: int = 0, total: int = 0) -> None:
        if self._on_trial is not None:
            self._on_trial(TrialProgress(name, state, text, done, total))


def _given(resources: TrialResources | None, address: str | None) -> dict[str, Any]:
    """Return the options that were given, by their stored names."""
    options = {**asdict(resources or TrialResources()), "address": address}
    return {_STORED.get(name, name): value for name, value in options.items() if value is not None}


def _run(searches: Sequence[Search], root: Folder, stored: dict[str, Any], given: dict[str, Any], on_trial: OnTrial | None) -> TuneResult:
    """Run searches; `stored` are the resources that each one was started with, `given` those that replace them."""
    resources = [_resources(stored.get(search.space.name, {}) | given) for search in searches]
    with exclusive_lock(root, "search"):
        for search, each in zip(searches, resources, strict=True):
            runner.run_search(search, root, each, _View(on_trial), logger.info, lambda: _update_trials(root))
        report.write_all(root)
    return TuneResult(root, searches[0].space.name if len(searches) == 1 else None)


def _resources(given: dict[str, Any]) -> runner.TuneResources:
    """Return what trials run with; what was not given has its default."""
    options = _DEFAULTS | given
    concurrent = None if options["concurrent"] == "auto" else options["concurrent"]
    layout = Layout(
        workers=options["workers"],
        cpus_per_worker=options["cpus"],
        gpus_per_worker=options["gpus"],
        micro_batch=options["micro_batch"],
        checkpoint_steps=options["checkpoint_steps"],
        precision=options["precision"],
    )
    return runner.TuneResources(layout, None if concurrent is None else int(concurrent), options["address"], options, options["backend"])


def _located(given: Mapping[str, str | Path] | None) -> dict[str, str]:
    """Return paths and URIs by name; paths are absolute, since trials run in other folders."""
    return {name: location(path) for name, path in (given or {}).items()}


def _recipe(recipe: str | Recipe, overrides: list[str]) -> Recipe:
    return overridden(recipe, overrides) if isinstance(recipe, Recipe) else load_recipe(recipe, overrides)


def _update_trials(root: Folder) -> None:
    """Write the Parquet table while trials run; an error is a message, so that they continue."""
    try:
        results.write_parquet(root)
    except VwlError as error:
        logger.warning("%s is not up to date: %s", results.PARQUET, error)
