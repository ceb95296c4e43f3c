"""Small data for the tests: where the real photographs are, and tiny data sets."""

import os
from pathlib import Path

import pytest

from vwl.data.index import Index
from vwl.data.scenes import prepare_scenes


def real_data(name: str) -> Path:
    """Return the folder of a real data set (`voc12mini`, `coco14mini`, `lists`); skip the test where it is absent."""
    base = Path(os.environ.get("VWL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not (base / name).is_dir():
        pytest.skip(f"needs the data set {name}")
    return base / name


def tiny_scenes(folder: Path, num_train: int = 6, num_val: int = 3) -> Index:
    """Draw tiny scenes (64 to 96 pixels, two classes, with masks) into a folder and return their index."""
    return prepare_scenes(folder, num_train, num_val, heights=(64, 80), widths=(72, 96), num_classes=2)[0]
