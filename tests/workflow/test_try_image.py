"""`vwl try`: maps, mask and overlay of a real photograph, by the code of the CAM and CRF stages, without training."""

import json
import sys

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from tests.hostile.cases import Case, check
from vwl.cli.main import app
from vwl.storage.masks import decode_mask
from vwl.workflow.try_image import try_image

data = pytest.importorskip("skimage.data")


@pytest.fixture(scope="module")
def coffee(tmp_path_factory):
    path = tmp_path_factory.mktemp("images") / "coffee.png"
    Image.fromarray(data.coffee()).save(path)
    return path


def test_a_photograph_gets_map_mask_and_overlay(coffee, tmp_path):
    tried = try_image(coffee, out=tmp_path / "out")
    assert tried.labels == ("espresso",)
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["coffee_cam.png", "coffee_mask.png", "coffee_overlay.png"]
    mask = decode_mask((tmp_path / "out/coffee_mask.png").read_bytes(), "mask")
    assert mask.shape == data.coffee().shape[:2]
    assert tried.areas == (pytest.approx((mask == 1).mean()),)
    # most of the cup, and little of the table
    assert (mask[60:200, 200:380] == 1).mean() > 0.9
    assert (mask[:, 500:] == 1).mean() < 0.05
    assert np.asarray(Image.open(tried.cam)).shape == data.coffee().shape


def test_several_labels_are_the_ids_of_the_mask_in_their_order(coffee, tmp_path):
    tried = try_image(coffee, ["coffee mug", "dining table", "Coffee Mug"], tmp_path)
    assert tried.labels == ("coffee mug", "dining table")
    assert set(np.unique(decode_mask((tmp_path / "coffee_mask.png").read_bytes(), "mask"))) <= {0, 1, 2}


def test_the_command_says_that_it_is_the_untrained_baseline(coffee, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)  # makes `import ray` fail
    result = CliRunner().invoke(app, ["try", str(coffee), "--label", "espresso", "--out", str(tmp_path), "--json"])
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert (found["labels"], len(found["guesses"])) == (["espresso"], 5)
    assert "untrained baseline: plain CAM of an ImageNet classifier, no visual words" in " ".join(result.stderr.split())


CASES = [
    Case("no image", lambda folder: ["try", folder / "no.jpg"], 1, ("no.jpg: it does not exist",)),
    Case("a folder", lambda folder: ["try", folder], 1, ("is a folder",)),
    Case("a mistyped label", lambda folder: ["try", folder / "a.png", "--label", "tabbi cat"], 1, ("did you mean 'tabby cat'",)),
    Case("an empty label", lambda folder: ["try", folder / "a.png", "--label", ""], 1, ("ImageNet has no class ''",)),
    Case("a file as --out", lambda folder: ["try", folder / "a.png", "--out", folder / "a.png"], 1, ("a.png",)),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_command_line_that_is_wrong_ends_in_one_line(case, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(data.chelsea()[:60, :80]).save(tmp_path / "a.png")
    check(case, tmp_path)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (33, 7)])
def test_tiny_images_are_taken(size, tmp_path):
    Image.fromarray(np.full((*size, 3), 90, np.uint8)).save(tmp_path / "a.png")
    try_image(tmp_path / "a.png", ["tabby"], tmp_path / "out")
    assert decode_mask((tmp_path / "out/a_mask.png").read_bytes(), "mask").shape == size
