"""Trials run in this process: shared stages are computed once, finished trials are not run again, failures are recorded."""

import json
from pathlib import Path

import pytest
import torch

from tests.tuning.searches import CountingEngine, run_here, space, tiny_index, tiny_recipe
from vwl.config.recipe import Backbone
from vwl.data.index import read_index
from vwl.engine.search_types import EpochEnd, StageProgress, TrialEnd
from vwl.errors import VwlError
from vwl.models.backbones import build_backbone
from vwl.storage.folder import Folder
from vwl.tuning.results import trial_rows
from vwl.tuning.search import Search
from vwl.tuning.trials import epoch_metrics, read_record, update_record
from vwl.workflow.run_folder import Run
from vwl.workflow.status import stage_status

THRESHOLDS = [{"label": str(value), "set": {"cam.background_threshold": value}} for value in (0.02, 0.9)]


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> str:
    return tiny_index(tmp_path_factory.mktemp("trials"))


def planned(found, index_path, *overrides, seeds=1) -> Search:
    return Search.plan(found, tiny_recipe(*overrides), read_index(index_path), index_path, seeds)


@pytest.fixture(scope="module")
def thresholds(index_path, tmp_path_factory):
    """A search whose two trials differ after training, done."""
    root = Folder(tmp_path_factory.mktemp("thresholds"))
    search = planned(space(parameter=None, values=[], rows=THRESHOLDS), index_path)
    return search, root, *run_here(search, root)


def test_trials_that_differ_after_training_share_classifier_and_maps(thresholds):
    search, root, engine, _ = thresholds
    first, second = (entry.trial for entry in search.entries())
    assert engine.trained == [first.id]
    assert engine.mapped == ["cam"]
    copied = {row["trial"]: dict(row["copied_from"]) for row in trial_rows(root, [search])}
    assert copied == {first.id: {}, second.id: {"classifier": first.id, "cam": first.id}}
    weights = [Path(trial.folder(root).path, "classifier/weights.pt").read_bytes() for trial in (first, second)]
    assert weights[0] == weights[1]


def test_a_copied_stage_is_scored_with_the_trials_own_threshold(thresholds):
    search, root, _, _ = thresholds
    rows = trial_rows(root, [search])
    assert [row["val_threshold"] for row in rows] == [0.02, 0.9]
    assert rows[0]["val_miou"] != rows[1]["val_miou"]
    assert rows[0]["val_best_miou_with_ground_truth"] >= max(row["val_miou"] for row in rows)


def test_a_trial_is_an_ordinary_run_folder(thresholds):
    search, root, _, _ = thresholds
    run = Run.open(str(search.entries()[0].trial.folder(root)))
    assert [stage_status(run, stage).state for stage in ("classifier", "cam", "crf")] == ["done", "done", "not started"]


def test_a_trial_reports_its_progress_its_epochs_and_its_score(thresholds):
    search, root, _, events = thresholds
    first = [event for event in events if event.trial == search.entries()[0].trial.id]
    assert {event.stage for event in first if isinstance(event, StageProgress)} == {"classifier", "cam"}
    (epoch,) = [event for event in first if isinstance(event, EpochEnd)]
    assert epoch.epoch == 1
    assert epoch.score == epoch.metrics["val_map"]
    assert first[-1] == TrialEnd(first[-1].trial, "done", "", None)
    assert events[-1].objective == pytest.approx(sum(row["val_miou"] for row in trial_rows(root, [search])) / 2)


def test_a_finished_trial_is_not_run_again(thresholds):
    search, root, _, _ = thresholds
    before = [read_record(entry.trial, root) for entry in search.entries()]
    engine, events = run_here(search, root)
    assert engine.trained == engine.mapped == []
    assert [event.state for event in events] == ["done", "done"]
    assert [read_record(entry.trial, root) for entry in search.entries()] == before


