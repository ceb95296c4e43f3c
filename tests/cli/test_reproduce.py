"""`vwl reproduce` on a small data set laid out like VOC, made of scenes: it checks, runs, compares, and stops where a score is far outside."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from typer.testing import CliRunner

from tests.conftest import TINY
from tests.helpers import tiny_scenes
from vwl.cli.main import app
from vwl.data.voc import VOC_CLASSES
from vwl.storage.masks import encode_mask, voc_palette

IDS = np.array([0, VOC_CLASSES.index("cat"), VOC_CLASSES.index("dog")], np.uint8)


@pytest.fixture
def devkit(tmp_path: Path) -> Path:
    """8 training and 4 held-out scenes whose animals are called cat and dog."""
    index, root = tiny_scenes(tmp_path / "scenes", 8, 4), tmp_path / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClassAug", "ImageSets/Segmentation"):
        (root / folder).mkdir(parents=True)
    for row in index.rows:
        shutil.copy(tmp_path / "scenes" / row.image, root / "JPEGImages" / f"{row.image_id}.jpg")
        (root / "SegmentationClassAug" / f"{row.image_id}.png").write_bytes(encode_mask(IDS[index.read_mask(row)], voc_palette()))
    for split in ("train", "val"):
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{row.image_id}\n" for row in index.split(split)))
    labels = [f"{row.image_id} {' '.join(VOC_CLASSES[IDS[label]] for label in row.labels)}\n" for row in index.rows]
    (root / "ImageSets/image_labels.txt").write_text("".join(labels))
    return root


def reproduce(root: Path, run: Path, bands: dict[str, list[float]], *overrides: str, images: int = 8) -> tuple[int, str]:
    """Run the command with an expectation of its own; return exit code and output."""
    scores = [{"stage": stage, "split": "val", "band": band, "paper": 50} for stage, band in bands.items()]
    expected = {"title": "small VOC", "data": "voc", "recipe": "demo", "images": {"train": images, "val": 4}, "scores": scores}
    path = root.parent / "expected.yaml"
    path.write_text(yaml.safe_dump(expected))
    words = ["reproduce", str(path), "--root", str(root), "--run", str(run), "--backend", "local"]
    result = CliRunner().invoke(app, [*words, *(word for override in (*TINY, *overrides) for word in ("-o", override))])
    return result.exit_code, result.stdout + result.stderr


def test_it_runs_to_the_end_and_writes_its_page(devkit, tmp_path):
    code, printed = reproduce(devkit, tmp_path / "run", {"cam": [0, 100], "segment": [0, 100]})
    assert code == 0, printed
    assert "cam on val" in printed
    text = (tmp_path / "run/reproduction.md").read_text()
    assert text.startswith("# small VOC\n")
    assert text.count("as expected") == 2


def test_it_stops_at_the_first_stage_far_outside_its_band_with_three_reasons(devkit, tmp_path):
    code, printed = reproduce(devkit, tmp_path / "run", {"cam": [98, 99], "segment": [0, 100]}, "classifier.optimiser.learning_rate=0.06")
    assert code == 1
    assert "far outside the band of 98 to 99" in printed
    assert "1. the run's recipe is not demo" in printed
    assert "classifier.optimiser.learning_rate: 0.002 -> 0.06" in (tmp_path / "run/reproduction.md").read_text()
    assert "  3. " in printed
    assert not (tmp_path / "run/crf").exists()


def test_another_number_of_images_is_refused_before_anything_runs(devkit, tmp_path):
    code, printed = reproduce(devkit, tmp_path / "run", {"cam": [0, 100]}, images=9)
    assert code == 1
    assert "split train has 8 images, and small VOC has 9; is the data set complete?" in " ".join(printed.split())
    assert not (tmp_path / "run").exists()


def test_a_broken_image_is_refused_before_anything_runs(devkit, tmp_path):
    (devkit / "JPEGImages/train_00000.jpg").write_bytes(b"not an image")
    code, printed = reproduce(devkit, tmp_path / "run", {"cam": [0, 100]})
    assert code == 1
    assert "the data set has 1 problems, e.g." in " ".join(printed.split())
    assert not (tmp_path / "run").exists()
