"""Pickles of arrays and tensors are read; a pickle that names anything else is refused before it runs."""

import os
import pickle
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.seeds import torch_file
from vwl.errors import VwlError
from vwl.storage.safe_pickle import UnsafePickle, load, load_torch

CONTENT = {
    "keys": torch.tensor([3, 5]),
    "cam": torch.rand(2, 3, 4, generator=torch.Generator().manual_seed(0)),
    "part of a tensor": torch.arange(20.0).view(4, 5).T[1:, ::2],
    "half": torch.tensor([0.5, 1]).half(),
    "bfloat16": torch.tensor([0.5, 1]).bfloat16(),
    "empty": torch.zeros(0, 7),
    "high_res": np.linspace(0, 1, 24, dtype=np.float16).reshape(2, 3, 4),
    "by column": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    np.int64(5): np.float32(2),
    "nested": {"list": [torch.ones(2), np.ones(3)], "text": "of a file", "none": None},
}


class Call:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def plain(value):
    return np.asarray(value.float() if isinstance(value, torch.Tensor) else value)


def assert_equal(found, wanted):
    assert list(found) == list(wanted)
    for key in set(wanted) - {"nested"}:
        assert not isinstance(found[key], torch.Tensor)
        assert np.array_equal(found[key], plain(wanted[key])), key
    assert [type(entry) for entry in found["nested"]["list"]] == [np.ndarray, np.ndarray]


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_tensors_are_read_from_every_protocol(protocol):
    assert_equal(load(pickle.dumps(CONTENT, protocol), "f.npy"), CONTENT)


def test_arrays_and_tensors_are_read_from_files_of_torch():
    assert_equal(load_torch(torch_file(CONTENT), "f.pt"), CONTENT)


def test_the_names_of_numpy_1_are_read():
    data = pickle.dumps(np.arange(3.0), protocol=2).replace(b"numpy._core.", b"numpy.core.")
    assert b"numpy.core.multiarray" in data
    assert load(data, "f.npy").tolist() == [0, 1, 2]


def evil(folder: Path) -> list[object]:
    command = f"touch {folder}/hacked"
    within_a_tensor = Call(torch.storage._load_from_bytes, pickle.dumps(Call(os.system, command), protocol=2))
    return [
        Call(os.system, command),
        Call(eval, "1"),
        Call(subprocess.Popen, ["true"]),
        Call(torch.load, "f"),
        Call(getattr, "", "x"),
        within_a_tensor,
    ]


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize(("write", "read"), [(pickle.dumps, load), (torch_file, load_torch)])
def test_a_file_that_would_run_code_is_refused_and_does_not(tmp_path, number, write, read):
    data = write({"keys": evil(tmp_path)[number]})
    with pytest.raises(UnsafePickle, match=r"^f.npy is refused: it names \S+( within a tensor)?, which .* nothing of it was run$"):
        read(data, "f.npy")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "value",
    [
        Call(np.ndarray, (10**12,)),
        Call(np.dtype, "V8"),
        Call(np._core.multiarray._reconstruct, np.ndarray, (10**12,), b"b"),
    ],
    ids=["huge", "no numbers", "huge start"],
)
def test_allowed_names_cannot_be_used_for_anything_else(value):
    with pytest.raises(VwlError, match=r"f.npy is damaged"):
        load(pickle.dumps(value), "f.npy")


@pytest.mark.parametrize(
    ("size", "stride", "offset"), [((9,), (1,), 0), ((4,), (1,), 6), ((1000, 1000), (0, 0), 0), ((2,), (-1,), 4), ((4,), (3,), 0)]
)
def test_a_tensor_outside_its_storage_is_refused(size, stride, offset):
    storage = torch.arange(8.0).untyped_storage()
    typed = torch.storage.TypedStorage(wrap_storage=storage, dtype=torch.float32, _internal=True)
    with pytest.raises(VwlError, match=r"f.npy is damaged"):
        load(pickle.dumps(Call(torch._utils._rebuild_tensor_v2, typed, offset, size, stride, False, None)), "f.npy")


@pytest.mark.parametrize("share", [0, 0.1, 0.5, 0.9])
@pytest.mark.parametrize(("write", "read"), [(pickle.dumps, load), (torch_file, load_torch)])
def test_a_file_that_ends_early_is_damaged(write, read, share):
    data = write({"keys": torch.tensor([1]), "high_res": np.ones((1, 9, 9))})
    with pytest.raises(VwlError, match=r"^f.npy is damaged"):
        read(data[: int(share * len(data))], "f.npy")
