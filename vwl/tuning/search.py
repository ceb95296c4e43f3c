"""A search: a space, a recipe, a data set and seeds, kept in the folder of the search, which may hold several (one a table).

```
searches/<space>.json      what is searched, complete: the space itself, the recipe before its settings, data, seeds, samples
trials/<trial>/            an ordinary run folder, and trial.json: state, reason, time
stages/<fingerprint>.json  which trial has finished a stage of this fingerprint
trials.parquet, tables/    made from the above, again after each trial
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
from vwl.tuning.space import Setting, Space, space_from, with_keys
from vwl.tuning.trials import Trial

_THRESHOLDS = ("cam", "walk")


class Entry(NamedTuple):
    """A cell of the plan: which setting and seed a trial stands for in a search."""

    setting: Setting
    seed: int
    trial: Trial


@dataclass(frozen=True)
class Search:
    """What is searched.

    Attributes:
        space: the settings.
        recipe: what they are applied to.
        index_path: the data set; its fingerprint.
        seeds: of each setting.
        samples: keys of the settings that a sampled search has drawn so far.
    """

    space: Space
    recipe: Recipe
    index_path: str
    index_fingerprint: str
    seeds: tuple[int, ...]
    samples: tuple[dict[str, Any], ...] = field(default=())

    @classmethod
    def plan(cls, space: Space, recipe: Recipe, index: Index, index_path: str, num_seeds: int, threshold: str = "auto") -> "Search":
        """Return a search; `threshold`: where each trial's background comes from, `auto`, `auto-by-class`, `recipe` or a number.

        Raises:
            VwlError: the threshold is none, the recipe scores an unknown class, or there is no ground truth.
        """
        if threshold != "recipe":
            try:
                wanted: str | float = threshold if threshold in {"auto", "auto-by-class"} else float(threshold)
            except ValueError:
                raise VwlError(f"the threshold {threshold} is neither auto, auto-by-class, recipe nor a number") from None
            keys: dict[str, Any] = {f"{stage}.background_threshold": wanted for stage in _THRESHOLDS}
            if space.stage == "crf":
                keys["crf.background"] = "auto"  # which is cam's
            recipe = with_keys(recipe, keys, "threshold")
        index.class_ids(recipe.evaluation.classes or ())
        if not any(row.mask is not None and row.labels and row.split in {"train", "val"} for row in index.rows):
            raise VwlError(f"{index_path} has no ground truth in train or val: trials could not be compared")
        seeds = tuple(range(recipe.seed, recipe.seed + num_seeds))
        return cls(space, recipe, index_path, index.fingerprint(), seeds)

    @classmethod
    def read(cls, root: Folder, name: str) -> "Search":
        """Read a stored search."""
        found = (root / "searches").read_json(f"{name}.json")
        source = f"{root}/searches/{name}.json"
        return cls(
            space_from(found["space"], source),
            recipe_from(found["recipe"], source),
            found["index"],
            found["index_fingerprint"],
            tuple(found["seeds"]),
            tuple(found["samples"]),
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
        """Return this search with what the folder holds of it: all seeds and the samples that were drawn.

        Raises:
            VwlError: the folder holds searches on another data set, or this space with another recipe or without settings that it
                had: their trials would be in no table.
        """
        for name in stored_searches(root):
            other = Search.read(root, name)
            if other.index_fingerprint != self.index_fingerprint:
                raise VwlError(f"{root} holds searches on another data set ({other.index_path}); use another --run folder")
        if self.space.name not in stored_searches(root):
            return self
        other = Search.read(root, self.space.name)
        changed = differences(other.recipe, self.recipe)
        if changed:
            raise VwlError(f"{root} holds {self.space.name} of another recipe ({', '.join(changed[:3])}); use another --run folder")
        field = other.space.field_lost_in(self.space)
        if field is not None:
            raise VwlError(f"{root} holds {self.space.name} with other {field}; give the file another name or use another --run folder")
        return replace(self, seeds=tuple(sorted({*self.seeds, *other.seeds})), samples=other.samples)

    def entries(self) -> list[Entry]:
        """Return every setting with every seed, the first seed of all settings first; of a sampled search the samples so far."""
        if self.space.strategy == "search":
            return [entry for seed in self.seeds for n, keys in enumerate(self.samples, 1) for entry in self.entries_of(keys, n, (seed,))]
        return [Entry(setting, seed, self.trial(setting.overrides, seed)) for seed in self.seeds for setting in self.space.settings()]

    def entries_of(self, keys: dict[str, Any], number: int, seeds: Sequence[int]) -> list[Entry]:
        """Return a sample as a setting, labelled by its place in the search, with some seeds."""
        setting = Setting(f"sample {number}", keys)
        return [Entry(setting, seed, self.trial({**self.space.base, **keys}, seed)) for seed in seeds]

    def trial(self, keys: dict[str, Any], seed: int) -> Trial:
        """Return the trial of some keys and a seed."""
        recipe = with_keys(self.recipe, {**keys, "seed": seed}, f"space {self.space.name}")
        return Trial(recipe, self.space.stage)


def stored_searches(root: Folder) -> list[str]:
    """Return the names of the searches that a folder holds."""
    return [name.removesuffix(".json") for name in (root / "searches").names(".json")]


def open_searches(root: Folder, space: str | None = None, index_path: str | None = None) -> list[Search]:
    """Return a folder's searches, or the one of a space; `index_path`: where their data set is now.

    Raises:
        VwlError: there is none.
    """
    names = stored_searches(root)
    if not names:
        raise VwlError(f"{root} holds no search; start one with: vwl tune SPACE --data INDEX --run {root}")
    if space is not None and space not in names:
        raise VwlError(f"{root} holds no search of the space {space}; it holds {', '.join(names)}")
    found = [Search.read(root, name) for name in names if space in {None, name}]
    return found if index_path is None else [replace(search, index_path=index_path) for search in found]


def groups(entries: Sequence[Entry], index_fingerprint: str) -> Iterator[tuple[Trial, ...]]:
    """Yield the distinct trials, those together that share their first training."""
    found: dict[str, dict[str, Trial]] = {}
    for entry in entries:
        recipe = entry.trial.recipe
        shared = fingerprint([recipe.classifier.model_dump(mode="json"), recipe.seed, index_fingerprint])
        found.setdefault(shared, {})[entry.trial.id] = entry.trial
    for trials in found.values():
        yield tuple(trials.values())
