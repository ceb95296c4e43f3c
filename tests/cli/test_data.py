import inspect
import io
import json
import shlex

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from typer.testing import CliRunner

from tests.helpers import tiny_scenes
from vwl.cli import data, prepare
from vwl.cli.data import app
from vwl.data.index import read_index, write_index
from vwl.errors import VwlError

COMMANDS = (prepare.voc, prepare.coco, prepare.folder, prepare.scenes, data.show, data.check)


def run(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def examples(command):
    lines = inspect.getdoc(command).split("Examples:")[1].splitlines()
    return [line.strip() for line in lines if line.strip().startswith("vwl ")]


@pytest.fixture
def examples_folder(tmp_path, monkeypatch):
    """A working directory with tiny versions of all files that the examples name."""
    monkeypatch.chdir(tmp_path)
    write_index(tiny_scenes(tmp_path / "scenes", 2, 1), tmp_path / "voc.parquet")
    folders = ("VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/ImageSets/Segmentation", "benchmark_RELEASE/dataset/cls")
    for name in (*folders, "coco2014/annotations", "coco2014/train2014", "images", "masks"):
        (tmp_path / name).mkdir(parents=True)
    for name in (f"{folders[0]}/a.jpg", f"{folders[0]}/b.jpg", "coco2014/train2014/a.jpg", "images/a.jpg"):
        Image.new("RGB", (8, 6)).save(name)
    mask = np.full((6, 8), 1, np.uint8)
    Image.fromarray(mask).save("masks/a.png")
    content = io.BytesIO()
    savemat(content, {"GTcls": {"Segmentation": mask}})
    texts = {
        f"{folders[1]}/train.txt": "a\n",
        "benchmark_RELEASE/dataset/train.txt": "b\n",
        "VOCdevkit/VOC2012/ImageSets/image_labels.txt": "a aeroplane\nb aeroplane\n",
        "image_labels.txt": "a aeroplane\nb aeroplane\n",
        "labels.csv": "image,labels\na,cat\n",
        "classes.txt": "cat\n",
    }
    for name, text in texts.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "benchmark_RELEASE/dataset/cls/b.mat").write_bytes(content.getvalue())
    shape = {"id": 1, "image_id": 1, "category_id": 3, "area": 9, "iscrowd": 0, "segmentation": [[1, 1, 4, 1, 4, 4, 1, 4]]}
    image = {"id": 1, "file_name": "a.jpg", "height": 6, "width": 8}
    coco = {"images": [image], "categories": [{"id": 3, "name": "car"}], "annotations": [shape]}
    (tmp_path / "coco2014/annotations/instances_train2014.json").write_text(json.dumps(coco))
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__)
def test_both_examples_of_the_help_run(examples_folder, command):
    lines = examples(command)
    assert len(lines) == 2
    for line in lines:
        arguments = shlex.split(line)
        assert arguments[:2] == ["vwl", "data"]
        if arguments[3] == "scenes" and "--num-train" not in arguments:
            arguments += ["--num-train", "2", "--num-val", "1"]  # the default number takes long
        assert run(*arguments[2:]).exit_code == 0
        if "--out" in arguments:
            assert read_index(examples_folder / arguments[arguments.index("--out") + 1]).rows


def test_prepare_prints_the_splits_and_the_notes(tmp_path):
    result = run(
        "prepare",
        "scenes",
        "--folder",
        tmp_path / "s",
        "--num-train",
        3,
        "--num-val",
        2,
        "--num-classes",
        1,
        "--out",
        tmp_path / "i.parquet",
    )
    cells = [line.split() for line in result.stdout.splitlines()]
    assert ["train", "3", "1", "3"] in cells
    assert ["val", "2", "1", "2"] in cells
    assert "- drew 5 scenes, kept 0 existing ones" in result.stdout


def test_show_prints_json(examples_folder):
    about = json.loads(run("show", examples_folder / "voc.parquet", "--json").stdout)
    index = read_index(examples_folder / "voc.parquet")
    assert about["classes"] == ["background", "beetle", "lizard"]
    assert about["fingerprint"] == index.fingerprint()
    assert [(split["split"], split["images"]) for split in about["splits"]] == [("train", 2), ("val", 1)]


def test_check_prints_the_problems_and_exits_with_1(examples_folder):
    index = read_index(examples_folder / "voc.parquet")
    (examples_folder / "scenes" / index.rows[0].image).write_bytes(b"")
    result = run("check", examples_folder / "voc.parquet")
    assert result.exit_code == 1
    assert f"unreadable-image: image {index.rows[0].image} cannot be read" in result.stdout
    result = run("check", examples_folder / "voc.parquet", "--json")
    assert result.exit_code == 1
    assert [problem["kind"] for problem in json.loads(result.stdout)] == ["unreadable-image"]


def test_a_missing_index_is_a_user_error(tmp_path):
    with pytest.raises(VwlError, match="there is no index table"):
        run("show", tmp_path / "gone.parquet")
