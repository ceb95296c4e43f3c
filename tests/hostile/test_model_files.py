"""Model files that are missing, damaged, of something else or of another version: each ends in one line, and nothing in them is run."""

import json
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
import safetensors.torch
import torch
from huggingface_hub import constants

from tests.hostile.cases import Case, check
from vwl.model_file.content import decode_model, digest_of, encode_model, read_model
from vwl.storage.checked import checked_bytes
from vwl.workflow.model_export import describe


class Bomb:
    """Running this object's pickle writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return (Path.touch, (self.path,))


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9])


def truncate_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(position: int) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data = bytearray(path.read_bytes())
        data[position] ^= 4
        path.write_bytes(bytes(data))

    return damage


def flip_in_description(path: Path) -> None:
    data = path.read_bytes()
    path.write_bytes(data.replace(b"long_side", b"long_sidf", 1))


def huge_header(path: Path) -> None:
    path.write_bytes((2**63 - 1).to_bytes(8, "little") + path.read_bytes()[8:])


def pickled(path: Path) -> None:
    path.write_bytes(pickle.dumps(Bomb(path.with_name("boom"))))


def torch_file(path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, path)


def foreign(path: Path) -> None:
    safetensors.numpy.save_file({"a": np.zeros(3, np.float32)}, path)


def with_text(text: str) -> Callable[[Path], None]:
    def replace(path: Path) -> None:
        path.write_bytes(safetensors.torch.save({"a": torch.zeros(3)}, {"vwl": text}))

    return replace


def folder_instead(path: Path) -> None:
    path.unlink()
    path.mkdir()


def changed(**values: Any) -> Callable[[Path], None]:
    """Change the description and give it a right checksum."""

    def rewrite(path: Path) -> None:
        description, state = read_model(path)
        stored = description.as_json()
        for key, value in values.items():
            inner = stored
            *sections, last = key.split("__")
            for section in sections:
                inner = inner[section]
            inner[last] = value
        path.write_bytes(safetensors.torch.save(state, {"vwl": checked_bytes(stored).decode()}))

    return rewrite


def other_weights(path: Path) -> None:
    description, state = read_model(path)
    state.pop(min(state))
    path.write_bytes(encode_model(description.model_copy(update={"weights": digest_of(state)}), state))


def case(name: str, damage: Callable[[Path], None], *parts: str, model: str = "segmenter") -> Case:
    """A case on `model`.safetensors, which is damaged and then named by vwl predict --model."""

    def make(folder: Path) -> list[str | Path]:
        damage(folder / f"{model}.safetensors")
        return ["predict", folder / "image.jpg", "--model", folder / f"{model}.safetensors", "--out", folder / "out"]

    return Case(name, make, 1, parts)


NOT_SAFETENSORS = ("segmenter.safetensors is damaged or no model file: it is not safetensors; copy it again, or make it again with",)
DAMAGED = [
    case("missing", Path.unlink, "cannot read ", "segmenter.safetensors: No such file"),
    case("a folder", folder_instead, "segmenter.safetensors"),
    case("empty", empty, *NOT_SAFETENSORS),
    case("truncated", truncate, *NOT_SAFETENSORS),
    case("truncated in its header", truncate_header, *NOT_SAFETENSORS),
    case("a huge header", huge_header, *NOT_SAFETENSORS),
    case("a pickle", pickled, *NOT_SAFETENSORS),
    case("a torch file", torch_file, *NOT_SAFETENSORS),
    case("a flipped bit in the tensors", flip(-1000), "its tensors do not fit their digest"),
    case("a flipped bit in the description", flip_in_description, "its content does not fit its checksum"),
    case("safetensors of another program", foreign, "is a safetensors file without a description by vwl"),
    case("a description that is no JSON", with_text("{"), "it is not JSON"),
    case("a description that is nested deeply", with_text("[" * 100_000), "it is not JSON"),
    case("a description that is a list", with_text("[1]"), "it is no JSON object"),
    case("a description without a checksum", with_text('{"format": 1}'), "its content does not fit its checksum"),
]
WRONG = [
    case("a later format", changed(format=2), "has format 2, of a later version of vwl; this version reads format 1: update vwl"),
    case("a format that is text", changed(format="new"), "format should be 1"),
    case("an unknown kind", changed(kind="detector"), "its kind 'detector' is neither segmentation nor classifier"),
    case("another kind", changed(kind="classifier"), "unknown key 'architecture.output_stride'"),
    case("an unknown key", changed(extra=1), "unknown key 'extra'"),
    case("a palette that is too short", changed(palette=[0, 0, 0]), "palette should be 768 numbers"),
    case("a class name with a line break", changed(classes=["background", "a\nb"]), "cannot be printed"),
    case("no object class", changed(classes=["background"]), "one object class or more"),
    case("more classes than weights", changed(classes=["background", "a", "b", "c"]), "its weights do not fit its description"),
    case("300 classes", changed(classes=["background", *(f"c{i}" for i in range(300))]), "masks have ids for 254"),
    case("an unknown network", changed(architecture__backbone={"name": "resnet7"}), "backbone.name 'resnet7' is none of"),
    case("another network", changed(architecture__backbone={"name": "resnet18"}), "its weights do not fit its description"),
    case("a million layers", changed(architecture__atrous_rates=[6] * 1_000_000), "its weights do not fit its description"),
    case("other normalisation", changed(normalisation__mean=[0.0, 0.0, 0.0]), "its weights do not fit its description"),
    case("a scale out of range", changed(prediction__scales=[1e9]), "prediction.scales"),
    case("a missing tensor", other_weights, "its weights do not fit its description"),
    case("a billion codewords", changed(architecture__codebook__num_codewords=10**9), "its weights do not fit", model="classifier"),
    case("a classifier", lambda path: None, "is a classifier, which gives no masks; export the segmentation model", model="classifier"),
]


@pytest.fixture(scope="module")
def files(tiny_run, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("files")
    for stage in ("segmenter", "classifier"):
        (folder / f"{stage}.safetensors").write_bytes(encode_model(*describe(tiny_run, stage)))
    shutil.copy(f"{tiny_run.index.root.path}/images/val_00001.jpg", folder / "image.jpg")
    return folder


@pytest.mark.parametrize("wrong", [*DAMAGED, *WRONG], ids=lambda wrong: wrong.name)
def test_a_model_file_that_is_wrong_ends_in_one_line(wrong, files, tmp_path):
    folder = tmp_path / "files"
    shutil.copytree(files, folder)
    check(wrong, folder)
    assert not (folder / "boom").exists()
    assert not (folder / "out").exists()


@pytest.mark.parametrize("position", [0, 7, 8, 9, 60, -1, *range(200, 9000, 1100)])
def test_a_flipped_bit_anywhere_is_noticed(position, files):
    from vwl.errors import VwlError

    data = bytearray((files / "segmenter.safetensors").read_bytes())
    data[position] ^= 1
    with pytest.raises(VwlError) as raised:
        decode_model(bytes(data), "a.safetensors")
    assert "\n" not in str(raised.value)


def test_the_description_is_json_that_any_reader_of_safetensors_sees(files):
    with safetensors.safe_open(files / "segmenter.safetensors", "pt") as opened:
        stored = json.loads(opened.metadata()["vwl"])
    assert (stored["format"], stored["kind"], stored["recipe"]) == (1, "segmentation", "demo")


def image_as_model(folder: Path) -> list[str | Path]:
    (folder / "image.jpg").write_bytes(b"no model")
    return ["predict", "a.jpg", "--model", folder / "image.jpg"]


EXPORT = ("export", "model", "--run")
OPTIONS = [
    Case("predict without a model", lambda folder: ["predict", "a.jpg"], 2, ("name the run with --run", "--model FILE")),
    Case("predict with two models", lambda folder: ["predict", "a.jpg", "--run", "r", "--model", "m"], 2, ("and not both",)),
    Case("predict with no such model", lambda folder: ["predict", "a.jpg", "--model", folder / "no"], 1, ("there is no model at ", "/no;")),
    Case("predict with a folder without a model", lambda folder: ["predict", "a.jpg", "--model", folder], 1, ("there is no model at ",)),
    Case("predict with an image as model", image_as_model, 1, ("image.jpg is damaged or no model file: it is not safetensors",)),
    Case("export of no run", lambda folder: [*EXPORT, folder], 1, ("is not a run folder",)),
    Case("export to no safetensors", lambda folder: [*EXPORT, folder, "--out", "a.pt"], 1, ("'a.pt' is not the name of a model file",)),
    Case("export of an unknown stage", lambda folder: [*EXPORT, folder, "--stage", "irnet"], 2, ("'segmenter', 'classifier'",)),
    Case("ONNX of nothing", lambda folder: ["export", "onnx"], 2, ("name the run with --run", "--model FILE")),
    Case("ONNX of two models", lambda folder: ["export", "onnx", "--run", "r", "--model", "m"], 2, ("and not both",)),
    Case("ONNX of no run", lambda folder: ["export", "onnx", "--run", folder], 1, ("is not a run folder",)),
    Case("ONNX of no model", lambda folder: ["export", "onnx", "--model", folder / "no"], 1, ("there is no model at ", "/no;")),
    Case(
        "ONNX to no .onnx",
        lambda folder: ["export", "onnx", "--run", "r", "--out", "a.pt"],
        1,
        ("'a.pt' is not the name of an ONNX file; choose one that ends in .onnx",),
    ),
    Case("export without --run", lambda folder: ["export", "model", "runs/voc"], 2, ("vwl export model --run runs/voc",)),
]


@pytest.mark.parametrize("wrong", OPTIONS, ids=lambda wrong: wrong.name)
def test_a_command_line_that_is_wrong_ends_in_one_line(wrong, tmp_path):
    check(wrong, tmp_path)


def test_a_classifier_is_not_exported_to_onnx(files, tmp_path):
    words = ["export", "onnx", "--model", files / "classifier.safetensors", "--out", tmp_path / "a.onnx"]
    check(
        Case("classifier", lambda folder: words, 1, ("is a classifier; export the segmentation model with: vwl export onnx --run",)),
        tmp_path,
    )
    assert not (tmp_path / "a.onnx").exists()


def test_a_model_that_the_hub_lacks_is_one_line(tmp_path, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    missing = Case("hub", lambda folder: ["predict", "a.jpg", "--model", "nobody/nothing"], 1, ("nobody/nothing here, and the Hub has no",))
    check(missing, tmp_path)


@pytest.mark.parametrize("licence", ["", " ", "two\nlines"])
def test_a_licence_that_is_no_line_is_refused(licence, tiny_run, tmp_path):
    words = [*EXPORT, str(tiny_run.folder), "--licence", licence, "--out", str(tmp_path / "a.safetensors")]
    check(Case("licence", lambda folder: words, 1, ("the licence is no line of text",)), tmp_path)
    assert not (tmp_path / "a.safetensors").exists()


def test_a_run_whose_training_is_not_done_cannot_be_exported(tiny_run, tmp_path):
    from vwl.workflow.run_folder import Run

    Run.start(str(tmp_path / "run"), tiny_run.recipe, tiny_run.index_path)
    for stage, name in (("segmenter", "segmentation model"), ("classifier", "classifier")):
        words = [*EXPORT, str(tmp_path / "run"), "--stage", stage, "--out", str(tmp_path / "a.safetensors")]
        check(Case(stage, lambda folder, words=words: words, 1, (f"has no trained {name}; finish the run with",)), tmp_path)
