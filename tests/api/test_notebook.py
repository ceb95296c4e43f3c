"""In a notebook: interrupting a cell saves the run, and the same cell goes on with it."""

import os
from pathlib import Path

import pytest

import vwl
from tests.conftest import TINY
from tests.helpers import tiny_scenes


@pytest.mark.slow
def test_an_interrupted_cell_saves_and_the_same_cell_ends_the_run(tmp_path):
    pytest.importorskip("ipykernel")
    jupyter = pytest.importorskip("jupyter_client.manager")
    overrides = [*TINY, "classifier.epochs=4"]
    index = tiny_scenes(tmp_path / "scenes", 8, 2)
    vwl.write_index(index, tmp_path / "index.parquet")
    cell = f"""
import vwl
vwl.run("index.parquet", "demo", "run", overrides={overrides!r}, stages=["classifier"], backend="local", on_progress=print)
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    manager, client = jupyter.start_new_kernel(cwd=str(tmp_path), env=environment)
    printed: list[str] = []

    def interrupt(message) -> None:
        if message["msg_type"] == "stream":
            printed.append(message["content"]["text"])
            if "classifier 1/8" in message["content"]["text"]:
                manager.interrupt_kernel()

    try:
        reply = client.execute_interactive(cell, output_hook=interrupt, timeout=300)
        assert (reply["content"]["status"], reply["content"]["ename"]) == ("error", "Interrupted")
        status = vwl.open_run(tmp_path / "run").status[0]
        assert status.state == "interrupted"
        (saved,) = (tmp_path / "run/classifier/checkpoints").iterdir()
        assert 1 <= int(saved.stem.removeprefix("step-")) < 8
        printed.clear()
        reply = client.execute_interactive(cell, output_hook=interrupt, timeout=300)
        assert reply["content"]["status"] == "ok"
        assert printed[0].startswith(f"classifier {int(saved.stem.removeprefix('step-')) + 1}/8")
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert vwl.open_run(tmp_path / "run").status[0].state == "done"
