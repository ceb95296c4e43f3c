"""Prediction on images outside any index: the masks of the run's own last stage, one file each."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vwl.config.files import overridden
from vwl.errors import VwlError
from vwl.inference.build import load_segmenter
from vwl.inference.segment import SegmentStage
from vwl.model_file.prediction import overlay_with_legend
from vwl.report.overlays import display_palette, mask_overlay
from vwl.storage.masks import decode_mask
from vwl.workflow.model_export import model_of_run
from vwl.workflow.predict import predict_files
from vwl.workflow.run_folder import Run


@pytest.fixture
def image(tiny_run):
    """The file of a held-out image."""
    return Path(tiny_run.index.root.path, "images/val_00001.jpg")


def mask_in(path):
    return decode_mask(Path(path).read_bytes(), str(path))


def test_an_image_gets_the_mask_that_the_run_gave_it(tiny_run, image, tmp_path):
    predict_files(model_of_run(tiny_run), [image], tmp_path, crf=True)
    written = ["classes.json", "predictions.jsonl", "val_00001_mask.png", "val_00001_overlay.png"]
    assert sorted(path.name for path in tmp_path.glob("[!.]*")) == written
    np.testing.assert_array_equal(mask_in(tmp_path / "val_00001_mask.png"), mask_in(f"{tiny_run.folder}/segment/val_00001.png"))


def test_the_mask_is_indexed_with_the_data_sets_palette(tiny_run, image, tmp_path):
    predict_files(model_of_run(tiny_run), [image], tmp_path, crf=True)
    mask = Image.open(tmp_path / "val_00001_mask.png")
    assert mask.mode == "P"
    assert mask.getpalette() == list(tiny_run.index.palette)


def test_the_overlay_shows_the_mask_on_the_image(tiny_run, image, tmp_path):
    predict_files(model_of_run(tiny_run), [image], tmp_path, crf=True)
    expected = mask_overlay(np.asarray(Image.open(image)), mask_in(tmp_path / "val_00001_mask.png"), display_palette())
    overlay = np.asarray(Image.open(tmp_path / "val_00001_overlay.png"))
    np.testing.assert_array_equal(overlay[: len(expected)], expected)  # a legend follows


@pytest.mark.parametrize(("class_ids", "colours"), [((0, 1, 255), [1]), ((0, 2), [2]), ((0, 255), [])])
def test_the_overlay_has_a_legend_of_the_classes_in_the_mask(class_ids, colours):
    mask = np.zeros((40, 160), np.uint8)
    mask[:, : len(class_ids)] = class_ids
    below = np.asarray(overlay_with_legend(np.zeros((40, 160, 3), np.uint8), mask, ["background", "Kuh", "Größe"]))[40:]
    palette = np.array(display_palette()).reshape(256, 3)
    shown = [number for number in (1, 2) if (below == palette[number]).all(axis=2).any()]
    assert shown == colours
    assert (len(below) > 0) == bool(colours)


def test_without_the_crf_each_pixel_takes_its_most_probable_class(tiny_run, image, tmp_path):
    predict_files(model_of_run(tiny_run), [image], tmp_path, crf=False)
    stage = SegmentStage(tiny_run.recipe, tiny_run.index, load_segmenter(tiny_run.recipe, tiny_run.index, tiny_run.folder))
    probabilities = stage.probabilities(np.array(Image.open(image)))
    np.testing.assert_array_equal(mask_in(tmp_path / "val_00001_mask.png"), probabilities.argmax(axis=0))


def test_by_default_the_crf_is_used_as_the_run_did(tiny_run, image, tmp_path):
    recipe = overridden(tiny_run.recipe, ["segment.crf=false"])
    run = Run(tiny_run.folder, recipe, tiny_run.index, tiny_run.index_path)
    predict_files(model_of_run(run), [image], tmp_path / "run")
    predict_files(model_of_run(run), [image], tmp_path / "without", crf=False)
    predict_files(model_of_run(run), [image], tmp_path / "with", crf=True)
    found, without, refined = (mask_in(tmp_path / name / "val_00001_mask.png") for name in ("run", "without", "with"))
    np.testing.assert_array_equal(found, without)
    np.testing.assert_array_equal(refined, mask_in(f"{tiny_run.folder}/segment/val_00001.png"))


def test_a_prediction_names_its_classes_and_files(tiny_run, image, tmp_path):
    (prediction,) = predict_files(model_of_run(tiny_run), [image], tmp_path, crf=True)
    ids = np.unique(mask_in(prediction.mask))
    assert prediction.image == str(image)
    assert prediction.classes == tuple(tiny_run.index.classes[i] for i in ids if i)
    assert Path(prediction.overlay).is_file()


def test_images_of_any_kind_and_odd_size_are_taken(tiny_run, tmp_path):
    rng = np.random.default_rng(0)
    grey, clear = tmp_path / "grey.png", tmp_path / "clear.webp"
    Image.fromarray(rng.integers(0, 65536, (37, 51), dtype=np.uint16)).save(grey)
    Image.fromarray(rng.integers(0, 256, (61, 33, 4), dtype=np.uint8), "RGBA").save(clear)
    lines = predict_files(model_of_run(tiny_run), [grey, clear], tmp_path / "out", crf=True)
    assert [mask_in(line.mask).shape for line in lines] == [(37, 51), (61, 33)]


def test_two_images_of_one_name_have_results_in_folders_like_theirs(tiny_run, image, tmp_path):
    pixels = Image.open(image)
    for name in ("in/a/p.png", "in/b/p.png", "in/b/p.bmp"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        pixels.save(tmp_path / name)
    named = [tmp_path / name for name in ("in/a/p.png", "in/b/p.png", "in/b/p.bmp")]
    lines = predict_files(model_of_run(tiny_run), named, tmp_path / "out", crf=False)
    assert [Path(line.mask).relative_to(tmp_path / "out").as_posix() for line in lines] == [
        "a/p_mask.png",
        "b/p.png_mask.png",
        "b/p.bmp_mask.png",
    ]
    assert len({Path(line.mask).read_bytes() for line in lines}) == 1


def test_a_run_without_a_segmentation_model_names_the_command_that_makes_it(tiny_run, image, tmp_path):
    begun = Run.start(str(tmp_path / "run"), tiny_run.recipe, tiny_run.index_path)
    with pytest.raises(VwlError, match=f"no trained segmentation model; finish the run with: vwl run --run {tmp_path}/run"):
        predict_files(model_of_run(begun), [image], tmp_path / "out", crf=True)


@pytest.mark.parametrize(("content", "message"), [(None, "it does not exist"), (b"no picture", "it is not an image")])
def test_an_image_that_cannot_be_read_is_listed_and_the_others_are_segmented(tiny_run, image, tmp_path, content, message):
    path = tmp_path / "image.jpg"
    if content is not None:
        path.write_bytes(content)
    bad, good = predict_files(model_of_run(tiny_run), [path, image], tmp_path / "out", crf=True)
    assert message in bad.problem
    assert str(path) in bad.problem
    assert (bad.image, bad.classes, bad.mask, bad.overlay) == (str(path), (), None, None)
    assert good.problem is None
    assert mask_in(good.mask).any()


def test_a_mask_is_not_written_over_an_image_that_is_segmented(tiny_run, image, tmp_path):
    for name in ("a.png", "a_mask.png"):
        Image.open(image).save(tmp_path / name)
    before = (tmp_path / "a_mask.png").read_bytes()
    with pytest.raises(VwlError, match=r"would be written over the image .*a_mask\.png; choose another --out folder"):
        predict_files(model_of_run(tiny_run), [tmp_path / "a.png", tmp_path / "a_mask.png"], tmp_path, crf=False)
    assert (tmp_path / "a_mask.png").read_bytes() == before
