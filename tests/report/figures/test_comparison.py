"""The same images in several runs: which images, which columns, and what is in them."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import copy_run
from vwl.data.index import make_index, write_index
from vwl.errors import VwlError
from vwl.report.figures.comparison import comparison
from vwl.report.overlays import display_palette, mask_overlay
from vwl.storage.masks import decode_mask
from vwl.workflow.run_folder import Run

VAL = [f"val_{number:05d}" for number in range(4)]


@pytest.fixture
def copied(tiny_run, tmp_path):
    return copy_run(tiny_run, tmp_path)


def test_each_run_has_a_column_between_image_and_truth(tiny_run):
    grid = comparison([tiny_run, tiny_run], ["A", "B"], "cam", num_images=3)
    assert grid.columns == ["Image", "A", "B", "Ground truth"]
    assert [row.label for row in grid.rows] == [VAL[0], VAL[2], VAL[3]]
    for row in grid.rows:
        assert len({image.shape for image in row.images}) == 1
        assert np.array_equal(row.images[1], row.images[2])
    assert {colour.name for colour in grid.legend} <= set(tiny_run.index.classes[1:])


def test_masks_are_the_stages_own(tiny_run):
    grid = comparison([tiny_run], ["A"], "segment", [VAL[1]])
    image, shown, _ = grid.rows[0].images
    mask = decode_mask((tiny_run.folder / "segment").read(f"{VAL[1]}.png"), "")
    assert np.array_equal(shown, mask_overlay(image, mask, display_palette()))


def test_only_images_that_all_runs_have_are_chosen(tiny_run, copied):
    Path(copied.folder.path, "crf", f"{VAL[0]}.png").unlink()
    assert [row.label for row in comparison([tiny_run, copied], ["A", "B"], "crf").rows] == VAL[1:]
    named = comparison([tiny_run, copied], ["A", "B"], "crf", [VAL[0]]).rows[0]
    assert [image is None for image in named.images] == [False, False, True, False]


def test_without_ground_truth_there_is_no_column_for_it(copied):
    rows = [row.__class__(row.image_id, row.image, row.labels, None, row.split) for row in copied.index.rows]
    write_index(make_index(rows, copied.index.classes, copied.index.root, "test"), copied.index_path)
    run = Run.start(str(copied.folder), copied.recipe, copied.index_path, overwrite=True)
    assert comparison([run], ["A"], "walk", num_images=1).columns == ["Image", "A"]


def test_an_unknown_image_is_refused_with_the_nearest(tiny_run):
    with pytest.raises(VwlError, match=r"has no image 'val_0000'; did you mean 'val_0000\d'\?"):
        comparison([tiny_run], ["A"], "cam", ["val_0000"])


def test_a_run_without_the_stage_is_refused(copied):
    shutil.rmtree(Path(copied.folder.path, "walk"))
    with pytest.raises(VwlError, match="has no finished stage walk; run: vwl infer walk"):
        comparison([copied], ["A"], "walk")


def test_runs_on_different_data_are_refused(tiny_run, copied):
    write_index(make_index(copied.index.rows[1:], copied.index.classes, copied.index.root, "test"), copied.index_path)
    other = Run.start(str(copied.folder), copied.recipe, copied.index_path, overwrite=True)
    with pytest.raises(VwlError, match="different data sets"):
        comparison([tiny_run, other], ["A", "B"], "cam")
