"""Sections of the report: what they read and how they sum it up."""

import json

import numpy as np
import pytest

from tests.workflow.runs import changed
from vwl.data.index import Row
from vwl.report.html.sections.classes import classes_section
from vwl.report.html.sections.confusion import confusion_section
from vwl.report.html.sections.curves import read_metrics
from vwl.report.html.sections.gallery import chosen_rows, image_iou
from vwl.report.html.sections.settings import settings_section, versions_section
from vwl.report.html.sections.stored import StoredScore
from vwl.storage.folder import Folder

CLASSES = ("background", "cat", "dog")


def score(stage="segment", split="val", **fields):
    values = {"images": 3, "miou": 50.0, "threshold": None, "chosen": "", "best_miou": None, "best_threshold": None, "curve": None}
    counts = [[80, 20, 0], [10, 30, 10], [0, 0, 0]]
    return StoredScore(
        stage,
        split,
        **{
            **values,
            "iou": {},
            "precision": {},
            "recall": {},
            "means": {"iou": 65.0, "precision": 1.0, "recall": None},
            "confusion": counts,
            **fields,
        },
    )


def rows(**splits):
    return [Row(f"{split}{i}", "a.jpg", (1,), None, split) for split, count in splits.items() for i in range(count)]


def test_metrics_of_a_step_are_merged_and_damaged_lines_left_out(tmp_path):
    lines = [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 9.0}, {"step": 20, "loss": 1.0}, {"step": 20, "val_map": 0.5, "name": "x"}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + '\n{"loss": 3}\n[1]\n{"step": 30, "lo')
    assert read_metrics(Folder(tmp_path)) == [{"step": 10, "loss": 2.0}, {"step": 20, "loss": 1.0, "val_map": 0.5}]
    assert read_metrics(Folder(tmp_path / "none")) == []


def test_the_largest_confusions_come_first_with_their_shares():
    (matrix, _) = confusion_section(CLASSES, [score(), score(stage="cam", split="train")]).content.matrices
    assert matrix.key == "segment-val"
    assert [(c.truth, c.prediction, c.share, c.of_errors) for c in matrix.largest] == [
        ("background", "cat", 20.0, 50.0),
        ("cat", "background", 20.0, 25.0),
        ("cat", "dog", 20.0, 25.0),
    ]


def test_the_matrix_has_only_classes_that_occur():
    counts = [[5, 0, 1], [0, 0, 0], [0, 0, 0]]
    data = confusion_section(CLASSES, [score(confusion=counts)]).data["confusion"]
    assert data == {"segment-val": {"names": ["background", "dog"], "counts": [[5, 1], [0, 0]]}}


def test_the_table_of_classes_has_each_stage_and_its_score():
    scores = [score("cam", iou={"background": 80.0, "cat": 40.0}), score("segment", iou={"background": 90.0, "cat": 50.0})]
    content = classes_section(CLASSES, scores, {"val": [3, 2, 0]}).content
    (table,) = [table for table in content.tables if table.metric == "iou"]
    assert table.stages == ["CAM", "Segmentation"]
    assert [(line.name, line.images, line.values) for line in table.lines] == [("background", 3, [80.0, 90.0]), ("cat", 2, [40.0, 50.0])]
    assert table.mean == [65.0, 65.0]  # the score of the stage, which may be over some classes only


def test_classes_that_are_not_scored_are_marked():
    scores = [score(iou={"background": 80.0, "cat": 40.0, "dog": 10.0})]
    content = classes_section(CLASSES, scores, {"val": [3, 2, 1]}, scored=("dog",)).content
    assert {line.name: line.is_scored for line in content.tables[0].lines} == {"background": True, "cat": False, "dog": True}
    assert not content.all_scored


@pytest.mark.parametrize(
    ("truth", "mask", "expected"),
    [
        ([[0, 1]], [[0, 1]], 1.0),
        ([[0, 1]], [[0, 0]], 0.25),
        ([[0, 0]], [[0, 1]], 0.25),
        ([[255, 1]], [[2, 1]], 1.0),
        ([[255, 255]], [[2, 1]], 1.0),
        ([[1, 1]], [[2, 2]], 0.0),
    ],
)
def test_the_score_of_an_image_is_the_mean_over_its_classes(truth, mask, expected):
    assert image_iou(np.array(truth, np.uint8), np.array(mask, np.uint8), 3) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("given", "most", "expected"),
    [
        ({"train": 3, "val": 2}, 10, {"train": 3, "val": 2}),
        ({"train": 100, "val": 100}, 10, {"train": 5, "val": 5}),
        ({"train": 100, "val": 2, "test": 3}, 10, {"train": 5, "val": 2, "test": 3}),
        ({"train": 100}, 10, {"train": 10}),
        ({}, 10, {}),
    ],
)
def test_rows_are_chosen_from_each_split(given, most, expected):
    chosen = chosen_rows(rows(**given), most)
    assert {split: sum(row.split == split for row in chosen) for split in given} == expected
    assert len({row.image_id for row in chosen}) == len(chosen)


def test_chosen_rows_include_the_first_and_the_last():
    ids = [row.image_id for row in chosen_rows(rows(train=100), 5)]
    assert (ids[0], ids[-1]) == ("train0", "train99")


def test_settings_are_compared_with_the_recipe_of_that_name(tiny_run):
    content = settings_section(tiny_run).content
    assert content.base == "demo"
    assert {setting.key: (setting.base, setting.value) for setting in content.changed}["cam.long_side"] == ("256", "96")
    assert "seed" not in {setting.key for setting in content.changed}


def test_settings_of_a_users_recipe_are_compared_with_the_defaults(copied):
    own = copied.recipe.model_copy(update={"name": "mine", "seed": 7})
    content = settings_section(type(copied)(copied.folder, own, copied.index, copied.index_path)).content
    assert content.base == ""
    assert {"seed", "segmenter.iterations"} <= {setting.key for setting in content.changed}


def test_stages_made_with_equal_versions_share_a_line(copied):
    content = versions_section(copied).content
    ((stages, versions),) = content.stages
    assert stages == "all stages"
    assert dict(zip(content.packages, versions, strict=True))["vwl"]
    manifest = copied.manifest("walk")
    manifest.versions["torch"] = "9"
    copied.write_manifest(manifest)
    assert [stages.count(",") for stages, _ in versions_section(copied).content.stages] == [7, 0]


def test_an_outdated_stage_is_called_so(copied):
    from vwl.report.html.sections.summary import summary_section

    content = summary_section(changed(copied, "walk.steps=2")).content
    states = {line.status.stage: line.status.state for line in content.stages}
    assert (states["cam"], states["walk"]) == ("done", "outdated")
