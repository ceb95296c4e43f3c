"""Bad input: each mistake gives one line that names the file or key and the way out, and exit code 1."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.drills import SETTINGS
from tests.helpers import tiny_scenes
from vwl.cli.main import app
from vwl.data.index import Index, decode_image, make_index, read_index, write_index


def vwl(*arguments: str | Path) -> tuple[int, str]:
    """Run a command in this process; return its exit code and what it printed on stderr."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    return result.exit_code, result.stderr


def assert_one_line(outcome: tuple[int, str], *parts: str) -> None:
    code, printed = outcome
    errors = [line for line in printed.splitlines() if line.startswith("error: ")]
    assert code == 1, printed
    assert len(errors) == 1
    assert "Traceback" not in printed
    for part in parts:
        assert part in errors[0]


def start(index: Path, run: Path, *more: str) -> tuple[int, str]:
    overrides = [part for setting in [*SETTINGS, *more] for part in ("-o", setting)]
    return vwl("train", "classifier", "--data", index, "--recipe", "demo", "--run", run, "--backend", "local", *overrides)


@pytest.fixture
def scenes(tmp_path) -> tuple[Index, Path]:
    index = tiny_scenes(tmp_path / "scenes")
    write_index(index, tmp_path / "index.parquet")
    return index, tmp_path / "index.parquet"


def make_images(folder: Path, count: int = 2) -> Path:
    folder.mkdir()
    for number in range(count):
        Image.fromarray(np.full((8, 8, 3), 40 * number, np.uint8)).save(folder / f"p{number}.jpg")
    return folder


