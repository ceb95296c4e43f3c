"""The model file of a run, copied alone to another folder: the same masks and maps as the run's own stages, by API and command line."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image
from typer.testing import CliRunner

import vwl
from tests.helpers import copy_run, real_data
from vwl.cli.main import app
from vwl.config.files import load_recipe
from vwl.data.index import Row, make_index
from vwl.errors import VwlError
from vwl.inference.segment import SegmentStage
from vwl.model_file.content import digest_of, encode_model, read_model
from vwl.model_file.description import ARCHITECTURE
from vwl.model_file.models import described
from vwl.models.deeplab import DeepLabV2
from vwl.storage.masks import decode_mask
from vwl.storage.score_maps import MapReader
from vwl.workflow.model_export import describe


@pytest.fixture(scope="module")
def files(tiny_run, tmp_path_factory) -> Path:
    """A folder with nothing but the run's two model files."""
    folder = tmp_path_factory.mktemp("files")
    for stage in ("segmenter", "classifier"):
        words = ["export", "model", "--run", str(tiny_run.folder), "--stage", stage, "--out", f"{folder}/{stage}.safetensors"]
        assert CliRunner().invoke(app, words).exit_code == 0
    return folder


@pytest.fixture(scope="module")
def model(files):
    return vwl.load_model(files / "segmenter.safetensors")


def images_of(run) -> list[Path]:
    """The images that the run's segment stage has segmented."""
    rows = {row.image_id: row for row in run.index.rows}
    names = sorted(path.stem for path in Path(run.folder.path, "segment").glob("*.png"))
    return [Path(run.index.root.path, rows[name].image) for name in names]


def mask_in(path) -> np.ndarray:
    return decode_mask(Path(path).read_bytes(), str(path))


API = """
import vwl
model = vwl.load_model("copy.safetensors")
for prediction in model.predict(sys.argv[1:]):
    prediction.save("out")
"""
COMMAND = """
from vwl.cli.main import app
app(["predict", *sys.argv[1:], "--model", "copy.safetensors", "--out", "out"], standalone_mode=False)
"""


@pytest.mark.parametrize("code", [API, COMMAND], ids=["API", "command line"])
def test_a_fresh_process_without_run_data_and_ray_gives_the_masks_of_the_runs_segment_stage(tiny_run, files, tmp_path, code):
    images = images_of(tiny_run)
    for image in images:
        shutil.copy(image, tmp_path / image.name)
    shutil.copy(files / "segmenter.safetensors", tmp_path / "copy.safetensors")
    # None in sys.modules makes `import ray` fail
    words = [sys.executable, "-c", f"import sys; sys.modules['ray'] = None\n{code}", *(image.name for image in images)]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(images) >= 4
    for image in images:
        written = (tmp_path / f"out/{image.stem}_mask.png").read_bytes()
        assert written == Path(f"{tiny_run.folder}/segment/{image.stem}.png").read_bytes()


def test_a_classifier_gives_the_maps_of_the_runs_cam_stage(tiny_run, files):
    classifier = vwl.load_model(files / "classifier.safetensors")
    assert isinstance(classifier, vwl.Classifier)
    reader = MapReader(tiny_run.folder / "cam")
    for row in tiny_run.index.split("train"):
        expected = reader.read(row.image_id)
        found = classifier.cam(Path(tiny_run.index.root.path, row.image), [tiny_run.index.classes[label] for label in row.labels])
        np.testing.assert_array_equal(found.maps, expected.values)
        assert found.full_size().shape == (len(row.labels), expected.height, expected.width)


def test_a_run_folder_is_loaded_like_its_model_file(tiny_run, model):
    image = images_of(tiny_run)[0]
    np.testing.assert_array_equal(vwl.load_model(str(tiny_run.folder)).predict(image).mask, model.predict(image).mask)
    assert isinstance(vwl.load_model(str(tiny_run.folder), stage="classifier"), vwl.Classifier)


