"""Searches for the tests: rows of trials written by hand, and a search that is trained in this process."""

from pathlib import Path
from typing import Any

from tests.conftest import TINY
from tests.helpers import tiny_scenes
from vwl.config.files import load_recipe
from vwl.config.layout import Layout
from vwl.config.recipe import Recipe
from vwl.data.index import write_index
from vwl.engine import local
from vwl.engine.base import Engine
from vwl.engine.search_types import TrialEvent
from vwl.storage.folder import Folder
from vwl.tuning.results import Row
from vwl.tuning.search import Search
from vwl.tuning.space import Space, space_from
from vwl.tuning.trials import TrialGroup, run_trials

OTSU = "auto (Otsu, no ground truth)"


def space(**fields: Any) -> Space:
    values = {"title": "Number of words", "source": "Table 5 (a)", "parameter": "classifier.codebook.num_codewords", "symbol": "k"}
    return space_from({"name": "words", **values, "values": [8, 16], **fields}, "test")


def search_of(found: Space, seeds: int = 2, recipe: Recipe | None = None) -> Search:
    return Search(found, recipe or Recipe(name="tiny"), "index.parquet", "0" * 16, tuple(range(seeds)))


def rows_of(search: Search, scores: dict[tuple[str, int], tuple[float, float] | str]) -> list[Row]:
    """Return rows of trials with (train, val) mIoU by setting and seed; a text is the reason of a failure; others are unfinished."""
    rows: dict[str, Row] = {}
    for entry in search.entries():
        found = scores.get((entry.setting.label, entry.seed))
        row: Row = {"trial": entry.trial.id, "seed": entry.seed, "state": "unfinished", "reason": "", "in": []}
        if isinstance(found, str):
            row |= {"state": "failed", "reason": found}
        elif found is not None:
            row["state"] = "done"
            for split, score in zip(("train", "val"), found, strict=True):
                row |= {
                    f"{split}_miou": score,
                    f"{split}_best_miou_with_ground_truth": score + 1,
                    f"{split}_object_precision": score - 3,
                    f"{split}_object_recall": score + 5,
                    f"{split}_threshold_chosen": OTSU,
                }
        rows[entry.trial.id] = row
    return list(rows.values())


def tiny_index(folder: Path) -> str:
    path = str(folder / "index.parquet")
    write_index(tiny_scenes(folder / "scenes", 8, 4), path)
    return path


def tiny_recipe(*overrides: str) -> Recipe:
    return load_recipe("demo", [*TINY, "classifier.backbone.name=timm:test_resnet", *overrides])


class CountingEngine:
    """Trains and infers in this process, and remembers which trials were trained and which stages ran."""

    def __init__(self) -> None:
        self.trained: list[str] = []
        self.mapped: list[str] = []

    def fit(self, spec: Any, layout: Layout, report: Any) -> dict[str, Any]:
        self.trained.append(spec.folder.uri.split("/")[-2])
        return local.fit(spec, layout, report)

    def run_shards(self, spec: Any, shards: list[Any], images_done: int, on_progress: Any, max_processes: int | None = None) -> None:
        self.mapped.append(spec.stage)
        local.run_shards(spec, shards, images_done, on_progress, max_processes)

    split_processes = staticmethod(local.split_processes)


def run_here(search: Search, root: Folder, may_stop: bool = False) -> tuple[CountingEngine, list[TrialEvent]]:
    """Run a search's trials in this process; return the engine and the events."""
    engine, events = CountingEngine(), []
    search.write(root)
    trials = tuple({entry.trial.id: entry.trial for entry in search.entries()}.values())
    group = TrialGroup(trials, root, search.index_path, Layout(), may_stop)
    run_trials(group, Engine(engine, engine), events.append)
    return engine, events
