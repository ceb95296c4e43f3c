"""The ONNX file of a segmentation model: onnxruntime gives the masks of PyTorch, for any size and batch, and the file says what it is."""

import io
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tests.helpers import real_data
from tests.model_file.conftest import images_of
from vwl.cli.main import app
from vwl.config.files import load_recipe
from vwl.errors import VwlError
from vwl.inference.segment import MaskPredictor
from vwl.model_file.content import digest_of
from vwl.model_file.description import ARCHITECTURE, SegmentationDescription
from vwl.model_file.models import SegmentationModel
from vwl.model_file.onnx_export import onnx_content
from vwl.models.deeplab import DeepLabV2
from vwl.training.pretrained import load_backbone

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")


def session(content):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def model_with(*settings, recipe="small", imagenet=False):
    """A model with a random head of six classes."""
    recipe = load_recipe(recipe, settings)
    torch.manual_seed(0)
    network = DeepLabV2(recipe.segmenter, 6).eval()
    if imagenet:
        load_backbone(network.backbone, recipe.segmenter.backbone)
    with torch.no_grad():
        for weight in network.aspp_weights():
            weight.mul_(20)  # an untrained network would call everything background
    section = recipe.segmenter.model_dump(mode="json")
    state = network.state_dict()
    description = SegmentationDescription.model_validate(
        {
            **{"format": 1, "kind": "segmentation", "classes": ("background", "a", "b", "c", "d", "é"), "palette": (0,) * 768},
            "normalisation": {"mean": network.backbone.mean, "std": network.backbone.std},
            "architecture": {
                **{key: section[key] for key in ARCHITECTURE["segmentation"]},
                "backbone": {"name": recipe.segmenter.backbone.name},
            },
            "prediction": recipe.segment.model_dump(mode="json"),
            **{"recipe": "small", "recipe_hash": "0", "seed": 0, "scores": (), "scored_classes": None, "thresholds": ()},
            **{"training_images": None, "data_fingerprint": "", "versions": {}, "licence": "none", "weights": digest_of(state)},
        }
    )
    return SegmentationModel(description, state, torch.device("cpu"))


def pixels(height, width, seed=0):
    """An image whose colours vary smoothly, as those of photographs do."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


def agreement(session, model, images):
    """The share of pixels with the same class, over all images."""
    same = [(session.run(["mask"], {"image": image[None]})[0][0] == model.predict(image, crf=False).mask).ravel() for image in images]
    return np.concatenate(same).mean()


@pytest.fixture(scope="module")
def exported(model):
    return onnx_content(model)


def test_a_runs_model_gives_its_masks_in_onnxruntime(tiny_run, model, exported):
    images = [np.array(Image.open(path)) for path in images_of(tiny_run)]
    assert agreement(session(exported), model, images) >= 0.999


@pytest.mark.parametrize("size", [(97, 131), (131, 97), (64, 64), (352, 200), (31, 500)])
def test_images_of_any_size_have_the_probabilities_of_the_predictor(model, exported, size):
    predictor = MaskPredictor(model.description.prediction, model.network)
    found = session(exported).run(["probabilities"], {"image": pixels(*size)[None]})[0]
    np.testing.assert_allclose(found[0], predictor.probabilities(pixels(*size)), atol=0.01)


def test_a_batch_gives_the_masks_of_its_images(exported):
    batch, loaded = np.stack([pixels(60, 90, seed) for seed in range(3)]), session(exported)
    (masks,) = loaded.run(["mask"], {"image": batch})
    assert (masks.dtype, masks.shape) == (np.uint8, (3, 60, 90))
    alone = np.concatenate([loaded.run(["mask"], {"image": image[None]})[0] for image in batch])
    assert (masks == alone).mean() >= 0.999


@pytest.mark.parametrize(
    "settings",
    [
        ("segment.hflip=false", "segment.long_side=null"),
        ("segment.scales=[1.0,0.5,1.25]", "segment.long_side=96"),
        ("segmenter.input_scales=[0.5,0.75]", "segment.long_side=128"),
        ("segmenter.backbone.name=resnet18", "segmenter.output_stride=8", "segment.long_side=96"),
    ],
    ids=["own size without flip", "three scales", "input scales", "ResNet"],
)
def test_every_setting_of_the_prediction_is_in_the_graph(settings):
    model = model_with(*settings)
    assert agreement(session(onnx_content(model)), model, [pixels(90, 120), pixels(150, 77, 1)]) >= 0.998


def test_twenty_real_images_agree_in_999_of_1000_pixels():
    paths = sorted((real_data("voc12mini") / "JPEGImages").glob("*.jpg"))[:20]
    images = [np.array(Image.open(path)) for path in paths]
    model = model_with("segment.long_side=224", "segment.hflip=false", imagenet=True)
    assert len(images) == 20
    assert len({number for image in images[:5] for number in np.unique(model.predict(image, crf=False).mask)}) >= 3
    assert agreement(session(onnx_content(model)), model, images) >= 0.999


def test_the_same_model_gives_the_same_bytes(model, exported):
    assert onnx_content(model) == exported


def test_the_metadata_name_classes_colours_recipe_and_licence(model, exported):
    found = {entry.key: entry.value for entry in onnx.load_model_from_string(exported).metadata_props}
    assert json.loads(found["classes"]) == list(model.classes)
    assert json.loads(found["palette"]) == list(model.palette)
    assert (found["recipe_hash"], found["licence"]) == (model.description.recipe_hash, model.description.licence)
    assert json.loads(found["vwl"]) == model.description.as_json()
    assert {"version", "recipe", "seed", "preprocessing"} <= set(found)
    assert session(exported).get_modelmeta().custom_metadata_map == found


def test_the_model_itself_is_left_as_it_was(model):
    before = {name: value.clone() for name, value in model.network.state_dict().items()}
    onnx_content(model)
    after = model.network.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_the_command_writes_the_file_of_a_run_and_of_a_model_file(tiny_run, files, exported, tmp_path):
    for number, source in enumerate((["--run", str(tiny_run.folder)], ["--model", str(files / "segmenter.safetensors")])):
        out = tmp_path / f"{number}.onnx"
        result = CliRunner().invoke(app, ["export", "onnx", *source, "--out", str(out)])
        assert result.exit_code == 0, result.stderr
        assert out.read_bytes() == exported


def test_without_the_package_the_error_names_the_extra(model, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(VwlError, match=r"install it with: pip install 'vwl\[onnx\]'"):
        onnx_content(model)


def test_the_file_needs_no_other_file(exported):
    onnx.checker.check_model(onnx.load_model(io.BytesIO(exported)), full_check=True)
