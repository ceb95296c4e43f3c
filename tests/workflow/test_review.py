from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.helpers import truncate
from tests.workflow.runs import delete_stages, run_locally
from vwl.data.corrections import QUEUE, add_masks
from vwl.data.index import make_index, write_index
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, encode_mask
from vwl.storage.record import read_record, stored_file, write_record
from vwl.workflow.pre_annotations import write_pre_annotations
from vwl.workflow.review import RANKINGS, RunMasks, of_split, ranking_quality, review
from vwl.workflow.run_folder import Run


def spoil(run: Run, image_id: str) -> None:
    """Replace the segmentation model's mask of an image by the negative of the walk's, and make the record accept it."""
    folder, row = run.folder / "segment", next(row for row in run.index.rows if row.image_id == image_id)
    mask = RunMasks(run).mask("walk", image_id)
    folder.write(f"{image_id}.png", encode_mask(np.where(mask == 0, row.labels[0], 0).astype(np.uint8), run.index.palette))
    record = read_record(folder)
    write_record(folder, replace(record, files={**record.files, f"{image_id}.png": stored_file(folder, f"{image_id}.png")}))


def test_the_mask_of_the_walk_is_that_of_the_masks_stage(tiny_run):
    masks = RunMasks(tiny_run)
    for row in tiny_run.index.split("train"):
        expected = decode_mask((tiny_run.folder / "masks").read(f"{row.image_id}.png"), row.image_id)
        np.testing.assert_array_equal(masks.mask("walk", row.image_id), expected)


@pytest.mark.parametrize("by", RANKINGS)
def test_every_image_with_masks_is_ranked_from_the_highest_score_down(tiny_run, by):
    queue = review(tiny_run, by)
    assert {image.row.image_id for image in queue.images} == {row.image_id for row in tiny_run.index.rows}
    assert (queue.not_ranked, queue.by) == (0, by)
    assert [image.rank for image in queue.images] == list(range(1, len(queue.images) + 1))
    scores = [image.score for image in queue.images]
    assert scores == sorted(scores, reverse=True)
    assert scores == [getattr(image, by) for image in queue.images]


def test_an_image_whose_stages_were_made_to_disagree_comes_first(copied):
    delete_stages(copied, "crf")
    calm = review(copied).images[-1].row.image_id
    spoil(copied, calm)
    first = review(copied).images[0]
    assert (first.row.image_id, first.score) == (calm, 1)
    assert "the walk" in first.reason
    assert "the segmentation model" in first.reason


def test_the_ranking_is_the_same_without_ground_truth(copied, tmp_path):
    with_truth = review(copied)
    bare = make_index([replace(row, mask=None) for row in copied.index.rows], copied.index.classes, copied.index.root, "bare")
    write_index(bare, tmp_path / "bare.parquet")
    # the stages' results are those of the run with ground truth; only what the ranking sees is compared
    blind = Run(copied.folder, copied.recipe, copied.index, copied.index_path)
    blind.index = replace(copied.index, rows=bare.rows)
    blind.fingerprint = copied.fingerprint  # type: ignore[method-assign]
    blind.stage_rows, blind.shards = copied.stage_rows, copied.shards  # type: ignore[method-assign]
    without = review(blind)
    assert [(i.row.image_id, i.score, i.reason) for i in without.images] == [(i.row.image_id, i.score, i.reason) for i in with_truth.images]
    assert all(image.mious == {} for image in without.images)
    assert ranking_quality(without.images) == []


def test_the_quality_of_a_ranking_compares_its_first_tenth_with_all(tiny_run):
    images = review(tiny_run).images
    for line in ranking_quality(images):
        mious = [image.mious[line.stage] for image in images]
        assert (line.images, line.top) == (12, 1)
        assert line.miou_all == pytest.approx(100 * np.mean(mious))
        assert line.miou_top == pytest.approx(100 * mious[0])
        assert line.share_of_worst == 100 * (mious[0] == min(mious))
    perfect = sorted(images, key=lambda image: image.mious["segment"])
    assert next(line for line in ranking_quality(perfect) if line.stage == "segment").share_of_worst == 100


def test_a_split_is_ranked_anew(tiny_run):
    queue = review(tiny_run)
    val = of_split(queue, tiny_run.index, "val")
    assert [image.rank for image in val.images] == [1, 2, 3, 4]
    assert [image.row for image in val.images] == [image.row for image in queue.images if image.row.split == "val"]


def test_images_with_masks_of_one_stage_are_counted_and_left_out(copied):
    truncate(copied.index, "val_00001")
    delete_stages(copied, "crf", "segment")
    run_locally(copied, "segment")
    queue = review(copied)
    assert RunMasks(copied).stages("val_00001") == ["walk"]
    assert queue.not_ranked == 1
    assert {image.row.image_id for image in queue.images} == {row.image_id for row in copied.index.rows} - {"val_00001"}
    assert of_split(queue, copied.index, "val").not_ranked == 1


def test_a_review_needs_two_finished_stages(copied):
    delete_stages(copied, "crf", "segment")
    with pytest.raises(VwlError, match=r"compares the stages crf, walk, segment, of which walk is done; run: vwl run --run "):
        review(copied)


def test_pre_annotations_come_back_as_they_were(tiny_run, tmp_path):
    images = review(tiny_run).images[:3]
    folder = Folder(tmp_path / "to-correct")
    assert write_pre_annotations(tiny_run, images, folder) == 3
    assert set(folder.names()) == {*(f"{image.row.image_id}.png" for image in images), QUEUE, "classes.txt"}
    lines = folder.read(QUEUE).decode().splitlines()
    assert lines[0] == "rank,image_id,image,split,labels,score,reason,stage,digest"
    assert [line.split(",")[1] for line in lines[1:]] == [image.row.image_id for image in images]
    assert all(Path(line.split(",")[2]).is_file() for line in lines[1:])
    masks = RunMasks(tiny_run)
    for image in images:
        found = decode_mask(folder.read(f"{image.row.image_id}.png"), image.row.image_id)
        np.testing.assert_array_equal(found, masks.mask("walk", image.row.image_id))
    with pytest.raises(VwlError, match="was changed since vwl review wrote it"):
        add_masks(tiny_run.index, folder)
    added = add_masks(tiny_run.index, folder, keep_unchanged=True)
    assert len(added.training) + len(added.held_out) == 3


def test_masks_in_a_folder_are_never_overwritten(tiny_run, tmp_path):
    images, folder = review(tiny_run).images[:1], Folder(tmp_path / "to-correct")
    write_pre_annotations(tiny_run, images, folder, "segment")
    with pytest.raises(VwlError, match="holds masks already, perhaps corrected ones"):
        write_pre_annotations(tiny_run, images, folder)
