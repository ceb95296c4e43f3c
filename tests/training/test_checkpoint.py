import io
import os
import pickle
from pathlib import Path

import pytest
import torch

from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.training import checkpoint


@pytest.fixture
def folder(tmp_path) -> Folder:
    return Folder(tmp_path / "checkpoints")


class MakesFolder:
    """An object whose unpickling does something."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


def malicious(path: Path) -> bytes:
    sink = io.BytesIO()
    torch.save({"step": 1, "model": MakesFolder(path)}, sink)
    return sink.getvalue()


def test_a_state_comes_back_as_it_was(folder):
    state = {"step": 3, "model": {"w": torch.randn(2, 3), "n": torch.tensor([1, 2])}, "scores": {"val_map": 0.5}, "fingerprint": "f"}
    checkpoint.save(folder, "state.pt", state)
    loaded = checkpoint.load(folder, "state.pt")
    assert torch.equal(loaded["model"]["w"], state["model"]["w"])
    assert torch.equal(loaded["model"]["n"], state["model"]["n"])
    assert [loaded[key] for key in ("step", "scores", "fingerprint")] == [3, {"val_map": 0.5}, "f"]


def test_the_last_two_are_kept(folder):
    for step in (2, 4, 6, 100):
        checkpoint.save_step(folder, step, {"step": step})
    assert folder.names() == ["step-00000006.pt", "step-00000100.pt"]
    assert checkpoint.steps(folder) == [6, 100]
    assert checkpoint.load_last(folder)["step"] == 100


def test_without_checkpoints_there_is_none(folder):
    assert checkpoint.steps(folder) == []
    assert checkpoint.load_last(folder) is None


def test_other_files_are_no_checkpoints(folder):
    checkpoint.save(folder, "step-1.pt", {})
    checkpoint.save(folder, "weights.pt", {})
    assert checkpoint.steps(folder) == []


def flipped(data: bytes) -> bytes:
    """Flip a bit of a tensor, which torch does not notice."""
    return data[: len(data) // 2] + bytes([data[len(data) // 2] ^ 1]) + data[len(data) // 2 + 1 :]


@pytest.mark.parametrize("damage", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"\0" * len(data), flipped])
def test_a_damaged_one_is_passed_over_for_the_one_before(folder, damage):
    for step in (2, 4):
        checkpoint.save_step(folder, step, {"step": step, "values": torch.randn(1000)})
    folder.write("step-00000004.pt", damage(folder.read("step-00000004.pt")))
    with pytest.raises(checkpoint.Damaged, match=r"step-00000004\.pt (is|holds)"):
        checkpoint.load(folder, "step-00000004.pt")
    assert checkpoint.load_last(folder)["step"] == 2


def test_if_all_are_damaged_the_user_decides(folder):
    for step in (2, 4):
        checkpoint.save_step(folder, step, {"step": step})
        folder.write(f"step-{step:08d}.pt", b"nothing")
    with pytest.raises(
        VwlError,
        match=r"step-00000004\.pt (is|holds) .*; there is no undamaged checkpoint before it: delete .*checkpoints to train from the beg",
    ):
        checkpoint.load_last(folder)


def test_an_object_that_would_run_code_is_refused(folder, tmp_path):
    trap = tmp_path / "trap"
    data = malicious(trap)
    folder.write("step-00000001.pt", data)
    with pytest.raises(VwlError, match=r"step-00000001\.pt holds other objects"):
        checkpoint.load(folder, "step-00000001.pt")
    with pytest.raises(VwlError):
        checkpoint.load_last(folder)
    assert not trap.exists()
    torch.load(io.BytesIO(data), weights_only=False)  # the trap does work where it is not refused
    assert trap.is_dir()


def test_a_plain_pickle_is_refused(folder, tmp_path):
    folder.write("step-00000001.pt", pickle.dumps(MakesFolder(tmp_path / "trap"), protocol=2))
    with pytest.raises(VwlError, match="holds other objects"):
        checkpoint.load(folder, "step-00000001.pt")
    assert not (tmp_path / "trap").exists()


def test_a_file_of_something_else_is_refused(folder):
    sink = io.BytesIO()
    torch.save(torch.zeros(3), sink)
    folder.write("weights.pt", sink.getvalue())
    with pytest.raises(VwlError, match=r"weights\.pt is not a checkpoint"):
        checkpoint.load(folder, "weights.pt")


def test_a_missing_file_is_called_missing(folder):
    with pytest.raises(VwlError, match=r"cannot read .*weights\.pt"):
        checkpoint.load(folder, "weights.pt")
