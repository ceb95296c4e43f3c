"""Tables with two axes: seeds, imported ones among them, by refinement; computed in this process, with an interruption."""

import json
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from tests import seeds
from tests.tuning.searches import rows_of, search_of, tiny_index, tiny_recipe
from vwl.api.tune import TrialResources, open_tune, resume_tune, tune
from vwl.constants import map_size
from vwl.data.index import read_index
from vwl.errors import Interrupted, VwlError
from vwl.storage.folder import Folder
from vwl.storage.score_maps import ScoreMap
from vwl.tuning.formats import FORMATS, header, texts
from vwl.tuning.given import with_given
from vwl.tuning.html_report import search_report
from vwl.tuning.plot import render_plot
from vwl.tuning.results import SCHEMA
from vwl.tuning.space import load_space, space_from
from vwl.tuning.table import build_table

PSA = ("psa.backbone.name=timm:test_resnet", "psa.backbone.weights=none", "psa.epochs=1", "psa.batch_size=4", "psa.crop=96", "psa.radius=3")
SPACE = """
title: Seeds
rows:
  - {label: CAM, papers: {none: {train: 48.8}}}
  - {label: AdvCAM, set: {cam.advcam.steps: 2}}
  - {label: more words, set: {classifier.codebook.strategy: none}, weights: {irnet.start_from: words}}
columns:
  - {label: none, stage: cam}
  - {label: + CRF, stage: crf}
  - {label: + PSA, stage: walk, set: {refiner: psa}}
"""
HERE = TrialResources(backend="local")


def crossed(**fields):
    columns = [{"label": "none", "stage": "cam"}, {"label": "+ CRF", "stage": "crf"}]
    rows = [{"label": "CAM", "papers": {"+ CRF": {"train": 54.3}}}, {"label": "other", "set": {"classifier.gap_weight": 1}}]
    return space_from({"name": "crossed", "title": "Seeds", "rows": rows, "columns": columns, **fields}, "test")


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> str:
    return tiny_index(tmp_path_factory.mktemp("crossed"))


@pytest.fixture(scope="module")
def maps(index_path, tmp_path_factory) -> Path:
    """Maps of another method of every image, in IRN's format."""
    folder = tmp_path_factory.mktemp("other maps")
    index, rng = read_index(index_path), np.random.default_rng(0)
    for row in index.rows:
        width, height = index.read_image(row).size
        values = rng.random((len(row.labels), *map_size(height, width))).astype(np.float16)
        seeds.irn(ScoreMap(row.image_id, row.labels, height, width, values), folder)
    return folder


class StopsAt:
    """Asks once to stop, at the first step of a stage."""

    def __init__(self, stage: str) -> None:
        self.stage, self.asked = stage, False

    def __call__(self, progress) -> None:
        if progress.state == self.stage and not self.asked:
            self.asked = True
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def finished(index_path, maps, tmp_path_factory):
    """The folder of a search with two seeds that was interrupted in the training of PSA and resumed, and its states at the interruption."""
    folder = tmp_path_factory.mktemp("search")
    (folder / "seeds.yaml").write_text(SPACE)
    stop = StopsAt("psa")
    with pytest.raises((Interrupted, KeyboardInterrupt)):
        tune(
            folder / "seeds.yaml",
            index_path,
            tiny_recipe(*PSA),
            folder / "out",
            seeds=2,
            maps={"other": maps},
            resources=HERE,
            on_trial=stop,
        )
    states = [row["state"] for row in open_tune(folder / "out").rows]
    return resume_tune(folder / "out"), states


def test_an_interrupted_search_is_resumed_to_its_end(finished):
    result, states = finished
    assert 0 < states.count("done") < len(states)
    assert result.failed == {}
    assert [row["state"] for row in result.rows] == ["done"] * 18  # 3 rows, 3 columns, 2 seeds


def computed(rows, stage):
    """The trials that have computed a stage themselves."""
    return [row["trial"] for row in rows if stage in dict(row["stage_seconds"]) and stage not in dict(row["copied_from"])]


def test_cells_share_their_classifier_and_their_maps(finished):
    rows = finished[0].rows
    assert len(computed(rows, "classifier")) == 2  # one a seed, for CAM and AdvCAM in all columns
    assert len(computed(rows, "cam")) == 5  # of two rows with two seeds, and the import, which no seed changes
    assert len(computed(rows, "psa")) == 6


def test_imported_maps_need_no_classifier_and_do_not_depend_on_the_seed(finished):
    rows = [row for row in finished[0].rows if row["trial"].startswith("import-other-maps")]
    assert len(rows) == 6
    assert not any("classifier" in dict(row["stage_seconds"]) for row in rows)
    first, second = (row["val_miou"] for row in rows if row["stage"] == "cam")
    assert first == second


