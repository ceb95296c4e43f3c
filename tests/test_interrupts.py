"""A run that is interrupted in every stage, politely or not, ends with the numbers of one that was not."""

import signal
from pathlib import Path

import pytest
import torch

from tests.drills import results, run_with_signals
from tests.helpers import tiny_scenes
from tests.stages import STAGES
from vwl.data.index import write_index


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("interrupts")
    write_index(tiny_scenes(folder / "scenes", num_train=36, num_val=6), folder / "index.parquet")
    return folder / "index.parquet"


@pytest.fixture(scope="module")
def undisturbed(index) -> Path:
    run = index.parent / "undisturbed"
    drill = run_with_signals(index, run, "local", {})
    assert drill.codes == [0]
    return run


def assert_equal_runs(run: Path, other: Path) -> None:
    assert results(run).keys() == results(other).keys()
    different = [name for name, data in results(run).items() if data != results(other)[name]]
    assert not different
    for stage in ("classifier", "irnet", "segmenter"):
        ours, theirs = (torch.load(folder / stage / "weights.pt", weights_only=True)["model"] for folder in (run, other))
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
        assert (run / stage / "metrics.jsonl").read_text().count("\n") == (other / stage / "metrics.jsonl").read_text().count("\n")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("first", [signal.SIGINT, signal.SIGKILL])
def test_a_run_interrupted_in_every_stage_ends_like_an_undisturbed_one(index, undisturbed, first):
    second = signal.SIGKILL if first == signal.SIGINT else signal.SIGINT
    signals = {stage: (first, second)[number % 2] for number, stage in enumerate(STAGES)}
    run = index.parent / f"local-{first.name}"
    drill = run_with_signals(index, run, "local", signals)
    assert drill.starts == len(STAGES) + 1
    assert_equal_runs(run, undisturbed)
    polite = [output for code, output in zip(drill.codes, drill.outputs, strict=True) if code == 130]
    assert polite
    assert all("finished work is saved" in output and "Traceback" not in output for output in polite)
