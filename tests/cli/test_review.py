"""`vwl review`, `vwl data add-masks` and `vwl run --reuse`: from doubtful masks to a run that has learned their corrections."""

import csv
import inspect
import json
import shlex
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner, Result

from tests.helpers import copy_run
from tests.stages import STAGES
from vwl.cli import data, review
from vwl.cli.main import app
from vwl.storage.masks import decode_mask
from vwl.workflow.run_folder import Run


def vwl(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def examples(function) -> list[str]:
    return [line.strip() for line in inspect.getdoc(function).partition("Examples:")[2].splitlines() if line.strip().startswith("vwl ")]


@pytest.fixture
def house(tiny_run, tmp_path, monkeypatch) -> Path:
    """A working folder with what the examples name."""
    copy_run(tiny_run, tmp_path)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/voc").symlink_to(tmp_path / "run")
    (tmp_path / "voc.parquet").symlink_to(tmp_path / "index.parquet")
    monkeypatch.chdir(tmp_path)
    for name in ("corrected", "to-correct"):
        assert vwl("review", "--run", "runs/voc", "--top", 2, "--out", name).exit_code == 0
    correct(tmp_path / "corrected")
    return tmp_path


def correct(folder: Path) -> list[str]:
    """Change every mask of a folder, and return the image ids."""
    for path in folder.glob("*.png"):
        mask = decode_mask(path.read_bytes(), path.name)
        Image.fromarray(np.where(mask == 0, 1, mask).astype(np.uint8)).save(path)
    return sorted(path.stem for path in folder.glob("*.png"))


@pytest.mark.parametrize("line", [*examples(review.review), *examples(data.add_masks)])
def test_the_examples_run(house, line):
    (house / "to-correct").rename(house / "to-correct-2")
    if "to-correct " in line and "add-masks" in line:
        (house / "to-correct-2").rename(house / "to-correct")
    result = vwl(*shlex.split(line)[1:])
    assert result.exit_code == 0, result.output


def test_the_queue_as_json_has_reasons_and_tells_how_well_it_finds_bad_masks(house):
    result = vwl("review", "--run", "run", "--top", 3, "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [line["rank"] for line in found["images"]] == [1, 2, 3]
    assert all(line["reason"] for line in found["images"])
    assert (found["ranked"], found["not_ranked"]) == (12, 0)
    assert [(line["stage"], line["images"], line["top"]) for line in found["ranking"]] == [
        (name, 12, 1) for name in ("crf", "walk", "segment")
    ]


def test_the_table_has_a_line_an_image_and_one_a_stage(house):
    lines = vwl("review", "--run", "run", "--top", 3).stdout.splitlines()
    assert lines[0].endswith("the first 3 of 12 images, by disagreement of crf, walk, segment")
    assert lines[1].split()[:2] == ["rank", "image"]
    assert [line.split()[0] for line in lines[2:5]] == ["1", "2", "3"]
    assert lines[5] == "the first tenth of the queue against ground truth, percent"
    assert [line.split()[0] for line in lines[7:]] == ["crf", "walk", "segment"]


def test_corrected_masks_go_from_the_queue_into_a_new_run(house):
    corrected = correct(house / "to-correct")
    added = vwl("data", "add-masks", "run", "to-correct", "--out", "new.parquet", "--json")
    assert added.exit_code == 0, added.output
    counts = json.loads(added.stdout)
    assert sorted([*counts["training"], *counts["held_out"]]) == corrected
    assert "next: vwl run --data new.parquet --run NEW --reuse run, or vwl run --data new.parquet --run run --overwrite" in added.stderr
    result = vwl("run", "--data", "new.parquet", "--run", "new", "--reuse", "run", "--backend", "local")
    assert result.exit_code == 0, result.output
    kept = ["classifier", "cam", "crf", "irnet-labels", "irnet", "walk"]
    expected = kept if counts["training"] else [*kept, "masks", "segmenter"]
    assert f"copied from run: {', '.join(expected)}" in result.stderr
    run = Run.open("new")
    assert all(run.is_done(stage) for stage in STAGES)
    assert run.recipe == Run.open("run").recipe
    for image_id in counts["training"]:
        assert (house / "new/masks" / f"{image_id}.png").exists()


def test_a_new_run_takes_recipe_and_data_of_the_one_that_it_reuses(house):
    result = vwl("run", "--run", "again", "--reuse", "run", "--backend", "local", "-o", "segment.hflip=false")
    assert result.exit_code == 0, result.output
    assert f"copied from run: {', '.join(name for name in STAGES if name != 'segment')}" in result.stderr
    assert "the default" not in result.stderr


def test_the_pre_annotations_name_images_and_classes(house):
    with open("to-correct/queue.csv", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [int(row["rank"]) for row in rows] == [1, 2]
    assert all(Path(row["image"]).is_file() for row in rows)
    assert Path("to-correct/classes.txt").read_text().splitlines() == list(Run.open("run").index.classes)


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ("review --run nowhere", 1, "nowhere is not a run folder"),
        ("review --run run --top 0", 2, "'--top'"),
        ("review --run run --by luck", 2, "'--by'"),
        ("review --run run --split test", 1, "the index has no images in split 'test'"),
        ("review --run run --out to-correct --html page.html", 1, "holds masks already"),
        ("review --run run --html scenes", 1, "scenes"),
        ("data add-masks run nowhere --out new.parquet", 1, "nowhere"),
        ("data add-masks run to-correct --out new.parquet", 1, "no mask in"),
        ("data add-masks nowhere to-correct --out new.parquet", 1, "there is no index table at nowhere"),
        ("run --run new --reuse nowhere --backend local", 1, "nowhere is not a run folder"),
    ],
)
def test_a_mistake_is_one_line(house, words, code, message):
    result = vwl(*shlex.split(words))
    assert result.exit_code == code, result.output
    (line,) = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert message in line
    assert not (house / "new.parquet").exists()
    assert not (house / "new").exists()
    assert not (house / "page.html").exists()
