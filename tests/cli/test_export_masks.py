"""`vwl export FORMAT`: the examples run, the JSON is the summary, and what is wrong is one line."""

import json
import shlex
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers import copy_run
from tests.hostile.cases import Case, check
from vwl.cli import export
from vwl.cli.main import app
from vwl.storage.class_table import write_class_table
from vwl.storage.folder import Folder

pytest.importorskip("shapely")

from vwl.exporters.export import FORMATS

COMMANDS = {command.name: command.callback for command in export.app.registered_commands if command.name in FORMATS}


@pytest.fixture(scope="module")
def house(tiny_run, tmp_path_factory):
    """A folder with what the examples name."""
    folder = tmp_path_factory.mktemp("house")
    run = copy_run(tiny_run, folder)
    (folder / "runs").mkdir()
    (folder / "runs/voc").symlink_to(folder / "run")
    (folder / "predictions").mkdir()
    (folder / "images").mkdir()
    for row in run.index.split("val"):
        shutil.copy(folder / f"run/segment/{row.image_id}.png", folder / f"predictions/{row.image_id}_mask.png")
        shutil.copy(folder / "scenes" / row.image, folder / "images")
    write_class_table(Folder(folder / "predictions"), run.index.classes, run.index.palette)
    return folder


def vwl(*words):
    return CliRunner().invoke(app, [str(word) for word in words])


def test_every_format_has_a_command():
    assert list(COMMANDS) == list(FORMATS)


@pytest.mark.parametrize(
    "line",
    [line.strip() for command in COMMANDS.values() for line in command.__doc__.partition("Examples:")[2].splitlines() if line.strip()],
)
def test_the_examples_run(house, monkeypatch, line):
    monkeypatch.chdir(house)
    result = vwl(*shlex.split(line)[1:])
    assert result.exit_code == 0, result.output


def test_the_json_is_the_summary(house, tmp_path):
    result = vwl("export", "coco", "--run", house / "run", "--stage", "masks", "--out", tmp_path, "--json")
    summary = json.loads(result.stdout)
    assert (summary["format"], summary["images"], summary["folder"]) == ("coco", 8, str(tmp_path))
    content = json.loads((tmp_path / "annotations.json").read_text())
    assert len(content["annotations"]) == summary["regions"]
    assert f"{summary['regions']} regions of 8 images written to {tmp_path}" in result.stderr


def test_images_are_copied_beside_the_annotations(house, tmp_path):
    assert vwl("export", "coco", "--run", house / "run", "--out", tmp_path, "--copy-images").exit_code == 0
    for image in json.loads((tmp_path / "annotations.json").read_text())["images"]:
        assert (tmp_path / "images" / image["file_name"]).read_bytes() == (house / "scenes" / image["file_name"]).read_bytes()


WRONG = [
    Case("neither", lambda f: ("export", "coco"), 2, ("name the run with --run FOLDER, or a folder of masks with --masks FOLDER",)),
    Case("both", lambda f: ("export", "coco", "--run", "a", "--masks", "b"), 2, ("and not both",)),
    Case("stage of masks", lambda f: ("export", "voc", "--masks", "a", "--stage", "crf"), 2, ("--stage goes with --run only",)),
    Case("images of a run", lambda f: ("export", "voc", "--run", "a", "--images", "b"), 2, ("--images goes with --masks only",)),
    Case("tolerance", lambda f: ("export", "coco", "--run", "a", "--tolerance", "-1"), 2, ("'--tolerance'",)),
    Case("tolerance that is no number", lambda f: ("export", "coco", "--run", "a", "--tolerance", "nan"), 2, ("'--tolerance'",)),
    Case("yolo has no pixels", lambda f: ("export", "yolo-seg", "--run", "a", "--geometry", "rle"), 2, ("--geometry",)),
    Case("no run", lambda f: ("export", "coco", "--run", f / "none"), 1, ("is not a run folder",)),
    Case("no folder", lambda f: ("export", "coco", "--masks", f / "none", "--classes", written(f, "a\n")), 1, ("cannot list",)),
    Case("no names", lambda f: ("export", "coco", "--masks", f, "--classes", written(f, "\n")), 1, ("holds no class names",)),
    Case("a name twice", lambda f: ("export", "coco", "--masks", f, "--classes", written(f, "a\nA\n")), 1, ("differ only in case",)),
    Case("no masks", lambda f: ("export", "coco", "--masks", f, "--classes", written(f, "a\n")), 1, ("holds no masks",)),
    Case("a damaged mask", lambda f: damaged(f), 1, ("a_mask.png cannot be read", "not an image")),
    Case("copies over images", lambda f: onto_itself(f), 1, ("choose another --out folder",)),
]


def written(folder: Path, text: str) -> Path:
    (folder / "names.txt").write_text(text)
    return folder / "names.txt"


def damaged(folder: Path) -> tuple[object, ...]:
    (folder / "masks").mkdir()
    (folder / "masks/a_mask.png").write_bytes(b"no image")
    return ("export", "coco", "--masks", folder / "masks", "--classes", written(folder, "a\n"), "--out", folder / "out")


def onto_itself(folder: Path) -> tuple[object, ...]:
    damaged(folder)
    (folder / "images").mkdir()
    (folder / "images/a.jpg").write_bytes(b"")
    where = ("--images", folder / "images", "--out", folder / "images", "--copy-images")
    return ("export", "labelme", "--masks", folder / "masks", "--classes", folder / "names.txt", *where)


@pytest.mark.parametrize("case", WRONG, ids=lambda case: case.name)
def test_what_is_wrong_is_one_line(case, tmp_path):
    check(case, tmp_path)
