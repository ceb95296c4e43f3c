"""Loader processes give the batches of threads, also when started in the middle; their mistakes, deaths and ends are those of one process."""

import os
import signal
import subprocess
import sys
from multiprocessing import active_children
from pathlib import Path

import pytest
import torch

from tests.training.test_loop import Slope, run
from tests.trainings import make_data, metrics, tiny_spec, train_to_end, weights
from vwl.config.layout import Layout
from vwl.errors import VwlError
from vwl.training.build import build_task
from vwl.training.loader import Reading, read_ahead, without_networks
from vwl.training.loop import Callbacks

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("loader"), num_val=0)


def reading(first_step: int, processes: int, dtype: torch.dtype = torch.float32) -> Reading:
    return Reading(first_step, 2, processes, dtype, pinned=False)


def test_processes_read_the_batches_of_threads_from_any_step_on(index_path, tmp_path):
    task = build_task(tiny_spec("classifier-L", index_path, tmp_path, num_steps=5))
    by_threads = list(read_ahead(task, reading(0, 0)))
    by_processes = list(read_ahead(task, reading(2, 2)))
    assert [len(step) for step in by_threads] == [2] * 6
    for step, expected in zip(by_processes, by_threads[2:], strict=True):
        for batch, wanted in zip(step, expected, strict=True):
            assert batch.keys() == wanted.keys()
            assert all(torch.equal(batch[name], wanted[name]) for name in wanted)
            assert batch["images"].is_contiguous(memory_format=torch.channels_last)
            assert batch["images"].dtype == torch.float32
    assert active_children() == []


@pytest.mark.parametrize("kind", ["classifier-L", "irnet", "psa", "segmenter"])
def test_what_is_sent_to_processes_reads_the_same_samples_without_a_network(index_path, tmp_path, kind):
    task = build_task(tiny_spec(kind, index_path, tmp_path))
    reader = without_networks(task)
    assert not [name for name, value in vars(reader).items() if isinstance(value, torch.nn.Module | torch.Tensor)]
    found, expected = reader.sample(3, 1), task.sample(3, 1)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_training_with_processes_stopped_midway_ends_with_the_bits_of_one_with_threads(index_path, tmp_path):
    layout = Layout(loader_workers=1, sync_steps=2)
    asked = iter(range(100))
    train_to_end(tiny_spec("segmenter", index_path, tmp_path / "threads"), Layout())
    _, result = train_to_end(tiny_spec("segmenter", index_path, tmp_path / "cut"), layout, Callbacks(should_stop=lambda: next(asked) == 2))
    assert not result.finished
    train_to_end(tiny_spec("segmenter", index_path, tmp_path / "cut"), layout)
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "threads")
    ours, theirs = weights(tmp_path / "cut"), weights(tmp_path / "threads")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    assert active_children() == []


@pytest.mark.parametrize("processes", [0, 1])
def test_an_image_that_cannot_be_read_is_the_same_line(tmp_path, processes):
    with pytest.raises(VwlError, match=r"^image image3 cannot be read$"):
        run(tmp_path, Slope(broken=("image3",)), loader_workers=processes)
    assert active_children() == []


def test_a_process_that_is_killed_is_a_line_that_says_what_to_do(tmp_path):
    def kill(step: int, num_steps: int, metrics: dict[str, float]) -> None:
        if step == 2:
            (process,) = active_children()
            os.kill(process.pid, signal.SIGKILL)

    with pytest.raises(VwlError, match=r"slope: a process that reads images was lost \(.*\); is there enough memory") as raised:
        run(tmp_path, Slope(num_steps=200), Callbacks(on_step=kill), loader_workers=1, checkpoint_steps=1)
    assert "\n" not in str(raised.value)
    assert "fewer --loader-workers" in str(raised.value)
    assert run(tmp_path, Slope(num_steps=200)).finished


INTERRUPTED = """
import sys
from pathlib import Path
from tests.trainings import tiny_spec
from vwl.config.layout import Layout
from vwl.engine import local
from vwl.errors import Interrupted
spec = tiny_spec("classifier-M", Path(sys.argv[1]), Path(sys.argv[2]), 4000)
try:
    local.fit(spec, Layout(loader_workers=2), lambda progress: print(progress.done, flush=True))
except Interrupted as error:
    print(error)
"""


def test_an_interrupt_of_the_whole_group_saves_and_leaves_no_process_and_no_traceback(index_path, tmp_path):
    command = [sys.executable, "-c", INTERRUPTED, str(index_path), str(tmp_path / "run")]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        assert process.stdout is not None
        while process.stdout.readline().strip() != "3":
            assert process.poll() is None
        os.killpg(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=300)  # to the end of the pipes, which every process of the group holds
    finally:
        process.kill()
    assert output.endswith("classifier stopped\n"), errors
    assert "Traceback" not in errors
    assert list((tmp_path / "run" / "checkpoints").iterdir())


@pytest.mark.parametrize(
    ("layout", "expected"),
    [
        (Layout(cpus_per_worker=8), (0, 1)),
        (Layout(cpus_per_worker=4, gpus_per_worker=1), (3, 10)),
        (Layout(cpus_per_worker=1, gpus_per_worker=1), (0, 10)),
        (Layout(cpus_per_worker=32, gpus_per_worker=1), (8, 10)),
        (Layout(gpus_per_worker=1, loader_workers=2, sync_steps=1), (2, 1)),
    ],
)
def test_loaders_and_reads_are_chosen_for_the_device_unless_set(layout, expected):
    assert (layout.num_loaders, layout.steps_between_reads) == expected
