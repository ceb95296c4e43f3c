"""A data set of one class with images that show no object, through all stages in this process."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.helpers import tiny_scenes
from tests.stages import STAGES
from tests.workflow.runs import new_run, run_locally
from vwl.config.recipe import hashed_settings
from vwl.data.index import Index, make_index
from vwl.errors import VwlError
from vwl.evaluation.scoring import choose_thresholds
from vwl.inference.build import load_classifier
from vwl.inference.irnet_labels import IrnetLabelsStage
from vwl.inference.seeds import SeedStage
from vwl.inference.walk import WalkStage
from vwl.models.irnet import BoundaryNet
from vwl.report.summary import image_panels
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, encode_mask, voc_palette
from vwl.storage.score_maps import MapReader, ScoreMap, write_maps
from vwl.training.build import TrainSpec, build_task
from vwl.workflow.run_folder import Run, stage_fingerprint
from vwl.workflow.stages import scored_rows

PROBE = ("classifier.backbone.weights=imagenet", "classifier.pooling=gap", "classifier.codebook.strategy=none", "classifier.epochs=0")
"""No training: the head is a linear probe of the ImageNet features."""


def one_class(folder: Path, num_train: int, num_val: int) -> Index:
    """Draw scenes of two animals; the second one belongs to the surroundings, so that scenes without the first show no object."""
    index = tiny_scenes(folder / "scenes", num_train, num_val)
    rows = []
    for row in index.rows:
        mask = index.read_mask(row)
        Path(index.root.path, str(row.mask)).write_bytes(encode_mask((mask == 1).astype(np.uint8), voc_palette()))
        rows.append(replace(row, labels=(1,) if 1 in row.labels else (), negative=1 not in row.labels))
    return make_index(rows, index.classes[:2], index.root, "one animal")


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Run:
    """A finished run; tests only read it."""
    folder = tmp_path_factory.mktemp("negatives")
    index = one_class(folder, 16, 10)
    assert 3 < sum(row.negative for row in index.split("train")) < 13
    run = new_run(folder, index, *PROBE, "classifier.linear_probe=init")
    assert run_locally(run, *STAGES) == []
    return run


def negatives(run: Run, split: str) -> list[str]:
    return [row.image_id for row in run.index.split(split) if row.negative]


def masks_of(run: Run, stage: str, ids: list[str]) -> list[np.ndarray]:
    return [decode_mask(run.stage_folder(stage).read(f"{image_id}.png"), image_id) for image_id in ids]


@pytest.mark.parametrize("stage", ["cam", "walk"])
def test_negatives_have_no_score_maps(run, stage):
    maps = MapReader(run.stage_folder(stage))
    assert {maps.read(image_id).classes for image_id in negatives(run, "all")} == {()}
    assert {maps.read(row.image_id).classes for row in run.index.rows if row.labels} == {(1,)}


@pytest.mark.parametrize("stage", ["crf", "irnet-labels", "masks"])
def test_negatives_are_background_everywhere(run, stage):
    for mask in masks_of(run, stage, negatives(run, "train")):
        assert mask.shape in {(r.height, r.width) for r in map(run.index.read_image, run.index.rows)}
        assert not mask.any()
    assert any(mask.any() for mask in masks_of(run, stage, [row.image_id for row in run.index.split("train") if row.labels]))


def test_negatives_with_a_mask_are_scored(run):
    for stage in ("cam", "crf", "walk", "segment"):
        manifest = run.manifest(stage)
        assert manifest is not None
        assert {score.split: score.images for score in manifest.scores} == {"train": 16, "val": 10}
        assert len(scored_rows(run.index, "val")) == 10


def test_maps_of_a_classifier_that_saw_negatives_do_not_cover_them(run):
    model = load_classifier(run.recipe, run.index, run.folder)
    mean, std = model.backbone.mean, model.backbone.std
    strength: dict[bool, list[float]] = {True: [], False: []}
    with torch.inference_mode():
        for row in run.index.split("val"):
            image = (np.asarray(run.index.read_image(row), np.float32) / 255 - np.array(mean, np.float32)) / np.array(std, np.float32)
            maps = model.activation_maps(torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1)[None])
            strength[row.negative].append(float(maps.mean()))
    assert np.mean(strength[True]) < 0.6 * np.mean(strength[False])


def test_a_threshold_is_chosen_from_maps_of_objects_only(run, tmp_path):
    """Otsu's threshold would move with the zeros of images that have no maps."""
    rows = [row for row in run.index.rows if not row.negative]
    without = new_run(tmp_path, replace(run.index, rows=tuple(rows)))
    maps, ours = MapReader(run.stage_folder("cam")), run.manifest("cam")
    assert ours is not None
    assert ours.threshold == choose_thresholds("auto", maps, without.index.split("train")).threshold
    assert ours.threshold != choose_thresholds("auto", maps, run.index.split("train")).threshold