def test_a_trial_that_was_stopped_early_is_finished_by_a_search_without_early_stopping(index_path, tmp_path):
    search, root = planned(space(values=[4]), index_path), Folder(tmp_path)
    trial = search.entries()[0].trial
    update_record(trial, root, state="stopped", reason="stopped early after epoch 1")
    assert run_here(search, root, may_stop=True)[0].trained == []
    assert run_here(search, root)[0].trained == [trial.id]
    assert trial_rows(root, [search])[0]["state"] == "done"


def test_the_objective_of_a_setting_is_the_mean_over_its_seeds(index_path, tmp_path):
    search, root = planned(space(values=[4]), index_path, seeds=2), Folder(tmp_path)
    for _ in range(2):  # trained, then finished already
        _, events = run_here(search, root)
        scores = [row["val_miou"] for row in trial_rows(root, [search])]
        ends = [event for event in events if isinstance(event, TrialEnd)]
        assert ends[0].objective is None
        assert ends[1].objective == pytest.approx(sum(scores) / 2)


def test_a_setting_with_a_failed_seed_has_no_objective(index_path, tmp_path, monkeypatch):
    search, root = planned(space(values=[4]), index_path, seeds=2), Folder(tmp_path)
    fit = CountingEngine.fit

    def fails_with_the_first_seed(self, spec, layout, report):
        if spec.recipe.seed == 0:
            raise VwlError("the loss is not finite")
        return fit(self, spec, layout, report)

    monkeypatch.setattr(CountingEngine, "fit", fails_with_the_first_seed)
    _, events = run_here(search, root)
    ends = [event for event in events if isinstance(event, TrialEnd)]
    assert [(end.state, end.objective) for end in ends] == [("failed", None), ("done", None)]


def test_a_failure_is_recorded_with_its_reason_the_others_continue_and_it_is_run_again(index_path, tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "other.pth")
    rows = [
        {"label": "wrong", "set": {"classifier.backbone.weights": str(tmp_path / "other.pth")}},
        {"label": "right", "set": {"classifier.codebook.num_codewords": 4}},
    ]
    search, root = planned(space(parameter=None, values=[], rows=rows), index_path), Folder(tmp_path / "search")
    run_here(search, root)
    wrong, right = trial_rows(root, [search])
    assert (wrong["state"], right["state"]) == ("failed", "done")
    assert "other.pth is of another network" in wrong["reason"]
    assert "train_miou" not in wrong
    plain = build_backbone(Backbone(name="timm:test_resnet", weights="none"))
    torch.save(plain.state_dict(), tmp_path / "other.pth")
    engine, _ = run_here(search, root)
    assert engine.trained == [wrong["trial"]]
    assert [(row["state"], row["reason"]) for row in trial_rows(root, [search])] == [("done", ""), ("done", "")]


def test_an_epoch_is_finished_when_it_was_scored_or_the_next_has_started(tmp_path):
    lines = [
        {"step": 10, "epoch": 0, "loss": 2.0, "loss_image": 1.5, "learning_rate": 0.1, "codewords_used": 7},
        {"step": 20, "epoch": 0, "loss": 1.0, "loss_image": 0.5, "learning_rate": 0.1, "codewords_used": 9},
        {"step": 20, "epoch": 0, "val_map": 0.25},
        {"step": 30, "epoch": 1, "loss": 0.5, "loss_image": 0.25, "learning_rate": 0.1, "codewords_used": 8},
    ]
    first = {"loss": 1.0, "loss_image": 0.5, "codewords_used": 9, "val_map": 0.25}

    def found(kept, ending=""):
        (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in kept) + ending)
        return epoch_metrics(Folder(tmp_path))

    assert epoch_metrics(Folder(tmp_path / "none")) == {}
    assert found(lines[:2]) == {}
    assert found(lines[:3]) == {1: first}
    assert found(lines, ending='{"step": 40, "ep') == {1: first}
    without = found([lines[0], lines[1], lines[3]])
    assert without == {1: {key: value for key, value in first.items() if key != "val_map"}}
