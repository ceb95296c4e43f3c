"""Upload to the Hugging Face Hub and download from it, by huggingface_hub's own client against a server of this machine."""

import os
import subprocess
import sys

import pytest

from tests.model_file.hub_server import TOKEN, Hub, serving

ROUND_TRIP = """
import sys, vwl
model = vwl.load_model("segmenter.safetensors")
print(model.push_to_hub("owner/dogs", commit_message="Add dogs", private=True))
for again in (vwl.load_model("owner/dogs"), vwl.SegmentationModel.from_pretrained("owner/dogs", revision="main")):
    assert type(again) is type(model) and again.description == model.description
try:
    vwl.Classifier.from_pretrained("owner/dogs")
except vwl.VwlError as error:
    print(error)
try:
    vwl.load_model("owner/cats")
except vwl.VwlError as error:
    print(error)
"""
PUSH = """
import vwl
try:
    vwl.load_model("segmenter.safetensors").push_to_hub("owner/dogs")
except vwl.VwlError as error:
    print(error)
"""


@pytest.fixture
def run(files, tmp_path):
    """Run code in a new process, which reads the address of the Hub when it starts, beside the model files."""

    def run(code: str, address: str, token: str) -> list[str]:
        hub = {"HF_ENDPOINT": address, "HF_TOKEN": token, "HF_HOME": str(tmp_path / "cache"), "HF_HUB_DISABLE_XET": "1"}
        environment = {**os.environ, **hub, "NO_PROXY": "127.0.0.1", "HF_HUB_DISABLE_PROGRESS_BARS": "1", "HF_HUB_OFFLINE": "0"}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        done = subprocess.run([sys.executable, "-c", code], cwd=files, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    return run


def test_an_uploaded_model_is_loaded_by_its_name(run, files):
    hub = Hub()
    with serving(hub) as address:
        commit, kind, missing = run(ROUND_TRIP, address, TOKEN)
    assert commit.startswith(f"{address}/owner/dogs/commit/")
    assert (list(hub.repositories), hub.commits) == (["owner/dogs"], ["Add dogs"])
    assert hub.files["owner/dogs", "model.safetensors"] == (files / "segmenter.safetensors").read_bytes()
    assert sorted(path for _, path in hub.files) == ["README.md", "config.json", "model.safetensors"]
    card = hub.files["owner/dogs", "README.md"].decode()
    assert "library_name: vwl" in card
    assert "## Background thresholds" in card
    assert kind.endswith("holds a model of kind 'segmentation'; load it with vwl.load_model")
    assert missing.startswith("there is no file, folder or run owner/cats here, and the Hub has no model.safetensors of it: ")


def test_a_refused_upload_is_one_line(run):
    with serving(Hub()) as address:
        (line,) = run(PUSH, address, "hf_wrong")
    assert line.startswith("the model was not uploaded to owner/dogs: ")
    assert "401" in line


def test_a_hub_that_cannot_be_reached_is_one_line(run):
    with serving(Hub()) as address:
        pass  # nothing listens there any more
    (line,) = run(PUSH, address, TOKEN)
    assert line.startswith("the model was not uploaded to owner/dogs: ")
