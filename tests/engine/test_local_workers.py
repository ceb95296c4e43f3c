"""Without Ray, several processes of one machine: the losses of one worker, one line for each mistake and death, clean interrupts."""

import os
import signal
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from tests.trainings import make_data, metrics, tiny_spec, train_to_end, weights
from vwl.config.layout import Layout
from vwl.engine import local
from vwl.engine.base import Progress
from vwl.errors import Interrupted, VwlError

NUM_STEPS = 4
FLOAT64 = Layout(workers=2, micro_batch=2, precision="float64")


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("workers"), num_val=0)


@pytest.fixture(scope="module")
def of_one_worker(index_path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("one")
    train_to_end(tiny_spec("classifier-M", index_path, folder, NUM_STEPS), Layout(precision="float64"), log_every=10)
    return folder


def fit(index_path: Path, folder: Path, layout: Layout, on_progress=lambda progress: None):
    return local.fit(tiny_spec("classifier-M", index_path, folder, NUM_STEPS), layout, on_progress)


def assert_trained_like(folder: Path, other: Path) -> None:
    for line, expected in zip(metrics(folder), metrics(other), strict=True):
        assert line == pytest.approx(expected, rel=1e-9)
    ours, theirs = weights(folder), weights(other)
    for name, value in ours.items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-9, atol=1e-12)


def test_two_processes_with_loaders_of_their_own_give_the_losses_and_weights_of_one_worker(index_path, of_one_worker, tmp_path):
    seen: list[Progress] = []
    result = fit(index_path, tmp_path, replace(FLOAT64, loader_workers=1), seen.append)
    assert (result.finished, result.step) == (True, NUM_STEPS)
    assert [(progress.stage, progress.done, progress.total) for progress in seen] == [
        ("classifier", n, NUM_STEPS) for n in range(NUM_STEPS + 1)
    ]
    assert_trained_like(tmp_path, of_one_worker)
    assert active_children() == []


def test_an_interrupted_training_of_two_processes_is_saved_and_goes_on(index_path, of_one_worker, tmp_path):
    def interrupt(progress: Progress) -> None:
        if progress.done == 1:
            signal.raise_signal(signal.SIGINT)

    with pytest.raises(Interrupted, match="classifier stopped"):
        local.fit(tiny_spec("classifier-M", index_path, tmp_path / "long", 4000), FLOAT64, interrupt)
    assert list((tmp_path / "long" / "checkpoints").iterdir())
    assert not (tmp_path / "long" / "weights.pt").exists()
    assert active_children() == []


def test_a_worker_that_is_killed_ends_the_others_and_is_a_line(index_path, tmp_path):
    def kill(progress: Progress) -> None:
        if progress.done == 1:
            os.kill(max(child.pid for child in active_children()), signal.SIGKILL)

    with pytest.raises(
        VwlError, match=r"^classifier: worker [01] of 2 ended without a result \(exit code -9\); .*goes on from the last checkpoint$"
    ):
        local.fit(tiny_spec("classifier-M", index_path, tmp_path, 4000), FLOAT64, kill)
    assert active_children() == []


def test_a_mistake_in_a_worker_is_its_line(index_path, of_one_worker, tmp_path):
    spec = replace(tiny_spec("classifier-M", index_path, tmp_path, NUM_STEPS), index_path=str(tmp_path / "gone.parquet"))
    with pytest.raises(VwlError, match=r"gone\.parquet") as raised:
        local.fit(spec, FLOAT64, lambda progress: None)
    assert "\n" not in str(raised.value)


def test_gradients_added_in_bf16_are_near_those_in_float32_and_not_equal(index_path, of_one_worker, tmp_path):
    fit(index_path, tmp_path, replace(FLOAT64, precision="float32", gradient_reduce="bf16"))
    (half,), (full,) = ([line["loss"] for line in metrics(folder) if "loss" in line] for folder in (tmp_path, of_one_worker))
    assert half == pytest.approx(full, rel=0.02)
    assert half != pytest.approx(full, rel=1e-6)


@pytest.mark.parametrize(
    ("layout", "line"),
    [
        (Layout(workers=3), "batch of 4 does not divide among 3 workers"),
        (Layout(workers=4, min_workers=2), "elastic workers .* need --backend ray"),
    ],
)
def test_a_layout_that_does_not_fit_is_refused_before_a_process_starts(index_path, tmp_path, layout, line):
    with pytest.raises(VwlError, match=line):
        fit(index_path, tmp_path, layout)
    assert list(tmp_path.iterdir()) == []
