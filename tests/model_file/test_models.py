"""The model file of a run, copied alone to another folder: the same masks and maps as the run's own stages, by API and command line."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants

import vwl
from tests.helpers import real_data
from tests.model_file.conftest import images_of
from vwl.config.files import load_recipe
from vwl.data.index import Row, make_index
from vwl.errors import VwlError
from vwl.inference.segment import SegmentStage
from vwl.model_file.content import encode_model
from vwl.model_file.description import ARCHITECTURE
from vwl.model_file.models import described
from vwl.models.deeplab import DeepLabV2
from vwl.storage.score_maps import MapReader

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
    # one thread, as the stages have: results depend on their number in the last bit
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert len(images) >= 4
    for image in images:
        written = (tmp_path / f"out/{image.stem}_mask.png").read_bytes()
        assert written == Path(f"{tiny_run.folder}/segment/{image.stem}.png").read_bytes()


def test_a_classifier_gives_the_maps_of_the_runs_cam_stage(tiny_run, files):
    torch.set_num_threads(1)  # a test before may have left another number
    classifier = vwl.load_model(files / "classifier.safetensors")
    assert isinstance(classifier, vwl.Classifier)
    reader = MapReader(tiny_run.folder / "cam")
    for row in tiny_run.index.split("train"):
        expected = reader.read(row.image_id)
        found = classifier.cam(Path(tiny_run.index.root.path, row.image), [tiny_run.index.classes[label] for label in row.labels])
        np.testing.assert_array_equal(found.maps, expected.values)
        assert found.full_size().shape == (len(row.labels), expected.height, expected.width)


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
        **{
            "recipe": "small",
            "recipe_hash": "",
            "seed": 0,
            "scores": (),
            "scored_classes": None,
            "thresholds": (),
            "training_images": None,
        },
        **{"data_fingerprint": "", "versions": {}, "licence": "none"},
    }
    (tmp_path / "a.safetensors").write_bytes(encode_model(described(values, state), state))
    predictions = vwl.load_model(tmp_path / "a.safetensors").predict(paths)
    stage = SegmentStage(recipe, index, network)
    assert len(predictions) == 20
    assert sum(len(prediction.classes) for prediction in predictions) >= 20
    for row, prediction in zip(index.rows, predictions, strict=True):
        np.testing.assert_array_equal(prediction.mask, stage(row))


def test_loading_leaves_torchs_random_numbers_as_they_were(files):
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    vwl.load_model(files / "segmenter.safetensors")
    assert torch.rand(1) == expected


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


def test_from_pretrained_of_a_model_that_the_hub_lacks_is_one_line(monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(VwlError, match=r"nobody/nothing here, and the Hub has no model\.safetensors of it: ") as raised:
        vwl.SegmentationModel.from_pretrained("nobody/nothing")
    assert "\n" not in str(raised.value)


def test_from_pretrained_of_a_folder_with_a_damaged_model_file_is_one_line(files, tmp_path):
    vwl.load_model(files / "segmenter.safetensors").save_pretrained(tmp_path / "hub")
    (tmp_path / "hub/model.safetensors").write_bytes(b"")
    with pytest.raises(VwlError, match=r"hub/model\.safetensors is damaged or no model file"):
        vwl.SegmentationModel.from_pretrained(str(tmp_path / "hub"))


@pytest.mark.parametrize("content", ["{", "[]", '{"description": 1}'])
def test_a_damaged_config_json_does_not_matter(files, tmp_path, content):
    vwl.load_model(files / "segmenter.safetensors").save_pretrained(tmp_path / "hub")
    (tmp_path / "hub/config.json").write_text(content)
    vwl.SegmentationModel.from_pretrained(str(tmp_path / "hub"))
