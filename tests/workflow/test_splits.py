"""Images to segment: every image of a split gets a mask when asked for, with or without ground truth, and only what is missing is made."""

from dataclasses import replace
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.helpers import copy_run, tiny_scenes
from tests.stages import STAGES
from tests.workflow.runs import delete_stages, modification_times, new_run, run_locally
from vwl.cli.main import app
from vwl.config.layout import Layout
from vwl.data.index import make_index, write_index
from vwl.engine import local
from vwl.engine.base import Engine
from vwl.errors import VwlError
from vwl.evaluation.voc_submission import write_submission
from vwl.storage.folder import Folder
from vwl.workflow.pipeline import run_stages
from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import score_table
from vwl.workflow.status import stage_status


@pytest.fixture(scope="module")
def partly_scored(tmp_path_factory) -> Run:
    """A finished run in which half of the images of train and val have no ground truth, and two images of test have no labels."""
    folder = tmp_path_factory.mktemp("splits")
    scenes = tiny_scenes(folder / "scenes", 8, 6)
    rows = [row if number % 2 else replace(row, mask=None) for number, row in enumerate(scenes.rows)]
    rows[-2:] = [replace(row, split="test", mask=None, labels=()) for row in rows[-2:]]
    run = new_run(folder, make_index(rows, scenes.classes, scenes.root, "photographs"))
    run_locally(run, *STAGES)
    return run


@pytest.fixture
def run(partly_scored, tmp_path) -> Run:
    return copy_run(partly_scored, tmp_path)


def vwl(*words: object):
    return CliRunner().invoke(app, [str(word) for word in words])


def masks(run: Run) -> set[str]:
    return {name.removesuffix(".png") for name in (run.folder / "segment").names(".png")}


def ids(run: Run, *splits: str) -> set[str]:
    return {row.image_id for row in run.index.rows if row.split in splits}


def segment(run: Run, *splits: str) -> list[str]:
    messages: list[str] = []
    engine = Engine(local, local)
    run_stages(run, ["segment"], engine, Layout(), lambda progress: None, messages.append, splits=splits)
    return messages


def test_without_being_asked_the_images_with_ground_truth_and_those_of_test_are_segmented(run):
    assert masks(run) == {row.image_id for row in run.index.rows if row.mask is not None} | ids(run, "test")
    assert len(masks(run)) == 8


@pytest.mark.parametrize(("split", "added"), [("val", 2), ("train", 4), ("all", 6), ("test", 0)])
def test_a_split_that_is_asked_for_is_segmented_whole_and_the_masks_before_stay(run, split, added):
    before, old = modification_times(run, "segment/*.png", "segment/done/*"), masks(run)
    scores = score_table(run)
    messages = segment(run, split)
    assert messages == ([] if added else ["segment: done before, skipped"])
    assert masks(run) == old | ids(run, *(("train", "val", "test") if split == "all" else (split,)))
    assert len(masks(run)) == len(old) + added
    assert {path: when for path, when in modification_times(run, "segment/*.png", "segment/done/*").items() if path in before} == before
    assert [replace(line, seconds=0, scoring_seconds=0) for line in score_table(run)] == [
        replace(line, seconds=0, scoring_seconds=0) for line in scores
    ]
    assert run.manifest("segment").images == len(masks(run))
    assert segment(run, split) == ["segment: done before, skipped"]
    assert segment(run) == ["segment: done before, skipped"]


def test_splits_that_are_asked_for_one_after_the_other_add_up(run):
    for split in ("val", "train", "val"):
        segment(run, split)
    assert masks(run) == {row.image_id for row in run.index.rows}
    assert run.manifest("segment").splits == ["val", "train"]
    assert segment(run, "all") == ["segment: done before, skipped"]
    line = stage_status(run, "segment")
    assert (line.state, line.done, line.total) == ("done", 14, 14)


def test_what_was_asked_for_is_made_again_when_it_is_lost(run):
    segment(run, "val")
    name = f"{min(ids(run, 'val') - {row.image_id for row in run.index.rows if row.mask})}.png"
    whole = (run.folder / "segment").read(name)
    (run.folder / "segment").delete(name)
    run_locally(run, "segment")
    assert (run.folder / "segment").read(name) == whole


def test_the_masks_do_not_depend_on_when_they_were_asked_for(run):
    segment(run, "val")
    added = {name: (run.folder / "segment").read(name) for name in (run.folder / "segment").names(".png")}
    delete_stages(run, "segment")
    segment(run, "all")
    assert {name: (run.folder / "segment").read(name) for name in added} == added


def test_the_command_that_the_submission_names_makes_it_work(run, tmp_path):
    with pytest.raises(VwlError) as caught:
        write_submission(run, "val", Folder(tmp_path), "val.zip")
    message, _, command = str(caught.value).partition("; run: ")
    assert message == f"{run.folder}/segment lacks 2 of 4 masks of val, e.g. val_00000"
    assert command == f"vwl infer segment --split val --run {run.folder}"
    done = vwl(*command.split()[1:], "--backend", "local")
    assert done.exit_code == 0, done.output
    assert write_submission(run, "val", Folder(tmp_path), "val.zip") == 4


def test_the_submission_says_which_images_failed(run, tmp_path):
    name = min(ids(run, "val"))
    (row,) = [row for row in run.index.rows if row.image_id == name]
    Path(run.index.root.path, row.image).write_bytes(b"")
    segment(run, "val")
    with pytest.raises(
        VwlError,
        match=rf"1 of 4 images of val failed in .*/segment, e\.g\. {name}: image .* cannot be read.*; repair them, delete .*/segment, and run: vwl infer segment --split val --run ",
    ):
        write_submission(run, "val", Folder(tmp_path), "val.zip")


@pytest.mark.parametrize("split", ["aug", "nothing"])
def test_a_split_without_images_is_refused_before_anything_is_changed(run, split):
    before = modification_times(run, "segment/*")
    with pytest.raises(VwlError, match=f"the index has no images in split '{split}'"):
        segment(run, split)
    assert modification_times(run, "segment/*") == before


def test_splits_of_another_data_set_are_forgotten(run, tmp_path):
    segment(run, "val")
    rows = [row for row in run.index.rows if row.split == "train"]
    write_index(make_index(rows, run.index.classes, run.index.root, "less"), tmp_path / "less.parquet")
    other = Run.start(str(run.folder), run.recipe, str(tmp_path / "less.parquet"), overwrite=True)
    assert stage_status(other, "segment").state == "outdated"
    assert [row.split for row in other.stage_rows("segment")] == ["train"] * 4
