"""A command that is to run elsewhere: its recipe goes along, its paths become absolute, its mistakes are found here."""

from pathlib import Path

import pytest
from typer.exceptions import TyperException

from vwl.cli.forwarding import forwarded
from vwl.config.files import load_recipe
from vwl.errors import VwlError


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_relative_paths_become_absolute_wherever_they_stand(here):
    found = forwarded(["run", "--data=voc.parquet", "--run", "runs/a", "--recipe", "demo", "--workers", "2"])
    assert found.command == ["run", f"--data={here}/voc.parquet", "--run", f"{here}/runs/a", "--recipe", "demo", "--workers", "2"]
    assert found.moved == {"voc.parquet": f"{here}/voc.parquet", "runs/a": f"{here}/runs/a"}


def test_an_argument_becomes_absolute_too(here):
    assert forwarded(["data", "show", "runs/a"]).command == ["data", "show", f"{here}/runs/a"]
    assert forwarded(["vwl", "data", "check", "voc.parquet"]).command == ["data", "check", f"{here}/voc.parquet"]


@pytest.mark.parametrize(("model", "is_path"), [("models/voc.safetensors", True), ("owner/name", False)])
def test_a_model_file_becomes_absolute_and_a_model_of_the_hub_stays(here, model, is_path):
    expected = f"{here}/{model}" if is_path else model
    assert forwarded(["predict", "/a.jpg", "--model", model]).command == ["predict", "/a.jpg", "--model", expected]


def test_a_value_that_only_looks_like_the_path_stays(here):
    command = ["run", "--run", "demo", "--recipe", "demo"]
    assert forwarded(command).command == ["run", "--run", f"{here}/demo", "--recipe", "demo"]


def test_absolute_paths_and_buckets_stay():
    command = ["run", "--data", "/shared/voc.parquet", "--run", "s3://bucket/runs/a", "--recipe", "paper-voc"]
    found = forwarded(command)
    assert (found.command, found.files, found.moved) == (command, {}, {})


def test_a_recipe_file_goes_along_as_what_it_resolves_to(here):
    (here / "mine.yaml").write_text("base: demo\nclassifier:\n  codebook: {num_codewords: 17}\n")
    found = forwarded(["run", "--run", "/r", "--data", "/d", "--recipe", "mine.yaml", "-o", "seed=3"])
    assert found.command == ["run", "--run", "/r", "--data", "/d", "--recipe", "submitted-mine.yaml", "-o", "seed=3"]
    (here / "elsewhere.yaml").write_text(found.files["submitted-mine.yaml"])
    assert load_recipe("elsewhere.yaml") == load_recipe("mine.yaml")


def test_weights_that_are_here_become_absolute_in_an_override(here):
    (here / "w.pth").write_bytes(b"")
    key = "classifier.backbone.weights"
    found = forwarded(["run", "--run", "/r", "--data", "/d", "-o", f"{key}=w.pth", "-o", "seed=1"])
    assert found.command[-4:] == ["-o", f"{key}={here}/w.pth", "-o", "seed=1"]


def test_a_wrong_recipe_is_found_before_anything_is_sent():
    with pytest.raises(VwlError, match="no recipe named 'papr-voc'; did you mean"):
        forwarded(["run", "--run", "/r", "--data", "/d", "--recipe", "papr-voc"])
    with pytest.raises(VwlError, match="num_wrds"):
        forwarded(["run", "--run", "/r", "--data", "/d", "-o", "classifier.num_wrds=3", "--recipe", "demo"])


@pytest.mark.parametrize("command", [["run", "--worker-count", "2"], ["rn"], ["train", "resnet"]])
def test_what_is_no_command_line_is_refused(command):
    with pytest.raises(TyperException):
        forwarded(command)


@pytest.mark.parametrize("command", [[], ["submit", "--", "run"], ["jobs", "list"]])
def test_what_makes_no_sense_elsewhere_is_refused(command):
    with pytest.raises(VwlError, match="vwl submit cannot send"):
        forwarded(command)


def test_half_a_command_is_refused():
    with pytest.raises(VwlError, match="vwl train is not complete"):
        forwarded(["train"])