def spec(run: Run, stage: str, *changes: dict[str, str]) -> TrainSpec:
    recipe = run.recipe
    for change in changes:
        recipe = recipe.model_copy(update={"segmenter": recipe.segmenter.model_copy(update=change)})
    masks = {"irnet": "irnet-labels", "segmenter": "masks"}.get(stage)
    return TrainSpec(stage, recipe, run.index_path, run.folder / "other", masks and run.stage_folder(masks), "")


def test_irnet_leaves_negatives_out_and_the_segmenter_as_its_recipe_says(run):
    everything, objects = len(run.index.split("train")), len(run.index.split("train")) - len(negatives(run, "train"))
    assert build_task(spec(run, "classifier")).num_samples == everything
    assert build_task(spec(run, "irnet")).num_samples == objects
    assert build_task(spec(run, "segmenter")).num_samples == everything
    assert build_task(spec(run, "segmenter", {"negatives": "exclude"})).num_samples == objects


def test_a_negative_has_an_all_zero_target_and_a_loss(run):
    task = build_task(spec(run, "classifier"))
    number = next(number for number, row in enumerate(task.rows) if row.negative)
    batch = {name: value[None] for name, value in task.sample(number, 0).items()}
    assert batch["targets"].tolist() == [[0.0]]
    losses = task.losses(task.model, batch, task.counts(batch), 1.0)
    logit = task.model(batch["images"], batch["valid"]).image_logits
    assert losses["image"].item() == pytest.approx(torch.nn.functional.softplus(logit).item())


def test_the_walk_of_a_negative_runs_no_network(run):
    row = next(row for row in run.index.rows if row.negative)
    stage = WalkStage(run.recipe, run.index, MapReader(run.stage_folder("cam")), BoundaryNet(run.recipe.irnet.backbone))
    stage.boundaries = lambda image: pytest.fail("the boundary network was run")
    assert stage(row).values.shape[0] == 0


@pytest.mark.parametrize(("background", "classes"), [("fixed", ()), ("own", (0,)), ("one-minus-max", (0,))])
def test_imported_maps_need_no_file_of_a_negative(run, background, classes, tmp_path):
    row = next(row for row in run.index.rows if row.negative)
    found = SeedStage(run.index, Folder(tmp_path), {}, "irn", background)(row)
    assert isinstance(found, ScoreMap)
    assert found.classes == classes
    (tmp_path / "cam").mkdir()
    write_maps(Folder(tmp_path / "cam"), "part-00000.parquet", [found])
    assert not IrnetLabelsStage(run.recipe, run.index, MapReader(Folder(tmp_path / "cam")))(row).any()


def test_a_single_class_without_negatives_trains_and_says_what_is_missing(tmp_path):
    index = one_class(tmp_path, 12, 4)
    run = new_run(tmp_path, replace(index, rows=tuple(row for row in index.rows if not row.negative)))
    (message,) = run_locally(run, "classifier", "cam", remarks=True)
    assert message.startswith("classifier: every training image shows '")
    assert run.is_done("cam")


def test_training_images_that_are_all_negative_or_not_labelled_are_refused(tmp_path):
    index = one_class(tmp_path, 6, 3)
    nothing = [replace(row, labels=(), negative=True) for row in index.rows]
    with pytest.raises(VwlError, match="none of the 6 training images has a label, all are negative"):
        run_locally(new_run(tmp_path / "a", replace(index, rows=tuple(nothing))), "classifier")
    unknown = [replace(row, negative=False) for row in index.rows]
    with pytest.raises(VwlError, match=r"has no label \(1 of 6 training images\)"):
        run_locally(new_run(tmp_path / "b", replace(index, rows=tuple(unknown))), "classifier")


def test_the_key_for_negatives_changes_only_the_fingerprints_of_runs_that_set_it(run):
    assert "negatives" not in hashed_settings(run.recipe, "segmenter")
    changed = spec(run, "segmenter", {"negatives": "exclude"}).recipe
    differing = [stage for stage in STAGES if stage_fingerprint(stage, changed, "x") != stage_fingerprint(stage, run.recipe, "x")]
    assert differing == ["segmenter", "segment"]


def test_pictures_show_negatives(run):
    row = next(row for row in run.index.split("val") if row.negative)
    image, cam, *_ = image_panels(run, row)
    assert image.caption == f"{row.image_id}: no object"
    assert cam.image is not None
