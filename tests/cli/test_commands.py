"""The commands of a run: their examples run, their JSON parses, and their exit codes say whether images failed."""

import glob
import json
import shlex
import shutil
import sys
from dataclasses import asdict
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from tests.helpers import copy_run, truncate
from tests.stages import STAGES
from vwl.cli import evaluate, export, infer, predict, status
from vwl.cli.main import app
from vwl.model_file.content import read_model
from vwl.storage.checked import read_checked, write_checked
from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import score_table
from vwl.workflow.stages import SCORED

INFERENCE = [name for name, spec in STAGES.items() if spec.kind != "train"]


def vwl(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def vwl_json(*arguments: object) -> object:
    result = vwl(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


@pytest.fixture
def copied(tiny_run, tmp_path) -> Run:
    return copy_run(tiny_run, tmp_path)


@pytest.fixture
def house(copied, tmp_path, monkeypatch) -> Path:
    """A working folder with what the examples name: the tiny run and a few images."""
    image = tmp_path / "scenes/images/val_00000.jpg"
    for name in ("runs", "demo", "images"):
        (tmp_path / name).mkdir()
    for name in ("runs/voc", "demo/run"):
        (tmp_path / name).symlink_to(tmp_path / "run")
    for name in ("dog.jpg", "cat.jpg", "images/a.jpg", "images/b.jpg"):
        shutil.copy(image, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    assert vwl("export", "model", "--run", "runs/voc", "--out", "dogs.safetensors").exit_code == 0
    return tmp_path


def examples(function) -> list[str]:
    return [line.strip() for line in function.__doc__.partition("Examples:")[2].splitlines() if line.strip()]


COMMANDS = [
    evaluate.evaluate,
    export.model,
    predict.predict,
    status.status,
    *(command.callback for command in infer.app.registered_commands),
]


@pytest.mark.parametrize("line", [line for command in COMMANDS for line in examples(command)])
def test_the_examples_run(house, line):
    words = [found for word in shlex.split(line)[1:] for found in (sorted(glob.glob(word)) if "*" in word else [word])]
    if words[0] == "infer":
        words += ["--backend", "local"]
    result = vwl(*words)
    assert result.exit_code == 0, result.output


def test_status_as_json_has_a_line_a_stage(tiny_run):
    lines = vwl_json("status", "--run", tiny_run.folder)
    assert [line["stage"] for line in lines] == list(STAGES)
    assert {line["state"] for line in lines} == {"done"}


def test_status_as_a_table_names_every_stage(tiny_run):
    shown = vwl("status", "--run", tiny_run.folder).stdout
    assert "recipe demo" in shown
    assert all(f"\n{name} " in shown for name in STAGES)


def test_the_scores_as_json_are_those_of_the_table(tiny_run):
    assert vwl_json("evaluate", "--run", tiny_run.folder) == [asdict(line) for line in score_table(tiny_run)]


@pytest.mark.parametrize("stage", SCORED)
@pytest.mark.parametrize("split", ["train", "val"])
def test_a_stages_score_as_json_has_every_class(tiny_run, stage, split):
    score = vwl_json("evaluate", "--run", tiny_run.folder, "--stage", stage, "--split", split)
    assert (score["stage"], score["split"]) == (stage, split)
    assert set(score["iou"]) <= set(tiny_run.index.classes)
    assert len(score["confusion"]) == len(tiny_run.index.classes)


def test_a_stages_score_as_a_table_has_a_line_a_class(tiny_run):
    lines = vwl("evaluate", "--run", tiny_run.folder, "--stage", "segment").stdout.splitlines()
    assert lines[0].startswith("segment on val, 4 images: mIoU ")
    assert lines[1].split("  ")[0] == "class"
    assert lines[1].endswith("iou  precision  recall  over activation  under activation")
    assert {line.split()[0] for line in lines[2:]} <= set(tiny_run.index.classes)


def test_the_curve_has_a_line_a_threshold_and_masks_have_none(tiny_run):
    of_maps, of_masks = (vwl("evaluate", "--run", tiny_run.folder, "--stage", stage, "--curve").stdout for stage in ("cam", "crf"))
    assert len(of_maps.splitlines()) - 2 in {101, 102}
    assert len(of_masks.splitlines()) == 2


def test_the_confusion_matrix_counts_every_pixel_with_ground_truth(tiny_run):
    lines = vwl("evaluate", "--run", tiny_run.folder, "--stage", "segment", "--confusion").stdout.splitlines()[2:]
    counted = sum(int(count) for line in lines for count in line.split()[1:])
    masks = [tiny_run.index.read_mask(row) for row in tiny_run.index.split("val")]
    assert counted == sum((mask != 255).sum() for mask in masks)


def test_export_model_as_json_is_the_description_in_the_file(tiny_run, tmp_path):
    stored = vwl_json("export", "model", "--run", tiny_run.folder, "--out", tmp_path / "a.safetensors", "--licence", "CC BY 4.0")
    assert stored == read_model(tmp_path / "a.safetensors")[0].as_json()
    assert (stored["licence"], stored["classes"]) == ("CC BY 4.0", list(tiny_run.index.classes))


def test_predict_as_json_names_the_files_it_wrote(tiny_run, tmp_path):
    image = Path(tiny_run.index.root.path, "images/val_00000.jpg")
    (line,) = vwl_json("predict", image, "--run", tiny_run.folder, "--out", tmp_path)
    assert line["image"] == str(image)
    assert Path(line["mask"]).read_bytes() == (tiny_run.folder / "segment").read("val_00000.png")
    assert Path(line["overlay"]).is_file()


def test_a_run_that_is_done_prints_its_table_as_json_and_makes_its_pictures(copied):
    result = vwl("run", "--run", copied.folder, "--backend", "local", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == [asdict(line) for line in score_table(copied)] == copied.folder.read_json("scores.json")
    assert result.stderr.splitlines() == [
        *(f"{name}: done before, skipped" for name in STAGES),
        f"pictures: {copied.folder}/pictures",
        f"report: {copied.folder}/report.html (open it in a browser)",
    ]
    assert (copied.folder / "pictures").exists("all.png")


def test_a_manifest_of_another_version_is_one_line_of_status_and_run(copied):
    path = Path(copied.folder.path, "cam", "manifest.json")
    write_checked(copied.folder / "cam", "manifest.json", {**read_checked(copied.folder / "cam", "manifest.json"), "decisions": {}})
    content = path.read_bytes()
    for command in (["status", "--run", copied.folder], ["run", "--run", copied.folder, "--backend", "local"]):
        result = vwl(*command)
        assert result.exit_code == 1
        (line,) = [line for line in result.stderr.splitlines() if "done before, skipped" not in line]
        assert line == (
            f"error: {path} is damaged or of another version of vwl; "
            f"delete {path.parent} to run the stage again, or use another --run folder"
        )
    assert path.read_bytes() == content


def test_a_run_without_scores_prints_an_empty_list_and_ends_with_exit_code_1(copied):
    shutil.rmtree(Path(copied.folder.path, "cam"))
    for name in ("crf", "walk", "segment"):
        shutil.rmtree(Path(copied.folder.path, name))
    result = vwl("evaluate", "--run", copied.folder, "--json")
    assert (result.exit_code, json.loads(result.stdout)) == (1, [])
    assert (
        result.stderr
        == f"error: nothing was scored: none of the stages cam, crf, walk, segment is done; run: vwl run --run {copied.folder}\n"
    )


def test_a_run_with_a_truncated_image_does_everything_else_and_ends_with_exit_code_1(copied):
    truncate(copied.index, "val_00002")
    for name in INFERENCE:
        shutil.rmtree(Path(copied.folder.path, name))
    result = vwl("run", "--run", copied.folder, "--backend", "local", "--json")
    assert result.exit_code == 1
    assert all(copied.is_done(name) for name in STAGES)
    assert {line["images"] for line in json.loads(result.stdout) if line["split"] == "val"} == {3}
    assert (copied.folder / "pictures").exists("all.png")
    folder = copied.folder
    assert result.stderr.splitlines()[-1] == f"1 image failed, see {folder}/cam/manifest.json, {folder}/segment/manifest.json"
    assert "Traceback" not in result.stderr
    # The answer stays the same where the stages were done before, and is that of the stage which is asked for.
    codes = {name: vwl("infer", name, "--run", folder, "--backend", "local").exit_code for name in INFERENCE}
    assert codes == {"cam": 1, "crf": 0, "irnet-labels": 0, "walk": 0, "masks": 0, "segment": 1}


def test_a_stage_with_two_truncated_images_ends_with_exit_code_1(copied):
    shutil.rmtree(Path(copied.folder.path, "segment"))
    truncate(copied.index, "val_00002")
    truncate(copied.index, "train_00000")
    result = vwl("infer", "segment", "--run", copied.folder, "--backend", "local")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"2 images failed, see {copied.folder}/segment/manifest.json"


@pytest.mark.parametrize("name", ["crf", "irnet-labels", "segment"])
def test_a_stage_is_refined_by_the_implementation_that_is_asked_for(copied, name):
    pytest.importorskip("pydensecrf")
    before = copied.manifest(name).settings["kernels"]["implementation"]
    result = vwl("infer", name, "--run", copied.folder, "--backend", "local", "--crf", "pydensecrf", "--overwrite")
    assert result.exit_code == 0, result.output
    again = Run.open(str(copied.folder))
    assert (before, again.manifest(name).settings["kernels"]["implementation"]) == ("auto", "pydensecrf")
    assert again.is_done(name)


def test_another_implementation_is_another_recipe(copied):
    result = vwl("infer", "segment", "--run", copied.folder, "--backend", "local", "--crf", "native")
    assert result.exit_code == 1
    assert "segment.kernels.implementation: auto -> native" in result.stderr


def test_a_whole_run_takes_the_implementation_for_all_its_stages(copied):
    assert vwl("run", "--run", copied.folder, "--backend", "local", "--crf", "native", "--overwrite").exit_code == 0
    recipe = Run.open(str(copied.folder)).recipe
    assert {section.kernels.implementation for section in (recipe.crf, recipe.irnet_labels, recipe.segment)} == {"native"}


@pytest.mark.parametrize("command", [["run"], ["infer", "crf"]])
def test_an_unknown_implementation_is_refused_in_one_line(copied, command):
    result = vwl(*command, "--run", copied.folder, "--backend", "local", "--crf", "simplecrf")
    assert result.exit_code == 2
    assert result.stderr == (
        "error: invalid value for '--crf': 'simplecrf' is not one of 'auto', 'native', 'torch', 'pydensecrf'; "
        f"see vwl {' '.join(command)} --help\n"
    )


def test_without_the_package_every_stage_works_and_asking_for_it_is_one_line(copied, monkeypatch):
    monkeypatch.setitem(sys.modules, "pydensecrf", None)  # makes its import fail
    for name in ("crf", "irnet-labels", "segment"):
        shutil.rmtree(Path(copied.folder.path, name))
    assert vwl("run", "--run", copied.folder, "--backend", "local").exit_code == 0
    assert all(copied.is_done(name) for name in STAGES)
    result = vwl("infer", "crf", "--run", copied.folder, "--backend", "local", "--crf", "pydensecrf", "--overwrite")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: implementation: pydensecrf is not installed")
