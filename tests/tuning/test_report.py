"""Reports of a search: tables in every format, plots, and the best recipe."""

import io
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from tests.tuning.searches import rows_of, search_of, space
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.tuning import report
from vwl.tuning.plot import draw, render_plot
from vwl.tuning.results import PARQUET
from vwl.tuning.table import build_table

PAPER = {"train": [57.0, 58.0, 56.0], "val": [55.0, 57.0, None]}
SCORES = {(k, s): (40.0 + n + s, 38.0 + n + s) for n, k in enumerate(("8", "16", "32")) for s in range(2)}


@pytest.fixture
def example():
    search = search_of(space(values=[8, 16, 32], paper=PAPER))
    return build_table(search, rows_of(search, SCORES))


def test_every_format_and_the_plots_are_written_beside_the_trials(done_search, tmp_path):
    root, _ = done_search
    report.write_all(root)
    assert root.exists(PARQUET)
    assert (root / "tables").names() == [f"words.{suffix}" for suffix in ("csv", "json", "md", "png", "svg", "tex")]


def test_a_plot_has_a_panel_a_split_with_our_means_each_seed_and_the_papers_curve(example):
    train, val = draw(example).axes[:2]
    ours = train.containers[0][0].get_ydata()
    assert list(ours) == [40.5, 41.5, 42.5]
    assert [list(line.get_ydata()) for line in train.lines if line.get_marker() == "x"] == [[40.0, 41.0], [41.0, 42.0], [42.0, 43.0]]
    theirs = {line.get_label(): line for line in val.lines}["paper"]
    # shifted by 55 - 38.5 to the height of our base; the paper lacks the last
    np.testing.assert_allclose(theirs.get_ydata(), [38.5, 40.5])
    assert [text.get_text() for text in val.get_xticklabels()] == ["8", "16", "32"]


def test_a_plot_is_a_valid_image_and_reproducible(example):
    assert Image.open(io.BytesIO(render_plot(example, "png"))).size[0] > 600
    assert render_plot(example, "png") == render_plot(example, "png")
    assert ET.fromstring(render_plot(example, "svg")).tag.endswith("svg")
    assert render_plot(example, "svg") == render_plot(example, "svg")


def test_a_plot_of_an_empty_and_of_an_incomplete_table_can_be_drawn():
    search = search_of(space(values=[8, 16, 32], paper=PAPER))
    for scores in ({}, {("16", 0): (40.0, 38.0)}):
        title = draw(build_table(search, rows_of(search, scores))).get_suptitle()
        assert "incomplete" in title


def test_the_best_trial_is_the_best_seed_of_the_setting_with_the_best_mean(monkeypatch):
    search = search_of(space(values=[8, 16]))
    scores = {("8", 0): (1.0, 50.0), ("8", 1): (1.0, 20.0), ("16", 0): (1.0, 41.0), ("16", 1): (1.0, 43.0)}
    monkeypatch.setattr(report, "open_searches", lambda root, name: [search])
    monkeypatch.setattr(report, "trial_rows", lambda root, searches: rows_of(search, scores))
    found = report.best(Folder("nowhere"))
    assert (found.setting, found.mean, found.score, found.recipe.seed) == ("16", 42.0, 43.0, 1)
    assert found.recipe.classifier.codebook.num_codewords == 16
    del scores["16", 1]
    assert report.best(Folder("nowhere")).setting == "8"  # a setting without all its seeds does not win


def test_without_a_score_there_is_no_best_trial(done_search, tmp_path):
    _, search = done_search
    replace(search, space=space(values=[4])).write(Folder(tmp_path))
    with pytest.raises(VwlError, match="no finished trial with a score on val"):
        report.best(Folder(tmp_path))
    with pytest.raises(VwlError, match="the split test is neither"):
        report.best(Folder(tmp_path), split="test")
