"""What a model file says of its model: scores, thresholds and origin, and no path."""

import json

import numpy as np
import torch

import vwl
from tests.model_file.conftest import images_of
from vwl.model_file.content import digest_of, read_model


def test_a_run_folder_is_loaded_like_its_model_file(tiny_run, model):
    image = images_of(tiny_run)[0]
    np.testing.assert_array_equal(vwl.load_model(str(tiny_run.folder)).predict(image).mask, model.predict(image).mask)
    assert isinstance(vwl.load_model(str(tiny_run.folder), stage="classifier"), vwl.Classifier)


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
