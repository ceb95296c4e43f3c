"""The report of a run: its sections, what it holds of a small run and of unfinished and damaged ones, and its size."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.helpers import real_data, truncate
from tests.stages import STAGES
from vwl.data.index import make_index, write_index
from vwl.report.html.page import SCRIPTS, environment
from vwl.report.html.pictures import heat_layer, mask_layer, photo
from vwl.report.html.report import NUM_FULL, run_report, write_html
from vwl.report.html.sections import gallery
from vwl.report.overlays import display_palette
from vwl.storage.folder import Folder
from vwl.workflow.run_folder import Run
from vwl.workflow.scoring import score_table

SECTIONS = ["summary", "curves", "thresholds", "classes", "confusion", "gallery", "words", "failures", "settings", "versions"]
HOSTILE = "<script>window.pwned=1</script>"
LIMIT = 15e6
"""Bytes of a report of 1,000 images."""
OTHER = 3e6
"""Bytes of scripts, tables and the regions of visual words."""


@pytest.fixture(scope="module")
def text(tiny_run):
    return run_report(tiny_run).decode()


def sections_of(text):
    return re.findall(r'<section id="([^"]+)"', text)


def data_of(text, name):
    (found,) = re.findall(rf'<script type="application/json" id="data-{name}">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def section(text, name):
    return text.partition(f'<section id="{name}"')[2].partition("</section>")[0]


def with_classes(run, *names):
    """The run on a data set of the same images with other class names; its index is written anew, its stages are as they were."""
    index = make_index(run.index.rows, ("background", *names), run.index.root, run.index.source)
    write_index(index, run.index_path)
    return Run.start(str(run.folder), run.recipe, run.index_path, overwrite=True)


def test_a_finished_run_has_all_sections_in_order(text):
    assert sections_of(text) == SECTIONS


def test_the_summary_has_every_score_and_every_stage(text, tiny_run):
    summary = section(text, "summary")
    for line in score_table(tiny_run):
        assert f"<span>{line.miou:,.2f}</span>" in summary
    assert re.findall(r'<tr><th scope="row">([\w-]+)</th><td><span class="state done">', summary) == list(STAGES)
    assert "auto (Otsu, no ground truth)" in summary


def test_trainings_have_charts_of_losses_rates_and_codebook(text):
    charts = data_of(text, "charts_curves")
    assert {"classifier-loss", "classifier-rate", "classifier-usage", "classifier-cosine", "irnet-loss", "segmenter-loss"} <= set(charts)
    assert [series["name"] for series in charts["classifier-loss"]["series"]] == ["total", "image", "word"]
    assert [series["name"] for series in charts["irnet-loss"]["series"]] == ["total", "attract", "repel"]


def test_threshold_curves_mark_the_threshold_in_use_and_the_best(text, tiny_run):
    charts = data_of(text, "charts_thresholds")
    assert set(charts) == {"threshold-cam", "threshold-walk"}
    series = {one["name"]: one for one in charts["threshold-cam"]["series"]}
    (line,) = [line for line in score_table(tiny_run) if (line.stage, line.split) == ("cam", "val")]
    assert (series["val: in use"]["x"], series["val: in use"]["y"]) == ([line.threshold], [line.miou])
    assert series["val: best, by ground truth"]["y"] == [line.best_miou_with_ground_truth]
    assert max(series["val"]["y"]) == line.best_miou_with_ground_truth


def test_confusions_are_those_of_the_stage(text, tiny_run):
    stored = (tiny_run.folder / "segment").read_json("scores-val.json")
    assert data_of(text, "confusion")["segment-val"] == {"names": list(tiny_run.index.classes), "counts": stored["confusion"]}


def test_the_gallery_has_every_image_with_the_layers_of_every_stage(text, tiny_run):
    data = data_of(text, "gallery")
    assert [image["id"] for image in data["images"]] == [row.image_id for row in tiny_run.index.rows]
    assert {(image["split"], *image["layers"]) for image in data["images"]} == {
        ("train", "cam", "crf", "masks", "segment", "truth", "walk"),
        ("val", "cam", "crf", "segment", "truth", "walk"),
    }
    assert {tuple(image["scores"]) for image in data["images"]} == {("cam", "crf", "segment", "walk")}
    assert set(data["full"]) == {image["id"] for image in data["images"]}
    assert [key for key, _ in data["stages"]] == ["photo", "cam", "crf", "walk", "masks", "segment", "truth"]


def test_words_are_shown_with_their_regions(text):
    words = section(text, "words")
    assert "Codebook <b>memory</b> of 8 words" in words
    assert words.count("<img ") >= 2
    assert re.search(r"<h3>Word \d+: (background|beetle|lizard)</h3>", words)


def test_changed_settings_are_listed_beside_those_of_the_recipe(text):
    settings = section(text, "settings")
    assert "<code>classifier.codebook.num_codewords</code>" in settings
    assert "differ from the recipe demo" in settings


def test_a_run_without_a_codebook_says_so(copied):
    Run.start(str(copied.folder), copied.recipe, copied.index_path)
    classifier = copied.recipe.classifier
    none = classifier.model_copy(update={"codebook": classifier.codebook.model_copy(update={"strategy": "none"})})
    changed = Run(copied.folder, copied.recipe.model_copy(update={"classifier": none}), copied.index, copied.index_path)
    assert "no codebook" in section(run_report(changed).decode(), "words")


def test_a_run_that_has_not_begun_has_a_report(copied):
    for stage in STAGES:
        shutil.rmtree(Path(copied.folder.path, stage))
    text = run_report(copied).decode()
    assert sections_of(text) == [name for name in SECTIONS if name not in {"thresholds", "classes", "confusion"}]
    for name, line in (("summary", "No stage was scored"), ("curves", "No training has logged"), ("gallery", "No stage has a result")):
        assert line in section(text, name)


@pytest.mark.parametrize("stage", list(STAGES))
def test_a_run_that_lacks_a_stage_has_a_report(copied, stage):
    shutil.rmtree(Path(copied.folder.path, stage))
    text = run_report(copied, num_full=1).decode()
    assert [name for name in sections_of(text) if name in {"summary", "gallery", "words"}] == ["summary", "gallery", "words"]
    assert all(stage not in image["layers"] for image in data_of(text, "gallery")["images"])


def test_an_image_that_cannot_be_read_is_left_out(copied):
    truncate(copied.index, "val_00001")
    shown = [image["id"] for image in data_of(run_report(copied).decode(), "gallery")["images"]]
    assert "val_00001" not in shown
    assert len(shown) == len(copied.index.rows) - 1


def test_a_damaged_mask_or_map_leaves_its_layer_out(copied):
    Path(copied.folder.path, "crf", "val_00000.png").write_bytes(b"no png")
    (part, *_) = sorted(Path(copied.folder.path, "cam").glob("part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-100])
    images = {image["id"]: image for image in data_of(run_report(copied).decode(), "gallery")["images"]}
    assert set(images["val_00000"]["layers"]) >= {"segment", "truth"}
    assert "crf" not in images["val_00000"]["layers"]
    assert any("cam" not in image["layers"] for image in images.values())


def test_failures_are_listed_with_their_reasons(copied):
    manifest = copied.manifest("segment")
    copied.write_manifest(replace(manifest, failed={"val_00003": f"no good {HOSTILE}"}))
    failures = section(run_report(copied).decode(), "failures")
    assert "1 image could not be processed" in failures
    assert "val_00003" in failures
    assert "no good &lt;script&gt;" in failures


def test_hostile_class_names_stay_text(copied):
    text = run_report(with_classes(copied, HOSTILE, "\" onload='x' & </script>")).decode()
    assert HOSTILE not in text
    # the page's scripts, the data of the curves and of the gallery: the scores are of other classes
    assert len(re.findall(r"<script[ >]", text)) == len(SCRIPTS) + len(re.findall(r'<script type="application/json"', text))
    assert data_of(text, "gallery")["classes"][1] == HOSTILE


def test_templates_escape_by_default():
    assert environment().from_string("{{ x }}").render(x="<b>") == "&lt;b&gt;"


def test_only_as_many_images_as_asked_for_have_large_pictures_the_worst_first(tiny_run):
    data = data_of(run_report(tiny_run, num_full=4).decode(), "gallery")
    scores = {image["id"]: image["scores"]["segment"] for image in data["images"]}
    assert len(data["full"]) == 4
    worst = sorted(scores.values())[:2]
    assert sorted(scores[name] for name in data["full"])[:2] == worst


def test_a_large_data_set_has_images_of_each_split_up_to_the_limit(tiny_run, monkeypatch):
    monkeypatch.setattr(gallery, "MAX_IMAGES", 6)
    text = run_report(tiny_run, num_full=0).decode()
    splits = [image["split"] for image in data_of(text, "gallery")["images"]]
    assert (splits.count("train"), splits.count("val")) == (3, 3)
    assert "6 of 12 images, spread evenly over each split" in text


def test_the_report_is_written_into_the_run_or_where_it_is_wanted(copied, tmp_path):
    assert write_html(b"a", copied.folder, None) == f"{copied.folder}/report.html"
    assert write_html(b"b", copied.folder, str(tmp_path / "new" / "x.html")) == str(tmp_path / "new" / "x.html")
    assert (copied.folder.read("report.html"), Folder(tmp_path / "new").read("x.html")) == (b"a", b"b")


def test_equal_runs_have_equal_reports(tiny_run, text):
    assert run_report(tiny_run).decode() == text


def test_a_thousand_real_images_stay_below_15_megabytes():
    """Bytes of VOC images with a mask of each class on them at every stage, and of their full pictures, scaled up to 1,000 images."""
    folder = real_data("voc12mini")
    masks = sorted((folder / "SegmentationClassAug").glob("*.png"))[::40][:12]
    palette, length = display_palette(), 0.0
    for path in masks:
        mask = np.asarray(Image.open(path))
        image = np.asarray(Image.open(folder / "JPEGImages" / f"{path.stem}.jpg").convert("RGB"))
        classes = [class_id for class_id in np.unique(mask) if class_id not in (0, 255)]
        maps = np.stack([np.asarray(Image.fromarray((mask == c).astype(np.uint8) * 255).resize((125, 94)), float) / 255 for c in classes])
        for sizes, number in ((gallery.THUMBNAIL, 1000), (gallery.FULL, NUM_FULL)):
            masks_of_stages = 3 * len(mask_layer(mask, palette, sizes.mask))
            maps_of_stages = 2 * len(heat_layer(maps, classes, palette, sizes.heat, sizes.heat_quality))
            own = len(photo(image, sizes.photo, sizes.quality)) + masks_of_stages + maps_of_stages + 250
            length += own * number / len(masks)
    assert 3e6 < length < LIMIT - OTHER
