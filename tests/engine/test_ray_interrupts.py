"""The command on Ray: interrupted, terminated and killed in training and inference, it ends with the bytes of an undisturbed run."""

import signal
import time
from pathlib import Path

import pytest

from tests.drills import results, run_with_signals
from tests.helpers import tiny_scenes
from vwl.data.index import write_index

SIGNALS = {"classifier": signal.SIGTERM, "cam": signal.SIGKILL, "irnet-labels": signal.SIGINT, "segmenter": signal.SIGKILL}


def ray_processes_of(folder: Path) -> list[str]:
    """Command lines of living processes that were started with RAY_TMPDIR in this folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if f"RAY_TMPDIR={folder}" in (process / "environ").read_text(errors="replace"):
                found.append((process / "cmdline").read_text(errors="replace"))
        except OSError:
            continue
    return found


@pytest.mark.ray
@pytest.mark.drill
@pytest.mark.timeout(1200)
def test_a_run_on_ray_that_is_interrupted_and_killed_ends_like_an_undisturbed_one(tmp_path, monkeypatch):
    short = Path("/tmp") / f"vwl-{tmp_path.name[-20:]}-{time.time_ns() % 10**6}"  # Ray's sockets need a short path
    short.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(short))
    write_index(tiny_scenes(tmp_path / "scenes", num_train=36, num_val=6), tmp_path / "index.parquet")
    undisturbed = run_with_signals(tmp_path / "index.parquet", tmp_path / "undisturbed", "ray", {})
    assert undisturbed.codes == [0], undisturbed.outputs
    drill = run_with_signals(tmp_path / "index.parquet", tmp_path / "disturbed", "ray", SIGNALS)
    assert drill.starts == len(SIGNALS) + 1
    ours, theirs = results(tmp_path / "disturbed"), results(tmp_path / "undisturbed")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    polite = [output for code, output in zip(drill.codes, drill.outputs, strict=True) if code == 130]
    assert polite
    assert all("Traceback" not in output for output in polite)
    deadline = time.monotonic() + 60
    while ray_processes_of(short) and time.monotonic() < deadline:
        time.sleep(1)
    assert ray_processes_of(short) == []