def test_twenty_real_images_have_the_masks_of_the_segment_stage(tmp_path):
    paths = sorted((real_data("voc12mini") / "JPEGImages").glob("*.jpg"))[:20]
    recipe = load_recipe("small", ["segment.long_side=160", "segment.hflip=false"])
    classes = ("background", *(f"class {number}" for number in range(1, 21)))
    torch.manual_seed(0)
    network = DeepLabV2(recipe.segmenter, len(classes)).eval()
    with torch.no_grad():
        for weight in network.aspp_weights():
            weight.mul_(20)  # an untrained network would call everything background
    index = make_index([Row(path.stem, path.name, (1,), None, "val") for path in paths], classes, paths[0].parent, "images")
    section = recipe.segmenter.model_dump(mode="json")
    state = network.state_dict()
    values = {
        **{"format": 1, "kind": "segmentation", "classes": classes, "palette": index.palette},
        "normalisation": {"mean": network.backbone.mean, "std": network.backbone.std},
        "architecture": {**{key: section[key] for key in ARCHITECTURE["segmentation"]}, "backbone": {"name": "lite0"}},
        "prediction": recipe.segment.model_dump(mode="json"),
        **{"recipe": "small", "recipe_hash": "", "seed": 0, "scores": (), "thresholds": (), "training_images": None},
        **{"data_fingerprint": "", "versions": {}, "licence": "none"},
    }
    (tmp_path / "a.safetensors").write_bytes(encode_model(described(values, state), state))
    predictions = vwl.load_model(tmp_path / "a.safetensors").predict(paths)
    stage = SegmentStage(recipe, index, network)
    assert len(predictions) == 20
    assert sum(len(prediction.classes) for prediction in predictions) >= 20
    for row, prediction in zip(index.rows, predictions, strict=True):
        np.testing.assert_array_equal(prediction.mask, stage(row))


def test_the_same_run_gives_the_same_bytes_wherever_it_lies(tiny_run, files, tmp_path):
    moved = copy_run(tiny_run, tmp_path)
    assert encode_model(*describe(moved)) == (files / "segmenter.safetensors").read_bytes()


@pytest.mark.parametrize("stage", ["segmenter", "classifier"])
def test_a_loaded_model_is_saved_with_the_same_bytes(files, tmp_path, stage):
    vwl.load_model(files / f"{stage}.safetensors").save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (files / f"{stage}.safetensors").read_bytes()


def test_a_model_file_names_no_path(tiny_run, files):
    description, _ = read_model(files / "segmenter.safetensors")
    assert "/" not in json.dumps(description.as_json()).replace("image/", "")


def test_the_description_has_scores_thresholds_and_origin(tiny_run, files):
    description, state = read_model(files / "segmenter.safetensors")
    manifest = tiny_run.manifest("segment")
    assert [(s.split, s.miou) for s in description.scores if s.stage == "segment"] == [(s.split, s.miou) for s in manifest.scores]
    assert {t.stage: (t.threshold, t.chosen) for t in description.thresholds}["walk"] == (
        tiny_run.manifest("walk").threshold,
        tiny_run.manifest("walk").threshold_chosen,
    )
    assert description.classes == tiny_run.index.classes
    assert description.data_fingerprint == tiny_run.index.fingerprint()
    assert (description.recipe, description.seed, description.training_images) == ("demo", 0, 8)
    assert description.versions["torch"] == torch.__version__.partition("+")[0] or description.versions["torch"] == torch.__version__
    assert description.weights == digest_of(state)


def test_files_pil_images_arrays_and_lists_are_taken(tiny_run, model):
    path = images_of(tiny_run)[0]
    pixels = np.array(Image.open(path))
    expected = model.predict(path).mask
    for found in (model.predict(str(path)), model.predict(Image.open(path)), model.predict(pixels), *model.predict([path, pixels])):
        np.testing.assert_array_equal(found.mask, expected)
    assert (expected.dtype, expected.shape) == (np.uint8, pixels.shape[:2])


