"""The bytes of a model file: the same for the same run, wherever it lies, and after loading."""

import pytest

import vwl
from tests.helpers import copy_run
from vwl.model_file.content import encode_model
from vwl.workflow.model_export import describe


def test_the_same_run_gives_the_same_bytes_wherever_it_lies(tiny_run, files, tmp_path):
    moved = copy_run(tiny_run, tmp_path)
    assert encode_model(*describe(moved)) == (files / "segmenter.safetensors").read_bytes()


@pytest.mark.parametrize("stage", ["segmenter", "classifier"])
def test_a_loaded_model_is_saved_with_the_same_bytes(files, tmp_path, stage):
    vwl.load_model(files / f"{stage}.safetensors").save(tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == (files / f"{stage}.safetensors").read_bytes()
