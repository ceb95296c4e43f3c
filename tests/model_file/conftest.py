"""The tiny run's two model files, and its images."""

from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import vwl
from vwl.cli.main import app
from vwl.storage.masks import decode_mask


@pytest.fixture(scope="session")
def files(tiny_run, tmp_path_factory) -> Path:
    """A folder with nothing but the run's two model files."""
    folder = tmp_path_factory.mktemp("files")
    for stage in ("segmenter", "classifier"):
        words = ["export", "model", "--run", str(tiny_run.folder), "--stage", stage, "--out", f"{folder}/{stage}.safetensors"]
        assert CliRunner().invoke(app, words).exit_code == 0
    return folder


@pytest.fixture(scope="session")
def model(files):
    return vwl.load_model(files / "segmenter.safetensors")


def images_of(run) -> list[Path]:
    """The images that the run's segment stage has segmented."""
    rows = {row.image_id: row for row in run.index.rows}
    names = sorted(path.stem for path in Path(run.folder.path, "segment").glob("*.png"))
    return [Path(run.index.root.path, rows[name].image) for name in names]


def mask_in(path) -> np.ndarray:
    return decode_mask(Path(path).read_bytes(), str(path))
