"""Hostile files of score maps: what would run code, is damaged, or belongs to another data set or size."""

import os
import pickle
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.hostile.cases import Case, check
from tests.seeds import pickled, torch_file
from vwl.data.index import make_index, write_index
from vwl.data.scenes import prepare_scenes

SIZE = (64, 72)
GRID = (16, 18)


class Call:
    """An object whose pickle calls a function when it is read."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


def importing(write: Callable[[Path], object], *options: str, images: int = 1) -> Callable[[Path], list[str | Path]]:
    """A run on scenes with class 1 in each, `write` into the folder of the maps, and the command line that imports them."""

    def make(folder: Path) -> list[str | Path]:
        index = prepare_scenes(folder / "scenes", images, 0, heights=(64, 64), widths=(72, 72), num_classes=2)[0]
        rows = [replace(row, image_id=f"image{number}", labels=(1,), mask=None) for number, row in enumerate(index.rows)]
        write_index(make_index(rows, index.classes, folder / "scenes", index.source), folder / "index.parquet")
        (folder / "maps").mkdir()
        write(folder / "maps")
        return [
            "seeds",
            "import",
            folder / "maps",
            "--run",
            folder / "run",
            "--data",
            folder / "index.parquet",
            "--recipe",
            "demo",
            *options,
        ]

    return make


def holding(content: object, name: str = "image0") -> Callable[[Path], None]:
    return lambda folder: pickled(content, folder, name)


def raw(data: bytes, name: str = "image0.npy") -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes(data)


CAM = np.full((1, *GRID), 0.5, np.float32)
IRN = {"keys": np.array([0]), "cam": CAM}
RUNS_CODE = "which is no array or tensor and could run code; nothing of it was run"
HACK = "touch hacked-by-a-map"
CASES = [
    Case(
        "a command in a pickled dict",
        importing(holding({"keys": Call(os.system, HACK)})),
        1,
        ("image0.npy is refused: it names posix.system", RUNS_CODE),
    ),
    Case(
        "eval in place of an array",
        importing(holding({"keys": np.array([0]), "cam": Call(eval, "1")})),
        1,
        ("names builtins.eval", RUNS_CODE),
    ),
    Case(
        "a command within the storage of a tensor",
        importing(holding({"cam": Call(torch.storage._load_from_bytes, pickle.dumps(Call(os.system, HACK), 2))})),
        1,
        ("image0.npy is refused: it names posix.system within a tensor",),
    ),
    Case(
        "a command in a file of torch",
        importing(raw(torch_file({"a": Call(subprocess.Popen, HACK)}), "image0.pt")),
        1,
        ("image0.pt is refused", RUNS_CODE),
    ),
    Case("a command in a pickle named .npy", importing(raw(pickle.dumps(Call(os.system, HACK)))), 1, ("names posix.system",)),
    Case(
        "a command behind a good file",
        importing(
            lambda folder: [pickled(IRN, folder, "image0"), pickled({"keys": Call(os.system, HACK), "cam": 1}, folder, "image1")], images=2
        ),
        1,
        ("image1.npy is refused: it names posix.system",),
    ),
    Case("an innocent object that is no array", importing(holding({"keys": Path("x")})), 1, ("names pathlib.PosixPath", RUNS_CODE)),
    Case("an empty file", importing(raw(b"")), 1, ("image0.npy is neither .npy, .npz",)),
    Case(
        "a folder without maps of the images",
        importing(holding(IRN, "other")),
        1,
        ("has no map of the images of", "such as image0.npy; it has other.npy"),
    ),
    Case("an empty folder", importing(lambda folder: None), 1, ("has no map of the images of",)),
    Case(
        "segment ids of SAM", importing(holding(np.full(SIZE, -1))), 1, ("image0.npy is an array (64, 72) of whole numbers, segment ids",)
    ),
    Case("unknown keys", importing(holding({"logits": CAM})), 1, ("image0.npy has the keys logits, which are of no known format",)),
    Case(
        "maps of another size",
        importing(holding({"keys": [0], "cam": CAM[:, 1:]})),
        1,
        ("image0.npy has maps of shape (1, 15, 18)", "64 x 72 pixels"),
    ),
    Case("maps on their side", importing(holding({"keys": [0], "high_res": np.zeros((1, 72, 64))})), 1, ("(1, 72, 64)",)),
    Case(
        "a class of another data set",
        importing(holding({"keys": [19], "cam": CAM})),
        1,
        ("has a map of class 20, where the data set has 1 to 2",),
    ),
    Case(
        "a class that is no label",
        importing(holding({"keys": [1], "cam": CAM})),
        1,
        ("none of them a label of the image (1); check --format",),
    ),
    Case(
        "scores that are not numbers",
        importing(holding({"keys": [0], "cam": CAM * np.nan})),
        1,
        ("image0.npy has scores that are not finite",),
    ),
    Case(
        "an archive of objects",
        importing(lambda f: np.savez(f / "image0.npz", keys=[0], cam=np.array([{}]))),
        1,
        ("image0.npz holds objects",),
    ),
    Case(
        "two files of an image",
        importing(lambda f: [pickled(IRN, f, "image0"), (f / "image0.npz").touch()]),
        1,
        ("are both maps of image image0",),
    ),
    Case(
        "a mask in place of a map",
        importing(lambda f: Image.new("L", SIZE[::-1]).save(f / "image0_1.png")),
        1,
        ("image0_1.png has mode L",),
    ),
    Case("an unknown format", importing(holding(IRN), "--format", "irm"), 1, ("--format irm is none of", "did you mean 'irn'?")),
    Case(
        "an unknown background",
        importing(holding(IRN), "--background", "none"),
        2,
        ("'none' is not one of 'fixed', 'one-minus-max', 'own'",),
    ),
    Case(
        "a background that the maps lack",
        importing(holding(IRN), "--background", "own"),
        1,
        ("has no map of the background; import it with",),
    ),
    Case("maps of the right kind", importing(holding(IRN)), 0, ("imported: 1 images (format irn, background fixed)",)),
    Case("an image without classes", importing(holding({"keys": np.zeros(0), "cam": np.zeros(0)})), 0, ("imported: 1 images",)),
    Case(
        "a surplus file",
        importing(lambda f: [pickled(IRN, f, "image0"), pickled(IRN, f, "x")]),
        0,
        ("files of no image of this run, not read: 1: x.npy",),
    ),
    Case("an image without a file", importing(holding(IRN), images=2), 0, ("without a file, left out by later stages: 1: image1",)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_hostile_maps(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    check(case, tmp_path)
    assert list(tmp_path.rglob("hacked*")) == []


def test_a_folder_that_is_not_there_is_named(tmp_path):
    make = importing(lambda folder: folder.rmdir())
    check(Case("no folder", make, 1, (f"there is no folder {tmp_path}/maps",)), tmp_path)


def test_exporting_what_is_not_a_run_is_refused(tmp_path):
    check(
        Case("no run", lambda folder: ["seeds", "export", "--run", folder, "--out", folder / "out"], 1, ("is not a run folder",)), tmp_path
    )
    assert not (tmp_path / "out").exists()
