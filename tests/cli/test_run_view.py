"""How `vwl run` shows a run: every stage, newest scores and the time left of all on a terminal, lines elsewhere."""

from io import StringIO

import pytest
from rich.console import Console

from vwl.api.events import Metrics, RunProgress
from vwl.cli import run_view as module
from vwl.cli.run_view import LiveRun, RunLines, run_view, score_text

STAGES = ("classifier", "cam", "walk")
LOGGED = {"step": 10, "loss": 0.75, "loss_image": 0.5, "images_per_second": 7.6, "data_wait_share": 0.01}


def event(stage: str, done: int, total: int, seconds: float = 0.0, left: float | None = None, **more) -> RunProgress:
    return RunProgress(stage, done, total, stages=STAGES, seconds=seconds, seconds_left=left, **more)


def scores(stage: str, **values: float) -> Metrics:
    return Metrics(stage, None, values)


def drawn(view: LiveRun) -> list[str]:
    paper = Console(file=StringIO(), width=160)
    paper.print(view.drawn())
    return [" ".join(line.replace("━", "").replace("╸", "").replace("╺", "").split()) for line in paper.file.getvalue().splitlines()]


@pytest.fixture
def view(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 100.0)
    return LiveRun()


def test_all_stages_are_shown_from_the_start_with_the_time_left_of_the_run(view):
    view.update(event("classifier", 10, 20, seconds=65, left=3720, metrics=LOGGED))
    lines = drawn(view)
    assert lines[0] == "• classifier 10/20 0s loss 0.7500 7.6 images/s, 1% waiting for data"
    assert lines[1:4] == ["cam", "walk", "whole run: 1m05s, about 1h02m left"]
    assert lines[4].startswith("image images per second")


def test_a_stage_that_has_ended_shows_its_scores(view):
    view.update(event("classifier", 20, 20, seconds=65))
    view.update(event("cam", 8, 8, seconds=70, left=30))
    view.scores(scores("cam", train_miou=49.51, val_miou=48.26, seconds=5))
    assert drawn(view) == ["✓ classifier 20/20 0s", "✓ cam 8/8 0s mIoU train 49.5, val 48.3", "walk", "whole run: 1m10s, about 30s left"]


def test_a_stage_that_was_done_before_shows_its_scores_and_no_bar(view):
    view.scores(scores("cam", val_miou=48.26))
    view.update(event("walk", 1, 8))
    assert "✓ cam mIoU val 48.3" in drawn(view)


def test_metrics_of_a_training_are_no_scores(view):
    view.update(event("classifier", 10, 20))
    view.scores(Metrics("classifier", 10, {"val_miou": 12.0}, 0))
    assert "mIoU" not in " ".join(drawn(view))
    assert score_text({"loss": 1.0}) == ""


def test_the_time_left_counts_down_between_events(view, monkeypatch):
    view.update(event("classifier", 10, 20, seconds=65, left=30))
    monkeypatch.setattr("time.monotonic", lambda: 110.0)
    assert "whole run: 1m15s, about 20s left" in drawn(view)


def test_a_terminal_gets_the_live_table(monkeypatch):
    terminal = Console(file=StringIO(), force_terminal=True, width=160, _environ={})
    monkeypatch.setattr(module, "messages", terminal)
    with run_view() as view:
        view.update(event("cam", 2, 8, seconds=1, left=3))
    assert "whole run: " in terminal.file.getvalue()


def test_a_log_gets_lines_with_scores_of_what_ran_and_now_and_then_the_time_left(monkeypatch):
    printed: list[str] = []
    monkeypatch.setattr(module, "say", printed.append)
    lines = RunLines()
    lines.scores(scores("cam", val_miou=48.26))  # done before: the table at the end has it
    lines.update(event("walk", 0, 8))
    lines.update(event("walk", 4, 8, seconds=61, left=61))
    lines.update(event("walk", 5, 8, seconds=62, left=60))
    lines.update(event("walk", 8, 8, seconds=99, left=0))
    lines.scores(scores("walk", val_miou=50.14))
    lines.close()
    assert printed[0] == "walk 0/8 0%"
    assert printed[1] == "whole run: 1m01s, about 1m01s left"
    assert printed[2].startswith("walk 8/8 100% in ")
    assert printed[3:] == ["walk: mIoU val 50.1"]


def test_scoring_is_shown_behind_the_bar_of_its_stage(view):
    view.update(event("cam", 8, 8))
    view.update(event("cam", 0, 20, part="scoring"))
    assert "• cam 8/8 0s scoring 0/20" in drawn(view)
    view.update(event("cam", 20, 20, part="scoring"))
    assert "✓ cam 8/8 0s scoring 20/20" in drawn(view)
