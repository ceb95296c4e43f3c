"""The report of a finished run: a picture for each image, a sheet of all, and one file of scores."""

import io
import json
from dataclasses import asdict

import numpy as np
import pytest
from PIL import Image

from tests.helpers import copy_run
from vwl.maps.cam import upsample
from vwl.report import summary as report
from vwl.report.overlays import display_palette, heat_overlay, mask_overlay
from vwl.report.summary import image_panels, write_report
from vwl.storage.masks import decode_mask
from vwl.storage.score_maps import MapReader
from vwl.workflow.scoring import score_table

VAL = [f"val_{number:05d}" for number in range(4)]


@pytest.fixture
def copied(tiny_run, tmp_path):
    return copy_run(tiny_run, tmp_path)


def by_id(run, image_id):
    return next(row for row in run.index.rows if row.image_id == image_id)


def opened(folder, name):
    return Image.open(io.BytesIO(folder.read(name)))


def test_every_val_image_has_a_picture_and_is_on_the_sheet(copied):
    folder = copied.folder / "pictures"
    assert write_report(copied) == str(folder)
    assert folder.names() == sorted(["all.png", *(f"{image_id}.png" for image_id in VAL)])
    rows = [opened(folder, f"{image_id}.png") for image_id in VAL]
    sheet = opened(folder, "all.png")
    assert sheet.height > sum(row.height - 60 for row in rows)
    assert sheet.width >= max(row.width for row in rows)


def test_the_scores_of_all_stages_are_in_one_file(copied):
    write_report(copied)
    assert json.loads(copied.folder.read("scores.json")) == [asdict(line) for line in score_table(copied)]
    assert {(line.stage, line.split) for line in score_table(copied)} == {
        (stage, split) for stage in ("cam", "crf", "walk", "segment") for split in ("train", "val")
    }


def test_pictures_are_spread_evenly_over_the_split(copied, monkeypatch):
    monkeypatch.setattr(report, "NUM_PICTURES", 2)
    write_report(copied)
    assert (copied.folder / "pictures").names() == ["all.png", "val_00000.png", "val_00003.png"]


def test_an_image_has_a_panel_for_each_stage_in_order(tiny_run):
    row = by_id(tiny_run, VAL[0])
    image, palette = np.asarray(tiny_run.index.read_image(row)), display_palette()
    panels = dict(image_panels(tiny_run, row))
    caption = f"{row.image_id}: {', '.join(tiny_run.index.classes[label] for label in row.labels)}"
    assert list(panels) == [caption, "cam", "crf", "walk", "segment", "truth"]
    assert np.array_equal(panels[caption], image)
    assert np.array_equal(panels["truth"], mask_overlay(image, tiny_run.index.read_mask(row), palette))
    for stage in ("crf", "segment"):
        mask = decode_mask((tiny_run.folder / stage).read(f"{row.image_id}.png"), stage)
        assert np.array_equal(panels[stage], mask_overlay(image, mask, palette))
    for stage in ("cam", "walk"):
        score = MapReader(tiny_run.folder / stage).read(row.image_id)
        values = upsample(score.values, *image.shape[:2])
        assert np.array_equal(panels[stage], heat_overlay(image, values, row.labels, palette))


def test_a_stage_that_failed_on_the_image_has_an_empty_panel(copied):
    row = by_id(copied, VAL[1])
    (copied.folder / "crf").delete(f"{row.image_id}.png")
    assert [panel.caption for panel in image_panels(copied, row) if panel.image is None] == ["crf"]
    write_report(copied)


def test_an_image_without_a_final_mask_has_no_picture(copied):
    (copied.folder / "segment").delete(f"{VAL[2]}.png")
    write_report(copied)
    assert (copied.folder / "pictures").names() == ["all.png", "val_00000.png", "val_00001.png", "val_00003.png"]
