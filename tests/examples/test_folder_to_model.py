"""The example goes from a folder of images and labels to masks and a model, as a script and as a notebook, without Ray."""

import csv
import json
import subprocess
import sys
from ast import literal_eval
from pathlib import Path

import pytest

import vwl
from tests.conftest import TINY
from tests.helpers import tiny_scenes

EXAMPLES = Path(__file__).parents[2] / "examples"
pytestmark = pytest.mark.slow


@pytest.fixture
def labelled(tmp_path) -> Path:
    """A folder `images` and `labels.csv`, without a split."""
    index = tiny_scenes(tmp_path / "scenes", 10, 0)
    with (tmp_path / "labels.csv").open("w", newline="") as file:
        lines = csv.writer(file)
        lines.writerow(["image", "labels"])
        lines.writerows([Path(row.image).name, ";".join(index.classes[label] for label in row.labels)] for row in index.rows)
    (tmp_path / "scenes/images").rename(tmp_path / "images")
    return tmp_path


def test_the_script_has_at_most_12_lines():
    assert len((EXAMPLES / "folder_to_model.py").read_text().splitlines()) <= 12


def test_the_script_ends_with_masks_and_a_loaded_model_without_ray(labelled):
    out = labelled / "run"
    code = f"import runpy, sys; sys.modules['ray'] = None; runpy.run_path({str(EXAMPLES / 'folder_to_model.py')!r}, run_name='__main__')"
    words = [labelled / "images", labelled / "labels.csv", out, *TINY]
    done = subprocess.run([sys.executable, "-c", code, *map(str, words)], capture_output=True, text=True, check=False, cwd=labelled)
    assert done.returncode == 0, done.stderr
    *progress, masks, classes = done.stdout.splitlines()
    assert progress[0].startswith("classifier 0/")
    result = vwl.open_run(out)
    assert masks == str({image_id: mask.shape for image_id, mask in result.masks.items()})
    (first, *_), model = result.index.rows, result.model()
    assert classes == str(model.predict(result.index.read_image(first)).classes)
    assert {line.state for line in result.status} == {"done"}


def test_the_notebook_runs_from_its_first_cell_to_its_last(tmp_path, monkeypatch):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("PYTHONPATH", str(EXAMPLES.parent))
    notebook = nbformat.read(EXAMPLES / "folder_to_model.ipynb", as_version=4)
    (place,) = (n for n, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    smaller = f"num_images = 8\noverrides = {json.dumps(TINY)}"
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(smaller))
    nbclient.NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    printed = ["".join(out.text for out in cell.get("outputs", ()) if out.get("name") == "stdout") for cell in notebook.cells]
    (stopped,) = (text for text in printed if text.startswith("stopped\n"))
    states = dict(line.split(maxsplit=1) for line in stopped.splitlines()[1:])
    assert (states["classifier"], states["segment"]) == ("done", "not started")
    assert any(set(literal_eval(text)) == {"irnet", "segmenter"} for text in printed if text.startswith("{"))
    assert "image/png" in notebook.cells[-1].outputs[-1].data
    assert {line.state for line in vwl.open_run(tmp_path / "folder-to-model/run").status} == {"done"}
