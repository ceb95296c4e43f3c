"""Small data for the tests: where the real photographs are, and tiny data sets."""

import os
from pathlib import Path

import pytest


def real_data(name: str) -> Path:
    """Return the folder of a real data set (`voc12mini`, `coco14mini`, `lists`); skip the test where it is absent."""
    base = Path(os.environ.get("VWL_DATA", Path(__file__).resolve().parents[2] / "shared" / "data"))
    if not (base / name).is_dir():
        pytest.skip(f"needs the data set {name}")
    return base / name
