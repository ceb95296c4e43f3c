"""Segmenting folders: the bits of the run's segment stage in any number of processes, what goes on after a kill, labels, scores, areas."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from vwl.cli.main import app
from vwl.errors import VwlError
from vwl.maps.cam import upsample
from vwl.model_file.models import SegmentationModel
from vwl.prediction.images import Job, Output
from vwl.prediction.pool import beside_threads, chunks, num_processes
from vwl.prediction.record import NAME
from vwl.prediction.results import PredictionLine
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask
from vwl.storage.score_maps import MapReader
from vwl.workflow.model_export import model_of_run
from vwl.workflow.predict import predict_files

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def model(tiny_run) -> SegmentationModel:
    return model_of_run(tiny_run)


@pytest.fixture
def images(tiny_run, tmp_path) -> Path:
    """A folder with the four held-out images, two of them in a folder below."""
    for number in range(4):
        target = tmp_path / "images" / ("sub" if number > 1 else "") / f"val_{number:05d}.jpg"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(f"{tiny_run.index.root.path}/images/val_{number:05d}.jpg", target)
    return tmp_path / "images"


@pytest.fixture
def sharp(tiny_run) -> SegmentationModel:
    """A model whose masks have both classes: the tiny run's is hardly trained."""
    model = model_of_run(tiny_run)
    with torch.no_grad():
        for weight in model._predictor.model.aspp_weights():
            weight.mul_(50)
    return model


def lines_of(out: Path) -> list[dict]:
    return [json.loads(line) for line in (out / NAME).read_text().splitlines()]


def mask_in(path) -> np.ndarray:
    return decode_mask(Path(path).read_bytes(), str(path))


def contents(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("[!.]*") if path.is_file()}


def test_a_folder_is_mirrored_with_the_bits_of_the_runs_segment_stage(tiny_run, model, images, tmp_path):
    before = torch.get_num_threads()
    found = predict_files(model, [images], tmp_path / "out", crf=True)
    assert torch.get_num_threads() == before
    assert [Path(file.mask).relative_to(tmp_path / "out").as_posix() for file in found] == [
        *("val_00000_mask.png", "val_00001_mask.png", "sub/val_00002_mask.png", "sub/val_00003_mask.png")
    ]
    for file in found:
        assert Path(file.mask).read_bytes() == (tiny_run.folder / "segment").read(f"{Path(file.image).stem}.png")


def test_the_record_has_the_areas_of_classes_size_and_file(sharp, images, tmp_path):
    found = predict_files(sharp, [images], tmp_path / "out", crf=False, overlay=False)
    lines = lines_of(tmp_path / "out")
    assert [(line["image"], line["status"], line["overlay"]) for line in lines] == [(file.image, "ok", None) for file in found]
    assert len({area["id"] for line in lines for area in line["classes"]}) > 1
    for line, file in zip(lines, found, strict=True):
        mask = mask_in(tmp_path / "out" / line["mask"])
        assert (line["height"], line["width"]) == mask.shape == (file.height, file.width)
        assert {area["id"]: area["pixels"] for area in line["classes"]} == dict(
            zip(*(a.tolist() for a in np.unique(mask, return_counts=True)), strict=True)
        )
        assert sum(area["share"] for area in line["classes"]) == pytest.approx(1)
        assert tuple(area["name"] for area in line["classes"] if area["id"]) == file.classes
    assert not list((tmp_path / "out").rglob("*_overlay.png"))


@pytest.mark.slow
def test_processes_write_the_same_bytes_and_list_an_image_that_crashes_them(model, images, tmp_path, monkeypatch):
    shutil.copy2(images / "val_00000.jpg", images / "fatal.jpg")
    expected = predict_files(model, [images], tmp_path / "one", crf=True)
    monkeypatch.setenv("PYTHONPATH", f"{ROOT / 'tests/faults'}{os.pathsep}{ROOT}")
    monkeypatch.setenv("VWL_FATAL_FILE", "fatal.jpg")
    found = predict_files(model, [images], tmp_path / "two", crf=True, processes=2)
    assert [file.problem for file in found] == [f"{images}/fatal.jpg: its process crashed twice", None, None, None, None]
    for one, two in zip(expected[1:], found[1:], strict=True):
        assert Path(one.mask).read_bytes() == Path(two.mask).read_bytes()
        assert Path(one.overlay).read_bytes() == Path(two.overlay).read_bytes()
    assert lines_of(tmp_path / "one")[1:] == lines_of(tmp_path / "two")[1:]


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ends_with_the_files_of_one_that_was_not(tiny_run, model, images, tmp_path):
    for number in range(36):
        shutil.copy2(images / f"val_0000{number % 2}.jpg", images / f"copy_{number:02d}.jpg")
    expected = predict_files(model, [images], tmp_path / "whole", crf=True)
    out = tmp_path / "out"
    words = ["predict", str(images), "--run", str(tiny_run.folder), "--out", str(out), "--crf", "--processes", "2", "--device", "cpu"]
    running = subprocess.Popen([sys.executable, "-m", "vwl.cli.main", *words], stderr=subprocess.DEVNULL, cwd=ROOT)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children")
    while not (out / NAME).exists():
        assert running.poll() is None
        time.sleep(0.02)
    workers = [int(number) for number in children.read_text().split()]
    running.send_signal(signal.SIGKILL)
    running.wait()
    while any(
        Path(f"/proc/{number}/exe").exists() for number in workers
    ):  # they end with their parent; the test's time-out would say if not
        time.sleep(0.1)
    assert len(workers) >= 2
    kept = {line["name"] for line in lines_of(out)}
    assert 1 <= len(kept) < 40
    first, *_ = sorted(kept)
    (out / f"{first}_mask.png").write_bytes(b"damaged")
    found = predict_files(model, [images], out, crf=True)
    assert {Path(file.image).stem for file in found if file.kept} == {Path(name).stem for name in kept - {first}}
    assert [file.classes for file in found] == [file.classes for file in expected]
    assert contents(out) == contents(tmp_path / "whole")


