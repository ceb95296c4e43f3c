"""Reading weights files: tensors only, nested or not, in both formats."""

import pickle
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

from vwl.errors import VwlError
from vwl.storage.weights import read_weights


def network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 2, 1))


@pytest.mark.parametrize("nest", [(), ("state_dict",), ("model",), ("model", "state_dict")])
def test_torch_files_may_nest_the_tensors(nest: tuple[str, ...], tmp_path: Path) -> None:
    state = network().state_dict()
    held: dict = dict(state)
    for key in reversed(nest):
        held = {key: held, "epoch": 3}
    torch.save(held, tmp_path / "w.pth")
    read = read_weights(tmp_path / "w.pth")
    assert list(read) == list(state)
    assert all(torch.equal(read[key], state[key]) for key in state)


def test_safetensors_files_are_read(tmp_path: Path) -> None:
    state = network().state_dict()
    safetensors.torch.save_file(state, tmp_path / "w.safetensors")
    read = read_weights(tmp_path / "w.safetensors")
    assert all(torch.equal(read[key], tensor) for key, tensor in state.items())


class Pickled:
    pass


def test_files_that_are_no_tensors_are_refused_by_name(tmp_path: Path) -> None:
    torch.save({"model": Pickled()}, tmp_path / "object.pth")
    (tmp_path / "text.pth").write_text("<html>not found</html>")
    (tmp_path / "empty.pth").write_bytes(b"")
    (tmp_path / "plain.pth").write_bytes(pickle.dumps({"a": 1}))
    torch.save(network().state_dict(), tmp_path / "cut.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "cut.pth").read_bytes()[:-100])
    (tmp_path / "text.safetensors").write_text("no tensors")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save({"epoch": 3}, tmp_path / "number.pth")
    for path in [*tmp_path.iterdir(), tmp_path / "absent.pth"]:
        with pytest.raises(VwlError, match=path.name) as caught:
            read_weights(path)
        assert "\n" not in str(caught.value)
