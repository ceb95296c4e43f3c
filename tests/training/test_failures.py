"""A training that is killed while it writes a checkpoint, and one whose disk is full: the checkpoint before is used, nothing is lost."""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.trainings import make_data, metrics, tiny_spec, train_to_end, weights
from vwl.config.layout import Layout
from vwl.errors import VwlError
from vwl.training import checkpoint

STEPS = 8
LAYOUT = Layout(precision="float64", checkpoint_steps=1)


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("failures"), num_val=0)


@pytest.fixture(scope="module")
def undisturbed(index_path, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("undisturbed")
    train_to_end(tiny_spec("classifier-M", index_path, folder, STEPS), LAYOUT)
    return folder


def assert_same(folder: Path, undisturbed: Path) -> None:
    assert all(torch.equal(value, weights(undisturbed)[name]) for name, value in weights(folder).items())
    assert metrics(folder) == metrics(undisturbed)


def kill_while_writing(index_path: Path, folder: Path) -> bool:
    """Start a training and kill it when the temporary file of its third checkpoint is there; return whether that file is left."""
    code = (
        "import sys; from pathlib import Path; from tests.training.test_failures import *\n"
        "train_to_end(tiny_spec('classifier-M', Path(sys.argv[1]), Path(sys.argv[2]), STEPS), LAYOUT)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(index_path), str(folder)], cwd=Path(__file__).parents[2])
    try:
        checkpoints = folder / "checkpoints"
        while process.poll() is None:
            names = os.listdir(checkpoints) if checkpoints.is_dir() else []
            if "step-00000002.pt" in names and any(name.startswith(".part-") for name in names):
                break
            time.sleep(0.0002)
    finally:
        process.kill()
        process.wait()
    return any(path.name.startswith(".part-") for path in checkpoints.iterdir())


def test_killed_while_a_checkpoint_is_written_it_goes_on_from_the_one_before(index_path, undisturbed, tmp_path):
    for attempt in range(20):  # the kill may come when the file has just got its name
        folder = tmp_path / str(attempt)
        if kill_while_writing(index_path, folder):
            break
    else:
        pytest.fail("no kill hit the writing of a checkpoint")
    state = checkpoint.load_last(checkpoint.Folder(folder / "checkpoints"))
    assert state is not None
    assert 2 <= state["step"] < STEPS
    train_to_end(tiny_spec("classifier-M", index_path, folder, STEPS), LAYOUT)
    assert_same(folder, undisturbed)
    assert [path.name for path in (folder / "checkpoints").iterdir() if path.name.startswith(".part-")] == []


@pytest.fixture
def small_disk(tmp_path):
    """A file system in memory, on which two checkpoints and a half have room."""
    folder = tmp_path / "disk"
    folder.mkdir()
    if shutil.which("mount") is None or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", folder], check=False).returncode:
        pytest.skip("file systems cannot be mounted here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def test_on_a_full_disk_one_line_is_said_and_the_checkpoint_before_is_whole(index_path, undisturbed, small_disk):
    size = next((undisturbed / "checkpoints").iterdir()).stat().st_size
    subprocess.run(["mount", "-o", f"remount,size={int(2.5 * size)}", small_disk], check=True)
    spec = tiny_spec("classifier-M", index_path, small_disk / "run", STEPS)
    with pytest.raises(VwlError, match=r"cannot write .*\.pt: No space left on device; free space or choose another folder"):
        train_to_end(spec, LAYOUT)
    checkpoints = small_disk / "run" / "checkpoints"
    assert sorted(path.name for path in checkpoints.iterdir()) == ["step-00000001.pt", "step-00000002.pt"]
    state = checkpoint.load_last(checkpoint.Folder(checkpoints))
    assert state is not None
    assert state["step"] == 2
    subprocess.run(["mount", "-o", f"remount,size={6 * size}", small_disk], check=True)
    train_to_end(spec, LAYOUT)
    assert_same(small_disk / "run", undisturbed)