def test_an_unreadable_image_is_listed_in_the_record_and_tried_again(model, images, tmp_path):
    whole = (images / "val_00001.jpg").read_bytes()
    (images / "val_00001.jpg").write_bytes(whole[:300])
    _, broken, *_ = predict_files(model, [images], tmp_path / "out", crf=False)
    line = lines_of(tmp_path / "out")[1]
    assert (line["status"], line["problem"], line["classes"]) == ("failed", broken.problem, [])
    (images / "val_00001.jpg").write_bytes(whole)
    again = predict_files(model, [images], tmp_path / "out", crf=False)
    assert [(file.problem, file.kept) for file in again] == [(None, True), (None, False), (None, True), (None, True)]


@pytest.mark.parametrize("change", [{"crf": True}, {"scores": True}, {"labels": "animal"}])
def test_other_settings_make_the_results_again(tiny_run, model, images, tmp_path, change):
    predict_files(model, [images / "sub"], tmp_path / "out", crf=False)
    if "labels" in change:
        change["labels"] = tmp_path / "labels.csv"
        change["labels"].write_text("".join(["image,labels\n", *(f"val_0000{number}.jpg,\n" for number in (2, 3))]))
    again = predict_files(model, [images / "sub"], tmp_path / "out", **{"crf": False, **change})
    assert [file.kept for file in again] == [False, False]


def test_progress_counts_what_is_left_of_an_earlier_call(model, images, tmp_path):
    calls = []
    for named in (images / "sub", images, images):
        calls.append([])
        predict_files(model, [named], tmp_path / f"out-{named.name}", crf=False, on_progress=calls[-1].append)
    (images / "new.txt").write_text("no picture")
    shutil.copy2(images / "val_00000.jpg", images / "val_00009.jpg")
    calls.append([])
    predict_files(model, [images], tmp_path / "out-images", crf=False, on_progress=calls[-1].append)
    counts = [[(progress.done, progress.total) for progress in call] for call in calls]
    assert counts == [
        [(0, 2), (1, 2), (1, 2), (2, 2)],
        [(0, 4), (1, 4), (2, 4), (3, 4), (3, 4), (4, 4)],
        [(0, 4), (0, 0)],
        [(0, 5), (1, 3), (1, 1)],
    ]
    assert [call[-1].message for call in calls] == ["", "", "4 of an earlier call", "4 of an earlier call"]


def test_two_calls_share_a_folder(model, images, tmp_path):
    predict_files(model, [images / "val_00000.jpg"], tmp_path / "out", crf=False)
    predict_files(model, [images / "sub/val_00002.jpg"], tmp_path / "out", crf=False)
    assert [line["name"] for line in lines_of(tmp_path / "out")] == ["val_00000", "val_00002"]


def test_labels_keep_masks_to_their_classes(tiny_run, sharp, images, tmp_path):
    free = predict_files(sharp, [images], tmp_path / "free", crf=False)
    assert {name for file in free for name in file.classes} == set(tiny_run.index.classes[1:])
    only = tiny_run.index.classes[1]
    rows = [f"val_00000,{only}", "val_00001.jpg,", f"sub/val_00002,{only}", "unknown.jpg,"]
    (tmp_path / "labels.csv").write_text("\n".join(["image,labels", *rows]))
    messages = []
    kept = predict_files(sharp, [images], tmp_path / "kept", crf=False, labels=tmp_path / "labels.csv", on_message=messages.append)
    assert [set(file.classes) <= {only} for file in kept[:3]] == [True] * 3
    assert kept[1].classes == ()
    assert any(file.classes for file in kept)
    assert kept[3].problem.endswith("labels.csv has no line of it; add one, with no labels for an image without objects")
    assert [line["labels"] for line in lines_of(tmp_path / "kept")] == [[only], [], [only], None]
    assert messages == [f"1 lines of {tmp_path}/labels.csv name none of the images"]
    named = sharp.predict([images / "val_00000.jpg"], crf=False, labels=[only])
    np.testing.assert_array_equal(named[0].mask, mask_in(kept[0].mask))
    with pytest.raises(VwlError, match="unknown class"):
        sharp.predict(images / "val_00000.jpg", labels=["cow?"])