def labels(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.csv"
    path.write_text(text)
    return path


def test_a_truncated_jpeg_stops_training_and_is_named(scenes, tmp_path):
    index, path = scenes
    for row in index.split("train_aug"):
        file = tmp_path / "scenes" / row.image
        file.write_bytes(file.read_bytes()[:-200])
    assert_one_line(start(path, tmp_path / "run"), index.split("train_aug")[0].image.rpartition("/")[0], "truncated")


def test_a_truncated_jpeg_is_listed_by_check(scenes, tmp_path):
    index, path = scenes
    file = tmp_path / "scenes" / index.rows[0].image
    file.write_bytes(file.read_bytes()[:-200])
    result = CliRunner().invoke(app, ["data", "check", str(path)])
    assert result.exit_code == 1
    assert index.rows[0].image_id in result.output


@pytest.mark.parametrize(
    ("mode", "make"),
    [
        ("I;16", lambda: Image.fromarray(np.full((6, 5), 40_000, np.uint16))),
        ("P", lambda: Image.fromarray(np.full((6, 5, 3), 156, np.uint8)).quantize(4)),
        ("L", lambda: Image.fromarray(np.full((6, 5), 156, np.uint8))),
    ],
)
def test_16_bit_palette_and_grey_images_are_read_as_rgb(mode: str, make: Callable[[], Image.Image]):
    sink = io.BytesIO()
    make().save(sink, format="PNG")
    assert Image.open(io.BytesIO(sink.getvalue())).mode == mode
    image = np.asarray(decode_image(sink.getvalue(), "x.png"))
    assert image.shape == (6, 5, 3)
    assert np.abs(image.astype(int) - 156).max() <= 1


def test_a_mask_of_another_size_is_named_by_check(scenes, tmp_path):
    index, path = scenes
    Image.fromarray(np.zeros((3, 4), np.uint8)).save(tmp_path / "scenes" / index.rows[0].mask)
    result = CliRunner().invoke(app, ["data", "check", str(path)])
    assert result.exit_code == 1
    assert index.rows[0].image_id in result.output
    assert "size" in result.output


def test_an_unknown_class_name_is_named_with_the_nearest_one(tmp_path):
    images = make_images(tmp_path / "images")
    classes = tmp_path / "classes.txt"
    classes.write_text("background\ncat\ndog\n")
    table = labels(tmp_path, "image,labels\np0.jpg,cat\np1.jpg,dgo\n")
    outcome = vwl("data", "prepare", "folder", "--images", images, "--labels", table, "--classes", classes, "--out", tmp_path / "i.parquet")
    assert_one_line(outcome, "dgo", "did you mean 'dog'?")


def test_an_unknown_class_in_the_evaluation_is_named(scenes, tmp_path):
    assert_one_line(start(scenes[1], tmp_path / "run", "evaluation.classes=[beetel]"), "beetel", "beetle")


def test_an_empty_label_is_named(tmp_path):
    table = labels(tmp_path, "image,labels\np0.jpg,cat\np1.jpg,\n")
    images = make_images(tmp_path / "images")
    outcome = vwl("data", "prepare", "folder", "--images", images, "--labels", table, "--out", tmp_path / "i.parquet")
    assert_one_line(outcome, "p1")


def test_no_image_at_all_is_said(tmp_path):
    table = labels(tmp_path, "image,labels\n")
    outcome = vwl(
        "data", "prepare", "folder", "--images", make_images(tmp_path / "images", 0), "--labels", table, "--out", tmp_path / "i.parquet"
    )
    assert_one_line(outcome, "no image")


def test_an_id_listed_twice_is_named(tmp_path):
    table = labels(tmp_path, "image,labels\np0.jpg,cat\np0.jpg,dog\n")
    images = make_images(tmp_path / "images")
    outcome = vwl("data", "prepare", "folder", "--images", images, "--labels", table, "--out", tmp_path / "i.parquet")
    assert_one_line(outcome, "p0", "more than once")


def test_a_misspelled_recipe_key_has_a_suggestion(scenes, tmp_path):
    assert_one_line(
        start(scenes[1], tmp_path / "run", "classifier.codebook.num_codeword=8"), "classifier.codebook.num_codeword", "num_codewords"
    )
    assert not (tmp_path / "run").exists()


def test_a_weights_file_of_another_network_is_refused(scenes, tmp_path):
    torch.save({"layers.0.weight": torch.zeros(3, 3)}, tmp_path / "other.pth")
    outcome = start(scenes[1], tmp_path / "run", f"classifier.backbone.weights={tmp_path / 'other.pth'}")
    assert_one_line(outcome, "other.pth", "another network")


def test_a_run_folder_of_another_recipe_is_refused(scenes, tmp_path):
    assert start(scenes[1], tmp_path / "run")[0] == 0
    assert_one_line(start(scenes[1], tmp_path / "run", "seed=7"), "seed: 0 -> 7", "--overwrite")


def test_a_run_folder_of_other_data_is_refused(scenes, tmp_path):
    assert start(scenes[1], tmp_path / "run")[0] == 0
    index = read_index(scenes[1])
    write_index(make_index(index.rows[1:], index.classes, index.root, "fewer"), tmp_path / "fewer.parquet")
    assert_one_line(start(tmp_path / "fewer.parquet", tmp_path / "run"), "other data", "--overwrite")


def test_an_output_folder_that_cannot_be_written_is_named(scenes, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert_one_line(start(scenes[1], tmp_path / "file" / "run"), "file/run", "cannot write")


def test_a_stage_whose_input_is_missing_names_the_command(scenes, tmp_path):
    assert start(scenes[1], tmp_path / "run")[0] == 0
    assert_one_line(vwl("infer", "walk", "--run", tmp_path / "run", "--backend", "local"), "vwl infer cam")


def test_a_folder_that_is_no_run_is_named(tmp_path):
    assert_one_line(vwl("status", "--run", tmp_path / "nothing"), "is not a run folder")


def test_an_index_that_is_not_there_names_the_command(tmp_path):
    assert_one_line(start(tmp_path / "no.parquet", tmp_path / "run"), "no.parquet", "vwl data prepare")


def test_a_batch_that_cannot_be_shared_is_refused(scenes, tmp_path):
    overrides = [part for setting in SETTINGS for part in ("-o", setting)]
    arguments = ("train", "classifier", "--data", scenes[1], "--recipe", "demo", "--run", tmp_path / "run", "--backend", "local")
    assert_one_line(vwl(*arguments, "--micro-batch", "3", *overrides), "micro-batches of 3")
