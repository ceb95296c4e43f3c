"""A search: a space, a recipe, a data set and seeds, stored in a search folder. A folder can hold several searches, one per table.

```
searches/<space>.json      the search: the space, the recipe that its settings change, data set, seeds, samples
trials/<trial>/            an ordinary run folder, and trial.json with state, reason and times
stages/<fingerprint>.json  the trial that has finished a stage with this fingerprint
trials.parquet, tables/    written from the above after each trial and at the end
```
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from vwl.config.files import differences, recipe_from
from vwl.config.recipe import Recipe, fingerprint
from vwl.data.index import Index
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.tuning.rows import Setting
from vwl.tuning.space import Space, space_from, with_keys
from vwl.tuning.trials import Trial

_THRESHOLDS = ("cam", "walk")
_EARLIER_FILE = "places.json"
"""File of the resource options until recipe keys were renamed; now `resources.json` (`vwl.tuning.runner`)."""


class Entry(NamedTuple):
    """One cell of a search's plan: a setting, a seed, and their trial."""

    setting: Setting
    seed: int
    trial: Trial


@dataclass(frozen=True)
class Search:
    """A search.

    Attributes:
        space: the settings, or the domains they are drawn from.
        recipe: the recipe that the settings change.
        index_path: path or URI of the data set's index.
        index_fingerprint: fingerprint of the data set.
        seeds: of each setting.
        samples: with the strategy `search`, the recipe keys and values of each setting drawn so far.
    """

    space: Space
    recipe: Recipe
    index_path: str
    index_fingerprint: str
    seeds: tuple[int, ...]
    samples: tuple[dict[str, Any], ...] = field(default=())

    @classmethod
    def plan(cls, space: Space, recipe: Recipe, index: Index, index_path: str, num_seeds: int, threshold: str = "auto") -> "Search":
        """Return a new search.

        Args:
            space: the settings.
            recipe: the recipe that they change.
            index: the data set.
            index_path: where it is.
            num_seeds: trainings of each setting; seeds are counted up from the recipe's.
            threshold: background threshold of each trial: `auto`, `auto-by-class`, `recipe` (the recipe's) or a number.

        Raises:
            VwlError: the threshold is none of these, the recipe scores an unknown class, or there is no ground truth.
        """
        if threshold != "recipe":
            try:
                wanted: str | float = threshold if threshold in {"auto", "auto-by-class"} else float(threshold)
            except ValueError:
                raise VwlError(f"--threshold {threshold} is neither auto, auto-by-class, recipe nor a number") from None
            keys: dict[str, Any] = {f"{stage}.background_threshold": wanted for stage in _THRESHOLDS}
            if space.stage == "crf" or any(setting.stage == "crf" for setting in space.settings()):
                keys["crf.background"] = "auto"  # the threshold of the stage cam
            recipe = with_keys(recipe, keys, "threshold")
        index.class_ids(recipe.evaluation.classes or ())
        if not (index.rows.has_truth & index.rows.is_labelled & index.rows.in_splits("train", "val")).any():
            raise VwlError(f"{index_path} has no ground truth in train or val to compare trials with; add masks to the data set")
        seeds = tuple(range(recipe.seed, recipe.seed + num_seeds))
        return cls(space, recipe, index_path, index.fingerprint(), seeds)

    @classmethod
    def read(cls, root: Folder, name: str) -> "Search":
        """Return a stored search; `name`: of its space.

        Raises:
            VwlError: the folder is of an earlier version, or the file holds no valid search.
        """
        if root.exists(_EARLIER_FILE):
            raise VwlError(
                f"{root} holds searches of an earlier version of vwl ({_EARLIER_FILE}); start them again in another --run folder"
            )
        stored = (root / "searches").read_json(f"{name}.json")
        source = f"{root}/searches/{name}.json"
        return cls(
            space_from(stored["space"], source),
            recipe_from(stored["recipe"], source),
            stored["index"],
            stored["index_fingerprint"],
            tuple(stored["seeds"]),
            tuple(stored["samples"]),
        )

    def write(self, root: Folder) -> None:
        """Store the search."""
        (root / "searches").write_json(
            f"{self.space.name}.json",
            {
                "space": self.space.model_dump(mode="json"),
                "recipe": self.recipe.model_dump(mode="json"),
                "index": self.index_path,
                "index_fingerprint": self.index_fingerprint,
                "seeds": list(self.seeds),
                "samples": list(self.samples),
            },
        )

    def joined_with_stored(self, root: Folder) -> "Search":
        """Return this search with the seeds and samples of the stored search of the same space, if there is one.

        Raises:
            VwlError: the folder holds searches on another data set, or a search of this space with another recipe or with settings
                that the space no longer has: their trials would be in no table.
        """
        for name in stored_searches(root):
            other = Search.read(root, name)
            if other.index_fingerprint != self.index_fingerprint:
                raise VwlError(f"{root} holds searches on another data set ({other.index_path}); use another --run folder")
        if self.space.name not in stored_searches(root):
            return self
        other = Search.read(root, self.space.name)
        space = self.space.keeping_given(other.space)
        changed = differences(other.recipe, self.recipe)
        if changed:
            raise VwlError(
                f"{root} holds the search {self.space.name} with another recipe ({', '.join(changed[:3])}); use another --run folder"
            )
        field = other.space.field_lost_in(space)
        if field is not None:
            raise VwlError(
                f"{root} holds the search {self.space.name} with other {field}; rename the space file or use another --run folder"
            )
        return replace(self, space=space, seeds=tuple(sorted({*self.seeds, *other.seeds})), samples=other.samples)

    def entries(self) -> list[Entry]:
        """Return the cells of the plan, ordered by seed; with the strategy `search`, those of the samples drawn so far."""
        if self.space.strategy == "search":
            return [entry for seed in self.seeds for n, keys in enumerate(self.samples, 1) for entry in self.entries_of(keys, n, (seed,))]
        return [Entry(setting, seed, self._trial_of(setting, seed)) for seed in self.seeds for setting in self.space.settings()]

    def entries_of(self, keys: dict[str, Any], number: int, seeds: Sequence[int]) -> list[Entry]:
        """Return a sample's cells for some seeds; `number` counts the samples from 1 and is its label."""
        setting = Setting(f"sample {number}", keys)
        return [Entry(setting, seed, self.trial({**self.space.base, **keys}, seed)) for seed in seeds]

    def trial(self, keys: dict[str, Any], seed: int) -> Trial:
        """Return the trial with the recipe keys changed and a seed."""
        recipe = with_keys(self.recipe, {**keys, "seed": seed}, f"space {self.space.name}")
        return Trial(recipe, self.space.stage)

    def _trial_of(self, setting: Setting, seed: int) -> Trial:
        trial = self.trial(setting.overrides, seed)
        return replace(trial, stage=setting.stage or trial.stage, imported=setting.imported)