@pytest.mark.parametrize("crf", [True, False])
def test_scores_are_maps_of_the_project_whose_argmax_is_the_mask(sharp, images, tmp_path, crf):
    found = predict_files(sharp, [images], tmp_path / "out", crf=crf, scores=True)
    for file in found:
        path = Path(file.scores)
        stored = MapReader(Folder(path.parent)).read(path.relative_to(tmp_path / "out").as_posix().removesuffix("_scores.parquet"))
        assert (stored.height, stored.width) == (file.height, file.width)
        assert stored.values.dtype == np.float16
        assert (stored.values >= 0).all()
        assert (stored.values <= 1).all()
        best = np.array(stored.classes)[upsample(stored.values, stored.height, stored.width).argmax(axis=0)]
        assert (best == mask_in(file.mask)).mean() > 0.9  # stride 4 cannot hold single pixels


def test_batches_of_one_size_give_masks_that_differ_in_hardly_a_pixel(sharp, images, tmp_path):
    turned = [np.asarray(Image.open(path)) for path in sorted(images.rglob("*.jpg"))]
    for number, pixels in enumerate(turned):
        Image.fromarray(pixels[:, ::-1].copy()).save(images / f"flip_{number}.png")
    one = predict_files(sharp, [images], tmp_path / "one", crf=False)
    many = predict_files(sharp, [images], tmp_path / "many", crf=False, batch=3)
    assert [file.image for file in one] == [file.image for file in many]
    for single, batched in zip(one, many, strict=True):
        assert (mask_in(single.mask) == mask_in(batched.mask)).mean() > 0.999


def test_threads_beside_a_gpu_write_what_one_process_writes(model, images, tmp_path):
    expected = predict_files(model, [images], tmp_path / "one", crf=True)
    (images / "text.jpg").write_text("no picture")
    paths = [*sorted(images.rglob("*.jpg"))] * 5
    jobs = (Job(PredictionLine(image=str(path), name=f"{number}/{path.stem}", status="")) for number, path in enumerate(paths))
    torch.set_num_threads(1)
    lines = [line for part in beside_threads(model, chunks(jobs, 1), Output(Folder(tmp_path / "out"), True)) for line in part]
    assert [line.image for line in lines] == [str(path) for path in paths]
    masks = {Path(file.image).name: Path(file.mask).read_bytes() for file in expected}
    for line in lines:
        name = Path(line.image).name
        assert (line.status == "failed") == (name == "text.jpg")
        if line.mask:
            assert (tmp_path / "out" / line.mask).read_bytes() == masks[name]


@pytest.mark.parametrize(("wanted", "images_there", "expected"), [(None, 7, 1), (5, 3, 3), (2, 100, 2), (1, 100, 1), (4, 0, 1)])
def test_processes_are_not_more_than_images_are_worth(wanted, images_there, expected):
    assert num_processes(wanted, images_there, torch.device("cpu")) == expected


def test_a_gpu_has_one_process():
    assert num_processes(None, 1000, torch.device("cuda")) == 1
    with pytest.raises(VwlError, match="is used by one process"):
        num_processes(2, 1000, torch.device("cuda"))


def test_an_image_with_a_name_too_long_for_its_results_is_listed(model, images, tmp_path):
    shutil.copy2(images / "val_00000.jpg", images / f"{'x' * 240}.jpg")
    found = predict_files(model, [images], tmp_path / "out", crf=False)
    assert [file.problem and file.problem.endswith("shorten it") for file in found] == [None, None, True, None, None]


def test_the_command_takes_a_list_on_stdin_and_shows_the_classes_of_many_images(tiny_run, images, tmp_path):
    for number in range(31):
        shutil.copy2(images / "val_00000.jpg", images / f"{number}.jpg")
    words = ["predict", "-", "--run", str(tiny_run.folder), "--out", str(tmp_path / "out"), "--no-crf", "--processes", "1"]
    listed = "\n".join(str(images / f"{number}.jpg") for number in range(31))
    result = CliRunner().invoke(app, words, input=listed)
    assert result.exit_code == 0, result.output
    assert result.stdout.startswith("31 masks in ")
    assert "mean share" in result.stdout
    empty = CliRunner().invoke(app, words, input="\n")
    assert (empty.exit_code, "the list on stdin names no files" in empty.stderr) == (1, True)


def test_the_stream_of_predictions_is_that_of_the_folder(model, images, tmp_path):
    found = predict_files(model, [images], tmp_path / "out", crf=False)
    torch.set_num_threads(1)
    streamed = list(model.stream(images, crf=False))
    assert [prediction.name for prediction in streamed] == ["val_00000", "val_00001", "sub/val_00002", "sub/val_00003"]
    for file, prediction in zip(found, streamed, strict=True):
        np.testing.assert_array_equal(prediction.mask, mask_in(file.mask))
