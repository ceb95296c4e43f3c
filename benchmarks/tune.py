"""Searches: two trials at a time against one after the other, and the share of Ray in a trial's time.

The same search of short trainings on generated scenes (EfficientNet-Lite0, memory bank, one CPU a trial), once with each number of
trials at a time, in fresh folders. Parity: every trial has the same scores in both. Process starts are most of a short trial's
time, so times on a busy machine are meaningless; the load is printed beside them.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

from _paired import Line, show
from rich.console import Console
from rich.table import Table

from vwl.config.files import load_recipe
from vwl.config.layout import Layout
from vwl.data.index import Index, write_index
from vwl.data.scenes import prepare_scenes
from vwl.engine import tune
from vwl.storage.folder import Folder
from vwl.tuning.results import Row, trial_rows
from vwl.tuning.runner import TuneResources, run_search
from vwl.tuning.search import Search
from vwl.tuning.space import space_from

KEYS = ["classifier.crop=160", "classifier.resize=[160,224]", "classifier.batch_size=8", "cam.long_side=224", "cam.scales=[1.0]"]

MOST = 0.65
"""Largest share of the time of one trial after the other."""


class Silent:
    """A view that shows nothing."""

    def show_trial(self, name: str, state: str, text: str = "", done: int = 0, total: int = 0) -> None:
        """Show nothing."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=8)
    parser.add_argument("--steps", type=int, default=30)
    options = parser.parse_args()
    values = [16 * (number + 1) for number in range(options.trials)]
    space = space_from({"name": "words", "title": "Words", "parameter": "classifier.codebook.num_codewords", "values": values}, "benchmark")
    recipe = load_recipe("demo", [*KEYS, "classifier.epochs=1"])
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        index, _ = prepare_scenes(folder / "scenes", num_train=options.steps * recipe.classifier.batch_size, num_val=16)
        write_index(index, folder / "index.parquet")
        search = Search.plan(space, recipe, index, str(folder / "index.parquet"), num_seeds=1)
        found = {number: measure(search, index, folder, number) for number in (1, 2)}
    print_details(options.trials, found)
    scores = [[(row["trial"], row["train_miou"], row["val_miou"]) for row in rows] for _, rows, _ in found.values()]
    same = scores[0] == scores[1]
    one, two = (seconds for seconds, _, _ in found.values())
    what = f"search of {options.trials} trials on 2 CPUs: one at a time, two"
    parity = "scores equal" if same else "scores NOT equal"
    show("Searches", [Line(what, f"{one:.0f} s", f"{two:.0f} s", one / two, f"{1 / MOST:.2f}", parity)], same)


def measure(search: Search, index: Index, folder: Path, concurrent: int) -> tuple[float, list[Row], float]:
    """Run the search; return its seconds, the trials' rows and the load of the machine."""
    root = Folder(folder / f"at-a-time-{concurrent}")
    with tune.tune_session(None, cpus=2):
        began = time.monotonic()
        run_search(search, root, TuneResources(Layout(), concurrent), Silent(), lambda line: None, lambda: None)
        seconds = time.monotonic() - began
    return seconds, trial_rows(root, [search]), os.getloadavg()[1]


def print_details(trials: int, found: dict[int, tuple[float, list[Row], float]]) -> None:
    """Print the times of each number of trials at a time."""
    table = Table(title=f"{trials} trials on 2 CPUs, {os.cpu_count()} in the machine")
    for column in ("trials at a time", "seconds", "share", "seconds a trial", "of it training", "of it maps", "load (5 min)"):
        table.add_column(column, justify="right")
    for number, (seconds, rows, load) in found.items():
        stages = [dict(row["stage_seconds"]) for row in rows]
        means = [sum(stage[name] for stage in stages) / len(rows) for name in ("classifier", "cam")]
        each = [f"{value:.1f}" for value in (sum(row["seconds"] for row in rows) / len(rows), *means)]
        table.add_row(str(number), f"{seconds:.0f}", f"{seconds / found[1][0]:.2f}", *each, f"{load:.1f}")
    Console(width=120).print(table)


if __name__ == "__main__":
    main()
