"""Helpers of the workflow's tests: running stages in this process on copies of a small run."""

import shutil
from pathlib import Path

from tests.conftest import TINY
from vwl.config.files import load_recipe, overridden
from vwl.config.layout import Layout
from vwl.data.index import Index, write_index
from vwl.engine import local
from vwl.engine.base import Engine
from vwl.workflow.pipeline import run_stages
from vwl.workflow.run_folder import Run

OTSU = "auto (Otsu, no ground truth)"


def run_locally(run: Run, *names: str, remarks: bool = False) -> list[str]:
    """Run stages in this process and return the messages; `remarks`: also that on a class which all of a few scenes show by chance."""
    messages: list[str] = []
    run_stages(run, names, Engine(local, local), Layout(), lambda progress: None, messages.append)
    return messages if remarks else without_remarks(messages)


def without_remarks(messages: list[str]) -> list[str]:
    return [line for line in messages if "nothing tells the object from its surroundings" not in line]


def new_run(folder: Path, index: Index, *overrides: str) -> Run:
    write_index(index, folder / "index.parquet")
    return Run.start(str(folder / "run"), load_recipe("demo", [*TINY, *overrides]), str(folder / "index.parquet"))


def changed(run: Run, *overrides: str) -> Run:
    return Run.start(str(run.folder), overridden(run.recipe, overrides), run.index_path, overwrite=True)


def delete_stages(run: Run, *names: str) -> None:
    for name in names:
        shutil.rmtree(Path(run.folder.path, name))


def modification_times(run: Run, *patterns: str) -> dict[Path, int]:
    """Return the modification time of each file."""
    return {path: path.stat().st_mtime_ns for pattern in patterns for path in Path(run.folder.path).glob(pattern)}
