"""The answer does not depend on the layout: processes without Ray, in float64, against one process with the whole batch."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.training.worker import run_layouts
from tests.trainings import BATCH, KINDS, make_data, metrics, tiny_spec, train_to_end, weights
from vwl.config.layout import Layout
from vwl.errors import VwlError
from vwl.training.distributed import PendingSum, all_reduce

STEPS = 6


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with every kind of training in four layouts: one worker in this process, two workers in processes of their own."""
    folder = tmp_path_factory.mktemp("layouts")
    index_path = make_data(folder)
    command = [sys.executable, "-m", "tests.training.worker", str(index_path), str(folder)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    root = Path(__file__).parents[2]
    workers = [
        subprocess.Popen([*command, str(rank), "2", str(STEPS)], cwd=root, env=environment, stderr=subprocess.PIPE, text=True)
        for rank in range(2)
    ]
    try:
        run_layouts(index_path, folder, 1, (BATCH, 1), STEPS)
        train_to_end(tiny_spec("classifier-M", index_path, folder / "whole", STEPS), log_every=4)
        for worker in workers:
            _, errors = worker.communicate(timeout=500)
            assert worker.returncode == 0, errors
    finally:
        for worker in workers:
            worker.kill()
    return folder


def assert_same_training(one: Path, other: Path) -> None:
    lines, others = metrics(one), metrics(other)
    assert len(lines) == len(others) >= STEPS
    for line, expected in zip(lines, others, strict=True):
        assert line == pytest.approx(expected, rel=1e-9)
    state, expected_state = weights(one), weights(other)
    assert state.keys() == expected_state.keys()
    for name, value in state.items():
        torch.testing.assert_close(value, expected_state[name], rtol=1e-9, atol=1e-12, msg=lambda text, name=name: f"{name}: {text}")


@pytest.mark.parametrize("layout", ["1x1", "2x2", "2x1"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_gives_the_losses_scores_and_weights_of_one_worker_with_the_whole_batch(trained, kind, layout):
    assert_same_training(trained / f"{kind}-{layout}", trained / f"{kind}-1x{BATCH}")


@pytest.mark.parametrize("kind", KINDS)
def test_both_workers_end_with_the_same_bits(trained, kind):
    first, second = (torch.load(trained / f"{kind}-2x2" / f"rank-{rank}.pt", weights_only=True) for rank in range(2))
    assert all(torch.equal(value, second[name]) for name, value in first.items())


@pytest.mark.parametrize("kind", KINDS)
def test_the_trainings_compared_do_learn(trained, kind):
    start, end = (line for line in metrics(trained / f"{kind}-1x{BATCH}") if line["step"] in {1, STEPS} and "loss" in line)
    assert start["loss"] != pytest.approx(end["loss"], rel=1e-3)


def test_a_memory_bank_that_is_not_summed_over_workers_gives_other_codewords(trained):
    not_summed, whole = trained / "bank-not-summed", trained / f"classifier-M-1x{BATCH}"
    assert metrics(not_summed)[0]["loss"] == pytest.approx(metrics(whole)[0]["loss"], rel=1e-9)
    assert not torch.allclose(weights(not_summed)["codebook.codewords"], weights(whole)["codebook.codewords"], rtol=1e-3)
    with pytest.raises(AssertionError):
        assert_same_training(not_summed, whole)


def test_usage_counted_before_an_interruption_is_counted_once(trained):
    lines, expected = metrics(trained / "resumed"), metrics(trained / "whole")
    assert [line["step"] for line in lines if "loss" in line] == [4, STEPS]
    for line, wanted in zip(lines, expected, strict=True):
        assert line == pytest.approx(wanted, rel=1e-9)


def test_outside_a_process_group_a_sum_is_the_value_itself():
    values = torch.tensor([1.0, 2.0])
    assert all_reduce(values) is values
    assert torch.equal(PendingSum(values).result(), torch.tensor([1.0, 2.0]))


@pytest.mark.parametrize(
    ("layout", "batch_size", "pieces"),
    [
        (Layout(), 16, (4, 4)),
        (Layout(workers=2), 16, (4, 2)),
        (Layout(workers=2, micro_batch=8), 16, (8, 1)),
        (Layout(), 10, (5, 2)),
        (Layout(), 7, (1, 7)),
        (Layout(gpus_per_worker=1), 16, (16, 1)),
        (Layout(micro_batch=2), 6, (2, 3)),
    ],
)
def test_micro_batches_of_all_workers_make_up_the_global_batch(layout, batch_size, pieces):
    assert layout.split_batch(batch_size) == pieces
    assert pieces[0] * pieces[1] * layout.workers == batch_size


def test_a_batch_that_workers_cannot_share_is_refused_with_the_numbers_that_can():
    with pytest.raises(VwlError, match=r"batch of 6 does not divide among 4 workers; use one of \[1, 2, 3, 6\]"):
        Layout(workers=4).split_batch(6)


def test_an_elastic_layout_is_refused_at_either_end():
    assert Layout(workers=4, min_workers=2).split_batch(8) == (2, 1)
    for layout in (Layout(workers=4, min_workers=3), Layout(workers=5, min_workers=2)):
        with pytest.raises(VwlError, match=r"batch of 8 does not divide among [35] workers"):
            layout.split_batch(8)


@pytest.mark.parametrize(
    ("layout", "batch_size", "fitting"),
    [
        (Layout(workers=4), 16, Layout(workers=4)),
        (Layout(workers=4, precision="bf16"), 10, Layout(workers=2, precision="bf16")),
        (Layout(workers=8), 10, Layout(workers=5)),
        (Layout(workers=8, min_workers=3), 10, Layout(workers=5, min_workers=2)),
        (Layout(workers=64), 16, Layout(workers=16)),
    ],
)
def test_as_many_workers_as_share_a_batch_can_be_taken(layout, batch_size, fitting):
    assert layout.fit_to_batch(batch_size) == fitting
    fitting.split_batch(batch_size)


@pytest.mark.parametrize(("layout", "now", "images"), [(Layout(workers=4, min_workers=2), 3, 5), (Layout(workers=4, micro_batch=2), 3, 2)])
def test_between_its_ends_an_elastic_layout_still_has_a_micro_batch(layout, now, images):
    assert layout.micro_batch_size(16, now) == images


def test_a_micro_batch_that_does_not_divide_a_workers_share_is_refused():
    with pytest.raises(VwlError, match="share of 8 images does not divide into micro-batches of 3"):
        Layout(workers=2, micro_batch=3).split_batch(16)