def stored_searches(root: Folder) -> list[str]:
    """Return the names of the searches in a folder, which are those of their spaces."""
    return [name.removesuffix(".json") for name in (root / "searches").names(".json")]


def open_searches(root: Folder, space: str | None = None, index_path: str | None = None) -> list[Search]:
    """Return the searches in a folder.

    Args:
        root: the folder.
        space: only the search of this space.
        index_path: new path of their data set.

    Raises:
        VwlError: the folder holds no search, or none of this space.
    """
    names = stored_searches(root)
    if not names:
        raise VwlError(f"{root} holds no search; start one with: vwl tune SPACE --data INDEX --run {root}")
    if space is not None and space not in names:
        raise VwlError(f"{root} holds no search of the space {space}; it holds {', '.join(names)}")
    searches = [Search.read(root, name) for name in names if space in {None, name}]
    return searches if index_path is None else [replace(search, index_path=index_path) for search in searches]


def groups(entries: Sequence[Entry], index_fingerprint: str) -> Iterator[tuple[Trial, ...]]:
    """Yield the distinct trials of cells, grouped by those that share their first training."""
    by_training: dict[str, dict[str, Trial]] = {}
    for entry in entries:
        recipe = entry.trial.recipe
        maps = entry.trial.imported
        first = recipe.classifier.model_dump(mode="json") if maps is None else maps.fingerprint(index_fingerprint)
        shared = fingerprint([first, recipe.seed, index_fingerprint])
        by_training.setdefault(shared, {})[entry.trial.id] = entry.trial
    for trials in by_training.values():
        yield tuple(trials.values())
