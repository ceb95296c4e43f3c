"""The report of a search folder: tables with intervals, charts, and links to the trials."""

import json
import re
import shutil
from pathlib import Path

import pytest

from vwl.errors import VwlError
from vwl.report.html.page import SEARCH_SCRIPTS
from vwl.storage.folder import Folder
from vwl.tuning.formats import texts
from vwl.tuning.html_report import search_report
from vwl.tuning.report import tables


@pytest.fixture
def copied(done_search, tmp_path):
    shutil.copytree(done_search[0].path, tmp_path / "search")
    return Folder(tmp_path / "search")


def sections_of(text):
    return re.findall(r'<section id="([^"]+)"', text)


def links(text):
    return dict(reversed(found) for found in re.findall(r'<th scope="row" class="nowrap"><a href="([^"]+)">([^<]+)</a>', text))


def charts_of(text):
    (found,) = re.findall(r'<script type="application/json" id="data-charts_words">(.*?)</script>', text, re.DOTALL)
    return json.loads(found)


def test_a_search_has_an_overview_its_tables_and_its_trials(done_search):
    text = search_report(done_search[0]).decode()
    assert sections_of(text) == ["overview", "search-words", "trials"]
    assert text.count("<script>") == len(SEARCH_SCRIPTS)
    assert "<strong>4</strong><span>of 4, 0 failed</span>" in text


def test_the_table_has_the_texts_of_vwl_tune_table(done_search):
    root, _ = done_search
    (table,) = tables(root)
    text = search_report(root).decode()
    for _, *cells, _ in texts(table):
        for cell in cells:
            assert f'<td class="n">{cell}</td>' in text


def test_charts_have_the_scores_of_all_seeds_and_the_intervals_of_the_differences(done_search):
    root, _ = done_search
    (table,) = tables(root)
    charts = charts_of(search_report(root).decode())
    assert set(charts) == {f"words-{split}-{kind}" for split in ("train", "val") for kind in ("scores", "differences")}
    series = {one["name"]: one for one in charts["words-val-scores"]["series"]}
    assert series["mean ± sd"]["y"] == pytest.approx([line.val.mean for line in table.lines])
    assert series["seeds"]["y"] == pytest.approx([value for line in table.lines for value in line.val.scores.values()])
    (difference,) = charts["words-val-differences"]["series"]
    cell = table.lines[1].val.difference
    assert (difference["y"], difference["error"]) == (pytest.approx([cell.value], abs=1e-6), pytest.approx([cell.half_width], abs=1e-6))


def test_each_trial_is_linked_to_its_folder_or_report(copied):
    first, *others = sorted(links(search_report(copied).decode()))
    (copied / f"trials/{first}").write("report.html", b"")
    found = links(search_report(copied).decode())
    assert found == {first: f"trials/{first}/report.html", **{name: f"trials/{name}/" for name in others}}
    assert all(Path(copied.path, target).exists() for target in found.values())


def test_a_report_elsewhere_has_absolute_links(copied, tmp_path):
    found = links(search_report(copied, str(tmp_path / "x.html")).decode())
    assert len(found) == 4
    for name, target in found.items():
        assert target == (Path(copied.path) / "trials" / name).as_uri()


def test_a_search_that_has_just_begun_has_a_report(copied):
    shutil.rmtree(Path(copied.path, "trials"))
    text = search_report(copied).decode()
    assert "of 4, 0 failed" in text
    assert links(text) == {}
    assert charts_of(text) == {}
    assert "Incomplete." in text


def test_a_failed_trial_shows_its_reason_as_text(copied):
    name = sorted(links(search_report(copied).decode()))[0]
    record = (copied / f"trials/{name}").read_json("trial.json")
    (copied / f"trials/{name}").write_json("trial.json", {**record, "state": "failed", "reason": "<script>alert(1)</script>"})
    text = search_report(copied).decode()
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in text
    assert "<script>alert(1)" not in text
    assert '<span class="state failed">failed</span>' in text


def test_a_folder_without_a_search_is_refused(tmp_path):
    with pytest.raises(VwlError, match="holds no search"):
        search_report(Folder(tmp_path))