def test_a_pil_image_is_turned_upright_like_its_file(tiny_run, model, tmp_path):
    image, exif = Image.open(images_of(tiny_run)[0]), Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    image.save(tmp_path / "lying.png", exif=exif)
    found = model.predict(Image.open(tmp_path / "lying.png")).mask
    assert found.shape == image.size
    np.testing.assert_array_equal(found, model.predict(tmp_path / "lying.png").mask)


def test_a_prediction_is_saved_as_mask_and_overlay(tiny_run, model, tmp_path):
    path = images_of(tiny_run)[0]
    prediction = model.predict(path)
    mask, overlay = prediction.save(tmp_path / "out")
    np.testing.assert_array_equal(mask_in(mask), prediction.mask)
    assert Image.open(mask).getpalette() == list(model.palette)
    np.testing.assert_array_equal(np.asarray(Image.open(overlay)), np.asarray(prediction.overlay()))
    assert prediction.classes == tuple(model.classes[i] for i in np.unique(prediction.mask) if i)


def test_loading_leaves_torchs_random_numbers_as_they_were(files):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    vwl.load_model(files / "segmenter.safetensors")
    assert torch.rand(1) == expected


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((0, 4, 3), np.uint8), 7, "missing.jpg", [3.0]]
)
def test_what_is_no_image_is_one_line(model, image):
    with pytest.raises(VwlError, match=r"is no image|does not exist"):
        model.predict(image)


def test_an_unknown_label_and_the_background_have_no_maps(files):
    classifier = vwl.load_model(files / "classifier.safetensors", device="cpu")
    for label in ("Cow?", "background"):
        with pytest.raises(VwlError, match=f"unknown class '{label.replace('?', '.')}'"):
            classifier.cam(np.zeros((40, 40, 3), np.uint8), [label])


def test_an_unknown_device_is_one_line(files):
    with pytest.raises(VwlError, match="there is no device 'abacus' here"):
        vwl.load_model(files / "segmenter.safetensors", device="abacus")


@pytest.mark.parametrize("stage", ["segmenter", "classifier"])
def test_save_pretrained_and_from_pretrained_keep_the_model(files, tmp_path, stage):
    loaded = vwl.load_model(files / f"{stage}.safetensors")
    loaded.save_pretrained(tmp_path / "hub")
    assert sorted(path.name for path in (tmp_path / "hub").iterdir()) == ["README.md", "config.json", "model.safetensors"]
    assert (tmp_path / "hub/model.safetensors").read_bytes() == (files / f"{stage}.safetensors").read_bytes()
    for again in (type(loaded).from_pretrained(str(tmp_path / "hub"), device="cpu"), vwl.load_model(tmp_path / "hub")):
        assert type(again) is type(loaded)
        assert again.description == loaded.description


def test_from_pretrained_of_the_other_kind_is_one_line(files, tmp_path):
    vwl.load_model(files / "segmenter.safetensors").save_pretrained(tmp_path / "hub")
    with pytest.raises(VwlError, match="holds a model of kind 'segmentation'"):
        vwl.Classifier.from_pretrained(str(tmp_path / "hub"))


def test_the_model_card_states_scores_thresholds_seed_and_licence(tiny_run, files, tmp_path):
    loaded = vwl.load_model(files / "segmenter.safetensors")
    loaded.save_pretrained(tmp_path / "hub")
    card = (tmp_path / "hub/README.md").read_text()
    for score in loaded.description.scores:
        assert f"| `{score.stage}` | {score.split} | {score.images} | {score.miou:g} |" in card
    for threshold in loaded.description.thresholds:
        assert f"`{threshold.stage}`: {threshold.threshold:g} ({threshold.chosen})" in card
    assert "seed 0" in card
    assert loaded.description.licence in card
    assert "library_name: vwl" in card
