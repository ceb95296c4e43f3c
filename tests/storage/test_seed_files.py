"""Files with maps of other methods: told from their first bytes, grouped by image, damaged ones named."""

import io
import pickle
from contextlib import suppress

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.seeds import torch_file
from vwl.errors import VwlError
from vwl.storage.safe_pickle import UnsafePickle
from vwl.storage.seed_files import image_files, read_arrays, read_png_map

CONTENT = {"keys": np.array([1]), "cam": np.ones((1, 2, 3), np.float16)}


def saved(value, write=np.save) -> bytes:
    sink = io.BytesIO()
    write(sink, value)
    return sink.getvalue()


def legacy(sink, value) -> None:
    torch.save(value, sink, _use_new_zipfile_serialization=False)


FILES = {
    "npy": saved(CONTENT),
    "npz": saved(CONTENT, lambda sink, value: np.savez(sink, **value)),
    "compressed": saved(CONTENT, lambda sink, value: np.savez_compressed(sink, **value)),
    "torch": torch_file({key: torch.from_numpy(value) for key, value in CONTENT.items()}),
    "torch of arrays": torch_file(CONTENT),
    "torch before 1.6": saved({key: torch.from_numpy(value) for key, value in CONTENT.items()}, legacy),
    "pickle": pickle.dumps(CONTENT),
}


@pytest.mark.parametrize("kind", FILES)
def test_a_dict_is_read_from_every_kind_of_file_whatever_its_name(kind):
    found = read_arrays(FILES[kind], "f.npy")
    assert list(found) == list(CONTENT)
    assert all(np.array_equal(found[key], CONTENT[key]) for key in CONTENT)


def test_a_plain_array_is_read():
    assert read_arrays(saved(np.ones((2, 3, 4))), "f.npy").shape == (2, 3, 4)


def test_numbered_arrays_of_an_archive_are_classes():
    data = saved({"3": np.ones(2), "14": np.ones(2)}, lambda sink, value: np.savez(sink, **value))
    assert list(read_arrays(data, "f.npz")) == [3, 14]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "neither .npy, .npz"),
        (b"keys: 1", "neither .npy, .npz"),
        *[(FILES[kind][:-30], "f.npy is damaged") for kind in FILES],
        *[(FILES[kind][:12], "f.npy is damaged") for kind in FILES],
        (saved(np.ones(9))[:-8], "f.npy is damaged"),
        (saved([1, "text"]), "neither an array nor a dict"),
        (saved(np.array([{"a": 1}, {"b": 2}])), "neither an array nor a dict"),
        (saved({"a": np.array([{}])}, lambda sink, value: np.savez(sink, **value)), "f.npy holds objects"),
    ],
)
def test_other_files_are_refused_by_name(data, message):
    with pytest.raises(VwlError, match=message):
        read_arrays(data, "f.npy")


def test_files_are_grouped_by_image():
    names = ["b_2.png", "2007_000032.npy", "a.b.npz", "b_10.png", "notes.txt", "_1.png", "x.png"]
    found, other = image_files(names)
    assert found == {"2007_000032": ("2007_000032.npy",), "a.b": ("a.b.npz",), "b": ("b_10.png", "b_2.png")}
    assert other == ["_1.png", "notes.txt", "x.png"]


@pytest.mark.parametrize("names", [("a.npy", "a.npz"), ("a.npy", "a_1.png"), ("a_1.png", "a.npy")])
def test_two_kinds_of_files_of_an_image_are_refused(names):
    with pytest.raises(VwlError, match="are both maps of image a"):
        image_files(names)


def test_a_png_of_16_bits_is_a_map():
    values = np.array([[0, 65535, 32768]], np.uint16)
    assert np.allclose(
        read_png_map(saved(Image.fromarray(values), lambda sink, image: image.save(sink, "PNG")), "f"), [[0, 1, 0.5]], atol=1e-4
    )


@pytest.mark.parametrize(
    ("data", "message"), [(b"no image", "is not an image"), (saved(Image.new("L", (2, 2)), lambda s, i: i.save(s, "PNG")), "mode L")]
)
def test_other_images_are_no_maps(data, message):
    with pytest.raises(VwlError, match=message):
        read_png_map(data, "f_1.png")


@given(st.sampled_from(list(FILES)), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), min_size=1, max_size=4))
@settings(max_examples=1000)
def test_a_file_with_wrong_bytes_is_read_or_refused(kind, changes):
    data = bytearray(FILES[kind])
    for position, byte in changes:
        data[int(position * len(data))] = byte
    with suppress(VwlError, UnsafePickle):
        read_arrays(bytes(data), "f.npy")
