"""Hostile sources, labels and folders of `vwl predict`: each ends in one line."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from tests.hostile.cases import Case, check
from vwl.storage.folder import Folder
from vwl.storage.lock import exclusive_lock

Words = Callable[[Path], list[str | Path]]


def image(folder: Path, name: str = "in/a.png") -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    Image.new("RGB", (20, 16)).save(path)
    return path


def on(*words: str, labels: str | None = None) -> Words:
    """An image in `in/`, a file of labels if wanted, and the command with these words, IN standing for the folder."""

    def make(folder: Path) -> list[str | Path]:
        image(folder)
        (folder / "empty").mkdir()
        if labels is not None:
            (folder / "labels.csv").write_text(labels)
        return ["predict", *(word.replace("IN", f"{folder}/in").replace("HERE", str(folder)) for word in words)]

    return make


def unlisted(folder: Path) -> list[str | Path]:
    image(folder)
    (folder / "in/out").write_text("")
    return ["predict", folder / "in/a.png", "--out", folder / "in/out/below"]


CASES = [
    Case("a folder without images", on("HERE/empty", "--out", "HERE/out"), 1, ("/empty holds no images (.jpg, ",)),
    Case("a pattern without matches", on("IN/*.jpg", "--out", "HERE/out"), 1, ("no file matches ", "/in/*.jpg")),
    Case("results among the images", on("IN", "--out", "IN"), 1, ("the results would be written into ", "choose another --out")),
    Case("a file in place of the folder", unlisted, 1, ("cannot ", "in/out")),
    Case("labels that are missing", on("IN", "--labels", "HERE/no.csv", "--out", "HERE/out"), 1, ("no.csv",)),
    Case("labels of an unknown class", on("IN", "--labels", "HERE/labels.csv", "--out", "HERE/out", labels="image,labels\na,cow!\n"), 1, ("labels.csv line 2: unknown class 'cow!'",)),
    Case("labels without a column", on("IN", "--labels", "HERE/labels.csv", "--out", "HERE/out", labels="file,labels\na,cow\n"), 1, ("has no column 'image'",)),
    Case("an image without labels", on("IN", "--labels", "HERE/labels.csv", "--out", "HERE/out", labels="image,labels\nb,\n"), 1, ("1 of 1 images could not be segmented: ", "has no line of it")),
    Case("no processes", on("IN", "--processes", "0"), 2, ("invalid value for '--processes'",)),
    Case("no frame", on("IN", "--every", "0"), 2, ("invalid value for '--every'",)),
    Case("a device that is none", on("IN", "--device", "abacus", "--out", "HERE/out"), 1, ("there is no device 'abacus' here",)),
    Case("a video that is none", on("IN", "HERE/a.mp4", "--out", "HERE/out"), 1, ("1 of 2 images could not be segmented: ", "a.mp4: it does not exist")),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_what_predict_cannot_do_is_one_line(case, tiny_run, tmp_path):
    if case.name == "a video that is none":
        pytest.importorskip("av")
    command = Case(case.name, lambda folder: [*case.make(folder), "--run", str(tiny_run.folder)], case.code, case.parts)
    check(command, tmp_path)


def test_a_second_command_on_a_folder_is_refused(tiny_run, tmp_path):
    image(tmp_path)
    words = ["predict", tmp_path / "in", "--run", str(tiny_run.folder), "--out", tmp_path / "out"]
    with exclusive_lock(Folder(tmp_path / "out"), "predict"):
        check(Case("locked", lambda folder: words, 1, ("another vwl command is running predict in ",)), tmp_path)


@pytest.mark.parametrize("line", [b"../../../escaped", b"/escaped", b"a/../../escaped"])
def test_names_in_a_record_are_never_written_to(tiny_run, tmp_path, line):
    image(tmp_path)
    out = tmp_path / "out"
    out.mkdir()
    text = b'{"image": "x", "name": "%s", "status": "ok", "mask": "%s_mask.png", "files": {"%s_mask.png": [1, ""]}}\n' % (line, line, line)
    (out / "predictions.jsonl").write_bytes(text)
    words = ["predict", tmp_path / "in", "--run", str(tiny_run.folder), "--out", out, "--no-crf"]
    check(Case("record", lambda folder: words, 0, ()), tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["in", "out"]
    assert {path.name for path in out.glob("[!.]*")} == {"a_mask.png", "a_overlay.png", "classes.json", "predictions.jsonl"}
