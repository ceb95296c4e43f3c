"""The result of a run as an object: scores, masks, metrics, failures, report and models, and the same through the commands."""

import json
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

import vwl
from tests.helpers import copy_run, truncate
from tests.stages import STAGES
from vwl.cli.main import app
from vwl.storage.masks import decode_mask
from vwl.workflow.pipeline import run_stages


def command_json(*words: object) -> object:
    done = CliRunner().invoke(app, [*map(str, words), "--json"])
    assert done.exit_code == 0, done.output
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def result(tiny_run) -> vwl.RunResult:
    return vwl.open_run(tiny_run.folder.uri)


def test_the_scores_and_the_status_are_those_of_the_commands(result):
    assert [vars(line) for line in vwl.evaluate(result.folder)] == command_json("evaluate", "--run", result.folder)
    assert [vars(line) for line in result.status] == command_json("status", "--run", result.folder)


@pytest.mark.parametrize(("stage", "split"), [("cam", "train"), ("segment", "val")])
def test_one_stage_has_every_class_and_its_curve_as_the_command_shows_them(result, stage, split):
    found = vwl.evaluate(result, stage, split)
    assert found.as_json() == command_json("evaluate", "--run", result.folder, "--stage", stage, "--split", split)
    assert np.isclose(np.mean(list(found.iou.values())), found.miou, atol=0.01)
    assert (found.curve is None) == (stage == "segment")


def test_masks_are_read_by_image_id_and_have_a_path(result):
    masks = result.masks
    assert len(masks) == 12
    for image_id, mask in masks.items():
        image = result.index.read_image(next(row for row in result.index.rows if row.image_id == image_id))
        assert (mask.shape, mask.dtype) == ((image.height, image.width), np.uint8)
        assert np.array_equal(mask, decode_mask(Path(masks.path(image_id)).read_bytes(), image_id))
    assert "train_00000" in masks
    assert "train_99999" not in masks
    with pytest.raises(KeyError):
        masks.path("../classifier/weights")
    assert set(result.stage_masks("masks")) == {f"train_{number:05d}" for number in range(8)}


def test_only_stages_that_write_masks_have_some(result):
    with pytest.raises(vwl.VwlError, match="the stage 'cam' writes no masks; those that do are crf"):
        result.stage_masks("cam")
    with pytest.raises(vwl.VwlError, match="'cam' is no training"):
        result.metrics("cam")


def test_the_model_of_the_result_gives_the_masks_of_the_result(result):
    row = result.index.split("val")[0]
    model = vwl.load_model(result.folder)
    for loaded in (result.model(), model):
        assert np.array_equal(loaded.predict(result.index.read_image(row)).mask, result.masks[row.image_id])


def test_a_run_that_is_not_done_says_so(tiny_run, tmp_path):
    run = copy_run(tiny_run, tmp_path)
    (tmp_path / "run/segment/manifest.json").unlink()
    (tmp_path / "run/segment/record.json").unlink()
    opened = vwl.open_run(tmp_path / "run")
    assert opened.report is None
    with pytest.raises(vwl.VwlError, match=r"the stage segment of .* is not done; finish the run with vwl\.run\(out="):
        _ = opened.masks
    assert {line.stage for line in opened.scores} == {"cam", "crf", "walk"}
    assert run.folder.uri == opened.folder


def test_failed_images_are_listed_with_their_reason_and_have_no_mask(tiny_run, tmp_path):
    from vwl.config.layout import Layout
    from vwl.engine import local
    from vwl.engine.base import Engine

    run = copy_run(tiny_run, tmp_path)
    truncate(run.index, "val_00001")
    run.stage_folder("segment").clear()
    run_stages(run, ["segment"], Engine(local, local), Layout(), lambda progress: None, lambda message: None)
    opened = vwl.open_run(tmp_path / "run")
    assert set(opened.failed) == {"segment"}
    assert "truncated" in opened.failed["segment"]["val_00001"]
    assert "val_00001" not in opened.masks
    assert len(opened.masks) == 11


def test_there_is_one_line_where_there_is_no_run(tmp_path):
    with pytest.raises(vwl.VwlError, match="is not a run folder"):
        vwl.open_run(tmp_path)


def test_metrics_are_those_of_the_file_and_a_cut_off_line_is_none(tiny_run, tmp_path):
    copy_run(tiny_run, tmp_path)
    opened, path = vwl.open_run(tmp_path / "run"), tmp_path / "run/irnet/metrics.jsonl"
    whole = opened.metrics("irnet")
    assert [metrics.line for metrics in whole] == list(range(len(whole)))
    path.write_text(path.read_text() + '{"step": 99, "lo')
    assert opened.metrics("irnet") == whole
    assert all(opened.metrics(stage) for stage, spec in STAGES.items() if spec.kind == "train")
