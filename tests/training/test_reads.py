"""Losses are read on the host every few steps: nothing but the time changes, and nothing in a step waits for a GPU."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from tests.training.test_loop import FLOAT64, Slope, run, stop_before
from tests.trainings import KINDS, make_data, metrics, tiny_spec
from vwl.config.layout import Layout
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.training import checkpoint, loop
from vwl.training.build import build_task
from vwl.training.loader import stacked
from vwl.training.loop import Callbacks
from vwl.training.numerics import Numerics, arithmetic, numerics_of
from vwl.training.schedule import Schedule
from vwl.training.task import Sample


class Long(Slope):
    """Ten steps that are one epoch."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 1


@pytest.mark.parametrize("sync_steps", [2, 3, 10, 1000])
def test_lines_progress_and_weights_are_those_of_reading_each_step(tmp_path, monkeypatch, sync_steps):
    monkeypatch.setattr(loop, "LOG_EVERY", 5)
    calls: dict[int, list[Any]] = {}
    for number in (1, sync_steps):
        seen = calls.setdefault(number, [])
        on_step = Callbacks(on_step=lambda step, total, found, seen=seen: seen.append((step, total, found.get("step"), found.get("loss"))))
        run(tmp_path / str(number), Long(), on_step, sync_steps=number, checkpoint_steps=7)
    assert [step for step, *_ in calls[1]] == list(range(11))
    assert calls[sync_steps] == calls[1]
    assert metrics(tmp_path / str(sync_steps)) == metrics(tmp_path / "1")


@pytest.mark.parametrize("bad", [2, 3, 4])
def test_a_loss_that_is_not_finite_is_found_in_its_step_and_leaves_no_checkpoint(tmp_path, bad):
    class NotANumber(Long):
        def __init__(self) -> None:
            super().__init__()
            self.step = 0

        def losses(self, *arguments: Any, **named: Any) -> dict[str, torch.Tensor]:
            self.step += 1
            terms = super().losses(*arguments, **named)
            return {**terms, "height": terms["height"] * (float("nan") if self.step == bad else 1)}

    with pytest.raises(VwlError, match=rf"not finite at step {bad} \(height nan"):
        run(tmp_path, NotANumber(), sync_steps=100, checkpoint_steps=5)
    assert checkpoint.steps(Folder(tmp_path) / "checkpoints") == []


def test_a_stop_request_is_read_with_the_losses(tmp_path):
    result = run(tmp_path, Long(), stop_before(1), sync_steps=4)
    assert (result.finished, result.step) == (False, 4)
    assert checkpoint.steps(Folder(tmp_path) / "checkpoints") == [4]


def test_losses_are_read_before_anything_is_written():
    schedule = Schedule(num_steps=23, epoch_steps=7, checkpoint_steps=6, read_steps=100, log_steps=10)
    assert [step for step in range(1, 24) if schedule.reads_losses(step)] == [6, 7, 10, 12, 14, 18, 20, 21, 23]


WAITS = {"_local_scalar_dense", "nonzero", "bincount", "masked_select", "_unique2", "repeat_interleave", "equal"}
"""Operators whose result's size or value the host must know."""


class HostReads(TorchDispatchMode):
    """Collects the operators that make the host wait for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        by_mask = name.startswith("index") and any(
            isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8)
            for group in args[1:]
            for index in (group if isinstance(group, list | tuple) else [group])
        )
        if name in WAITS or by_mask:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("reads"), num_val=0)


@pytest.mark.parametrize("kind", KINDS)
def test_nothing_in_a_step_waits_for_the_device(index_path, tmp_path, kind):
    task = build_task(tiny_spec(kind, index_path, tmp_path))
    batch: Sample = stacked([task.sample(number, 0) for number in range(2)], torch.float32)
    with HostReads() as reads:
        terms = task.losses(task.model, batch, task.counts(batch), part=1.0)
        task.start_codebook_reduce()
        torch.stack([*terms.values()]).sum().backward()
        task.update_codebook()
    assert reads.found == []


def test_a_read_on_the_host_would_be_noticed():
    with HostReads() as reads:
        values = torch.arange(4.0)
        values.sum().item()
        values[values > 1]
        torch.bincount(values.long())
    assert reads.found == ["_local_scalar_dense", "index", "bincount"]


class Watching(Slope):
    """Notes the settings of each step."""

    def losses(self, *arguments: Any, **named: Any) -> dict[str, torch.Tensor]:
        self.flags = flags()
        return super().losses(*arguments, **named)


def flags() -> tuple[bool, ...]:
    cudnn = torch.backends.cudnn
    return cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32, cudnn.benchmark, cudnn.deterministic


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        ({}, (True, False, False, False)),
        ({"tf32": "none", "cudnn": "deterministic"}, (False, False, False, True)),
        ({"tf32": "all", "cudnn": "benchmark"}, (True, True, True, False)),
    ],
)
def test_arithmetic_is_set_while_a_training_runs_and_stated(tmp_path, layout, expected):
    before, task = flags(), Watching(num_steps=1)
    result = run(tmp_path, task, **layout)
    assert task.flags == expected
    assert flags() == before == (True, False, False, False)
    assert result.numerics == Numerics(precision="float64", **layout)


def test_the_default_arithmetic_is_that_of_torch():
    before = flags()
    with arithmetic(Numerics()):
        assert flags() == before
    assert numerics_of(Layout(precision="float64"), torch.device("cpu")) == FLOAT64


@pytest.mark.parametrize(
    ("layout", "line"), [({"tf32": "some"}, "tf32 = 'some' is none of none, convolutions, all"), ({"cudnn": ""}, "cudnn = ''")]
)
def test_a_setting_that_does_not_exist_is_refused(tmp_path, layout, line):
    with pytest.raises(VwlError, match=line):
        run(tmp_path / "run", **layout)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("kind", KINDS)
def test_on_a_gpu_nothing_between_two_reads_waits_for_it(index_path, tmp_path, kind):
    torch.cuda.set_sync_debug_mode("error")
    try:
        task = build_task(tiny_spec(kind, index_path, tmp_path))
        trainer = loop._Trainer(task, Layout(gpus_per_worker=1), Folder(tmp_path), kind)
        trainer.samples = iter(list(loop.read_ahead(task, trainer.reading())))
        trainer.step = 1  # a memory bank is filled before the first step
        trainer.one_step()
    finally:
        torch.cuda.set_sync_debug_mode("default")
