"""The notebook that compares poolings: it runs as it is in the repository, and its maps show what its text says."""

import json
import re
from pathlib import Path

import pytest

NOTEBOOK = Path(__file__).parents[2] / "examples/compare_pooling.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_finds_what_its_text_says(tmp_path, monkeypatch):
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    nbclient.NotebookClient(notebook, timeout=300, coalesce_streams=True, resources={"metadata": {"path": str(tmp_path)}}).execute()
    (printed,) = (text for text in printed_texts(notebook.cells) if text.startswith("pooling"))
    rows = {line[:20].strip(): [float(value) for value in line[20:].split()] for line in printed.splitlines()[1:]}
    assert set(rows) == {"GAP", "GMP", "hybrid, gamma = 0", "hybrid, gamma = 2", "hybrid, gamma = 4"}
    assert all(0 < miou <= best for _, miou, _, _, _, best in rows.values())


def test_the_table_in_the_repository_has_a_row_for_each_pooling():
    (table,) = (text for text in printed_texts(json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"]) if text.startswith("pooling"))
    assert len(table.splitlines()) == 6


def test_the_outputs_in_the_repository_are_of_its_code():
    cells = [cell for cell in json.loads(NOTEBOOK.read_text(encoding="utf-8"))["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert not re.search(r"/(?:tmp|work|home|root)/", NOTEBOOK.read_text(encoding="utf-8"))
    assert NOTEBOOK.stat().st_size < 400_000


def printed_texts(cells) -> list[str]:
    return ["".join(output["text"]) for cell in cells for output in cell.get("outputs", []) if output["output_type"] == "stream"]
