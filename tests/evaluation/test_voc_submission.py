"""The zip for the server: every mask of the split under the server's path, same masks same bytes."""

import zipfile
from pathlib import Path

import pytest
from typer.testing import CliRunner

from vwl.cli.main import app
from vwl.errors import VwlError
from vwl.evaluation.voc_submission import write_submission
from vwl.storage.folder import Folder


def test_the_masks_of_a_split_are_under_the_servers_path(tiny_run, tmp_path):
    out = tmp_path / "val.zip"
    done = CliRunner().invoke(app, ["voc-submission", "--run", str(tiny_run.folder), "--split", "val", "--out", str(out)])
    assert done.exit_code == 0, done.output
    rows = tiny_run.index.split("val")
    with zipfile.ZipFile(out) as archive:
        assert archive.namelist() == [f"results/VOC2012/Segmentation/comp6_val_cls/{row.image_id}.png" for row in rows]
        for name in archive.namelist():
            assert archive.read(name) == Path(str(tiny_run.folder), "segment", Path(name).name).read_bytes()


def test_the_same_masks_give_the_same_bytes(tiny_run, tmp_path):
    for name in ("a.zip", "b.zip"):
        assert write_submission(tiny_run, "val", Folder(tmp_path), name, "comp5") == len(tiny_run.index.split("val"))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()


def test_a_split_without_images_or_masks_is_one_line(tiny_run, tmp_path):
    with pytest.raises(VwlError, match=r"the index has no images in split 'test'"):
        write_submission(tiny_run, "test", Folder(tmp_path), "a.zip")
    lonely = type(tiny_run)(Folder(tmp_path / "run"), tiny_run.recipe, tiny_run.index, tiny_run.index_path)
    with pytest.raises(VwlError, match=r"lacks 4 of 4 masks of val, e\.g\. val_00000; run: vwl infer segment"):
        write_submission(lonely, "val", Folder(tmp_path), "a.zip")