def test_the_table_has_a_cell_for_each_seed_and_refinement_with_its_gain_and_cost(finished):
    (table,) = finished[0].tables
    assert table.is_complete
    assert table.labels == ["CAM", "AdvCAM", "other"]
    assert [column.label for column in table.refinements] == ["none", "+ CRF", "+ PSA"]
    for line in table.lines:
        assert len(line.val.scores) == 2
        assert line.map_seconds > 0
        assert (line.refiner_seconds > 0) == (line.column != "none")
        assert (line.val.difference is None) == line.is_base
    for column in table.refinements[1:]:
        lines = [line for line in table.lines if line.column == column.label]
        gains = [line.val.mean - table.line(line.label, "none").val.mean for line in lines]
        assert column.val.value == pytest.approx(np.mean(gains))
        assert column.seconds > 0


def test_a_row_whose_weights_are_not_given_is_left_out_with_a_line(finished):
    (table,) = finished[0].tables
    assert "more words: left out, its weights are not given: --weights words=FILE" in table.notes


def test_the_table_is_written_in_every_form(finished, tmp_path):
    result, _ = finished
    (table,) = result.tables
    assert all(len(row) == len(header(table)) for row in texts(table))
    result.write(tmp_path)
    assert "| CAM |" in (tmp_path / "seeds.md").read_text()
    assert [line["column"] for line in json.loads((tmp_path / "seeds.json").read_text())["lines"]] == ["none", "+ CRF", "+ PSA"] * 3
    assert (tmp_path / "seeds.csv").read_text().count("\n") == 1 + 9 * 2
    assert (tmp_path / "seeds.png").read_bytes()[:4] == b"\x89PNG"
    stored = pq.read_table(tmp_path / "trials.parquet")
    assert stored.schema.equals(SCHEMA)
    assert {cell["column"] for row in stored.to_pylist() for cell in row["in"]} == {"none", "+ CRF", "+ PSA"}
    page = search_report(Folder(result.folder)).decode()
    assert "val + PSA" in page


def test_a_repeated_command_keeps_the_imported_row_and_runs_nothing(finished, index_path, tmp_path):
    folder = Path(finished[0].folder)
    before = {row["trial"]: row["finished"] for row in finished[0].rows}
    again = tune(folder.parent / "seeds.yaml", index_path, tiny_recipe(*PSA), folder, seeds=2, resources=HERE)
    assert {row["trial"]: row["finished"] for row in again.rows} == before
    assert again.tables[0].labels == ["CAM", "AdvCAM", "other"]


def test_maps_that_change_during_a_search_are_refused(index_path, maps, tmp_path):
    shutil.copytree(maps, tmp_path / "maps")
    (tmp_path / "seeds.yaml").write_text("title: x\nrows: [{label: other, import: %s}]\n" % (tmp_path / "maps"))
    found = with_given(load_space(str(tmp_path / "seeds.yaml")), {}, {}, read_index(index_path), index_path)
    next((tmp_path / "maps").glob("*.npy")).touch()
    again = with_given(load_space(str(tmp_path / "seeds.yaml")), {}, {}, read_index(index_path), index_path)
    assert found.rows[0].imported.content != again.rows[0].imported.content
    assert found.rows[0].imported.format == "irn"
    assert found.field_lost_in(again) == "settings"


@pytest.mark.parametrize(
    ("maps", "weights", "message"),
    [
        ({"CAM": "x"}, {}, "--import CAM: the space crossed has a row of this name; choose another name"),
        ({"new": "missing"}, {}, "there is no folder "),
        ({}, {"coco": "x"}, "--weights coco: no row of the space crossed takes them; it takes none"),
    ],
)
def test_what_a_space_cannot_take_is_refused_in_a_line(maps, weights, message, index_path):
    with pytest.raises(VwlError) as raised:
        with_given(crossed(), maps, weights, read_index(index_path), index_path)
    assert message in str(raised.value)


def test_a_space_of_values_takes_no_maps(index_path):
    with pytest.raises(VwlError, match="--import x: the space table5a has no rows that the maps could be one of"):
        with_given(load_space("table5a"), {"x": "y"}, {}, read_index(index_path), index_path)


