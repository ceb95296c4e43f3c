"""The Parquet table of all trials: complete, and each trial in it once."""

import io
import json
import shutil

import pyarrow.parquet as pq
import pytest

from tests.tuning.searches import space
from vwl.config.recipe import Recipe
from vwl.storage.folder import Folder
from vwl.tuning.results import PARQUET, SCHEMA, trial_rows, write_parquet
from vwl.tuning.search import Search
from vwl.tuning.trials import read_record, update_record


@pytest.fixture(scope="module")
def table(done_search):
    root, _ = done_search
    write_parquet(root)
    return pq.read_table(io.BytesIO(root.read(PARQUET)))


def test_every_trial_has_one_row_with_its_scores(table, done_search):
    root, search = done_search
    assert table.schema.equals(SCHEMA)
    rows = table.to_pylist()
    assert [row["trial"] for row in rows] == [entry.trial.id for entry in search.entries()]
    assert [row["seed"] for row in rows] == [0, 0, 1, 1]
    for row, entry in zip(rows, search.entries(), strict=True):
        scores = {line["split"]: line for line in (entry.trial.folder(root) / "cam").read_json("manifest.json")["scores"]}
        assert (row["train_miou"], row["val_miou"]) == (scores["train"]["miou"], scores["val"]["miou"])
        assert row["val_threshold_chosen"] == "auto (Otsu, no ground truth)"
        assert row["val_best_miou_with_ground_truth"] >= row["val_miou"]


def test_a_row_has_recipe_versions_epochs_and_times(table, done_search):
    root, search = done_search
    row, trial = table.to_pylist()[0], search.entries()[0].trial
    assert (row["state"], row["reason"], row["recipe_hash"]) == ("done", "", trial.recipe_hash)
    assert Recipe.model_validate_json(row["recipe"]) == trial.recipe
    assert row["checkpoint"] == f"trials/{trial.id}/classifier/weights.pt"  # the folder may move
    assert root.exists(row["checkpoint"])
    assert (root / "trials" / trial.id / "classifier").exists("weights.pt")
    assert dict(row["versions"])["torch"]
    assert set(dict(row["stage_seconds"])) == {"classifier", "cam"}
    assert row["seconds"] >= sum(dict(row["stage_seconds"]).values()) - 1
    assert [(epoch["epoch"], "val_map" in dict(epoch["metrics"])) for epoch in row["epochs"]] == [(1, True)]
    keys = json.dumps({"classifier.codebook.num_codewords": 4})
    assert row["in"] == [{"space": "words", "setting": "4", "keys": keys, "column": None}]
    assert dict(row["stage_images"])["cam"] == 12


def test_a_trial_of_two_searches_is_one_row(done_search):
    root, search = done_search
    other = Search(space(name="again", values=[8, 16]), search.recipe, search.index_path, search.index_fingerprint, (0,))
    rows = trial_rows(root, [search, other])
    names = [row["trial"] for row in rows]
    assert len(names) == len(set(names)) == 5
    shared = next(row for row in rows if len(row["in"]) == 2)
    assert [cell["space"] for cell in shared["in"]] == ["words", "again"]
    assert rows[-1]["state"] == "unfinished"


def test_times_that_a_killed_process_did_not_record_are_those_of_its_stages(done_search, tmp_path):
    root, search = done_search
    shutil.copytree(root.path, tmp_path / "search")
    trial = search.entries()[0].trial
    update_record(trial, Folder(tmp_path / "search"), seconds=0.0)
    row = trial_rows(Folder(tmp_path / "search"), [search])[0]
    assert row["seconds"] == sum(seconds for _, seconds in row["stage_seconds"]) > 0


def test_a_trial_whose_result_is_missing_is_unfinished(done_search, tmp_path):
    _, search = done_search
    root, trial = Folder(tmp_path), search.entries()[0].trial
    update_record(trial, root, state="done")
    assert read_record(trial, root).state == "done"
    assert trial_rows(root, [search])[0]["state"] == "unfinished"
