"""Small data for the tests: where the real images are, and tiny data sets."""

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from vwl.data.index import Index, make_index, write_index
from vwl.data.scenes import prepare_scenes

if TYPE_CHECKING:
    from vwl.workflow.run_folder import Run


def real_data(name: str) -> Path:
    """Return the folder of a real data set (`voc12mini`, `coco14mini`, `lists`); skip the test where it is absent."""
    base = Path(os.environ.get("VWL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not (base / name).is_dir():
        pytest.skip(f"needs the data set {name}")
    return base / name


def tiny_scenes(folder: Path, num_train: int = 6, num_val: int = 3) -> Index:
    """Draw tiny scenes (64 to 96 pixels, two classes, with masks) into a folder and return their index."""
    return prepare_scenes(folder, num_train, num_val, heights=(64, 80), widths=(72, 96), num_classes=2)[0]


def copy_run(run: "Run", folder: Path) -> "Run":
    """Copy a run and its scenes into a folder (`run`, `scenes`, `index.parquet`), to be changed; what is done stays done."""
    from vwl.workflow.run_folder import Run  # needs torch, which most users of this file do not

    source = Path(run.folder.path)
    shutil.copytree(source, folder / "run")
    shutil.copytree(run.index.root.path, folder / "scenes")
    write_index(make_index(run.index.rows, run.index.classes, folder / "scenes", run.index.source), folder / "index.parquet")
    return Run.start(str(folder / "run"), run.recipe, str(folder / "index.parquet"))


def truncate(index: Index, image_id: str) -> None:
    """Cut off the end of an image's file."""
    (row,) = (row for row in index.rows if row.image_id == image_id)
    path = Path(index.root.path, row.image)
    path.write_bytes(path.read_bytes()[:-200])