def test_given_weights_fill_their_key_and_bring_their_row(index_path):
    found = with_given(load_space("table2"), {}, {"coco": "coco.pth"}, read_index(index_path), index_path)
    assert [row.label for row in found.rows] == ["VWL-M, ImageNet", "VWL-L, ImageNet", "VWL-M, COCO", "VWL-L, COCO"]
    assert found.settings()[3].overrides["segmenter.backbone.weights"] == "coco.pth"
    without = with_given(load_space("table2"), {}, {}, read_index(index_path), index_path)
    assert [row.label for row in without.rows] == ["VWL-M, ImageNet", "VWL-L, ImageNet"]
    assert list(without.left_out) == ["VWL-M, COCO", "VWL-L, COCO"]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"columns": [{"label": "a", "stage": "cam"}, {"label": "a", "stage": "crf"}]}, "two columns have the same label"),
        ({"rows": [{"label": "x", "papers": {"y": {"train": 1}}}]}, "the row x has papers of y, which is none of the columns"),
        ({"rows": [{"label": "x", "paper": {"train": 1}}]}, "the row x has a stage or paper of its own"),
        ({"rows": [{"label": "x", "import": {"folder": "y", "form": "irn"}}]}, "should be a folder, or folder, format and background"),
        ({"rows": [{"label": "x", "import": {"folder": "y", "background": "black"}}]}, "black, which is none of own, fixed, one-minus-max"),
        ({"rows": [], "parameter": "classifier.gap_weight", "values": [1]}, "columns need rows"),
    ],
)
def test_an_inconsistent_space_is_refused_in_a_line(fields, message):
    with pytest.raises(VwlError) as raised:
        crossed(**fields)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_cells_of_a_crossed_table_have_our_score_the_difference_and_the_papers():
    search = search_of(crossed())
    rows = rows_of(search, {})
    scores = {("CAM", "none"): 50, ("CAM", "+ CRF"): 55, ("other", "none"): 52, ("other", "+ CRF"): 58}
    for entry in search.entries():
        row = next(row for row in rows if row["trial"] == entry.trial.id)
        row |= {"state": "done", "train_miou": scores[entry.setting.cell] + entry.seed, "stage_images": [("cam", 4)]}
        row["stage_seconds"] = [("classifier", 4.0), ("cam", 2.0), *([("crf", 6.0)] if entry.setting.column == "+ CRF" else [])]
    table = build_table(search, rows)
    assert header(table) == ["setting", "train none", "train + CRF", "train + CRF paper", "s / image", "seeds"]
    assert texts(table) == [
        ["CAM", "50.5 ± 0.7", "55.5 ± 0.7", "54.3", "1.50", "2"],
        ["other", "52.5 ± 0.7 (+2.0 ± 0.0*)", "58.5 ± 0.7 (+3.0 ± 0.0*)", "-", "1.50", "2"],
        ["s / image", "0.00", "1.50", "-", "-", "-"],
        ["gain", "-", texts(table)[3][2], "-", "-", "-"],
    ]
    assert texts(table)[3][2].startswith("+5.5 ± ")
    assert "**58.5 ± 0.7 (+3.0 ± 0.0*)**" in FORMATS["markdown"].write(table)
    assert render_plot(table, "svg") == render_plot(table, "svg")


def test_a_crossed_table_without_any_result_can_be_shown():
    search = search_of(crossed())
    table = build_table(search, rows_of(search, {}))
    assert not table.is_complete
    assert texts(table)[0][-1] == "0 of 4"
    for form in FORMATS.values():
        assert form.write(table)
    assert render_plot(table, "png")


def test_table_1_crosses_the_seeds_with_the_refinements_of_the_paper():
    found = load_space("table1")
    assert [row.label for row in found.rows] == ["CAM", "AdvCAM", "VWL-M", "VWL-L", "VWL-L + ReCAM", "VWL-L + LPCAM", "VWL-L + AdvCAM"]
    papers = {setting.cell: setting.paper_train for setting in found.settings() if setting.paper_train}
    assert papers["VWL-L", "+ IRNet"] == 71.4
    assert papers["AdvCAM", "+ PSA"] == 68.0
    assert len(found.settings()) == 28
    search = search_of(found)
    trials = {entry.setting.cell: entry.trial for entry in search.entries() if entry.seed == 0}
    assert trials["VWL-L + LPCAM", "+ PSA"].stages == ["classifier", "lpcam", "cam", "psa-labels", "psa", "walk"]
    assert trials["VWL-L + ReCAM", "+ CRF"].stages == ["classifier", "recam", "cam", "crf"]
    assert len({trial.id for trial in trials.values()}) == 28
    shared = {trial.fingerprint("classifier", "0" * 16) for cell, trial in trials.items() if cell[0].startswith("VWL-L")}
    assert len(shared) == 1


@pytest.mark.parametrize("name", ["table2", "table3"])
def test_tables_2_and_3_score_the_segmentation_model(name):
    assert {entry.trial.stage for entry in search_of(load_space(name)).entries()} == {"segment"}
