"""File locks: one command at a time works on a stage or search, and a killed command's lock is free at once."""

import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Timer

import pytest

from tests.conftest import TINY
from tests.ray_cluster import VWL
from tests.tuning.searches import tiny_index
from vwl.config.files import load_recipe
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.lock import exclusive_lock, is_locked
from vwl.workflow.run_folder import Run

ROOT = Path(__file__).parents[2]
HOLD = """
import sys, time
from vwl.storage.lock import exclusive_lock
from vwl.storage.folder import Folder
with exclusive_lock(Folder(sys.argv[1]), sys.argv[2]):
    print("held", flush=True)
    time.sleep(600)
"""


@contextmanager
def another_process(folder: Path, work: str) -> Iterator[subprocess.Popen]:
    """Run a process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(folder), work], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_held_lock_is_refused_and_is_free_when_its_process_is_killed(tmp_path):
    with another_process(tmp_path, "cam") as process:
        with pytest.raises(VwlError) as caught, exclusive_lock(Folder(tmp_path), "cam"):
            pass
        assert str(caught.value) == f"another vwl command is running cam in {tmp_path}; wait until it ends, or use another --run folder"
        with exclusive_lock(Folder(tmp_path), "crf"):
            pass
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        with exclusive_lock(Folder(tmp_path), "cam"):
            pass


def test_whether_a_lock_is_held_is_seen_without_taking_it(tmp_path):
    assert is_locked(Folder(tmp_path), "cam") is False
    assert list(tmp_path.iterdir()) == []
    with another_process(tmp_path, "cam") as process:
        assert is_locked(Folder(tmp_path), "cam") is True
        assert is_locked(Folder(tmp_path), "crf") is False
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        assert is_locked(Folder(tmp_path), "cam") is False
    with exclusive_lock(Folder(tmp_path), "cam"):
        assert is_locked(Folder(tmp_path), "cam") is True


def test_a_look_at_a_lock_does_not_keep_a_command_from_taking_it(tmp_path):
    (tmp_path / ".cam.lock").touch()
    with (tmp_path / ".cam.lock").open() as looking:
        fcntl.flock(looking, fcntl.LOCK_SH)
        Timer(0.05, lambda: fcntl.flock(looking, fcntl.LOCK_UN)).start()
        with exclusive_lock(Folder(tmp_path), "cam"):
            pass


def test_a_lock_is_released_after_an_error(tmp_path):
    for _ in range(2):
        with pytest.raises(KeyError), exclusive_lock(Folder(tmp_path / "new"), "search"):
            raise KeyError


def test_a_folder_that_cannot_be_written_gives_one_line(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(VwlError, match=r"cannot write .*/file/\.search\.lock: (Not a directory|File exists)"),
        exclusive_lock(Folder(tmp_path / "file"), "search"),
    ):
        pass


def test_on_a_file_system_without_locks_nothing_is_locked(tmp_path, monkeypatch):
    def flock(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", flock)
    with exclusive_lock(Folder(tmp_path), "cam"), exclusive_lock(Folder(tmp_path), "cam"):
        assert is_locked(Folder(tmp_path), "cam") is None


def test_the_recipe_of_a_run_is_not_replaced_while_another_command_runs_a_stage(tmp_path):
    index, folder = tiny_index(tmp_path), tmp_path / "run"
    Run.start(str(folder), load_recipe("demo", TINY), index)
    before = (folder / "recipe.yaml").read_bytes()
    with another_process(folder, "segment"):
        for words in (["train", "classifier"], ["infer", "cam"]):
            done = subprocess.run(
                [*VWL, *words, "--run", str(folder), "-o", "classifier.epochs=9", "--overwrite", "--backend", "local"],
                cwd=ROOT,
                capture_output=True,
                text=True,
                check=False,
            )
            assert f"another vwl command is running segment in {folder}" in done.stderr
            assert done.returncode == 1
    assert (folder / "recipe.yaml").read_bytes() == before


@pytest.mark.parametrize("work", ["search", "cam"])
def test_a_second_command_in_the_same_folder_gives_one_line_and_changes_nothing(work, tmp_path):
    index, folder = tiny_index(tmp_path), tmp_path / "run"
    overrides = [word for setting in TINY for word in ("-o", setting)]
    given = ["--recipe", "demo", "--data", index, "--run", folder, *overrides]
    command = ["tune", "table5a", *given] if work == "search" else ["run", *given, "--backend", "local"]
    with another_process(folder, work):
        done = subprocess.run([*VWL, *map(str, command)], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert f"another vwl command is running {work} in {folder}" in done.stderr
    assert not any((folder / name).exists() for name in ("resources.json", "searches", "trials", "classifier"))
