"""The console: tables and JSON for people and programs, progress for terminals and log files."""

import json
from io import StringIO

import pytest
from rich.console import Console

from vwl.cli import console
from vwl.cli.console import ProgressLines, duration, print_json, print_table, progress_view, say
from vwl.engine.base import Progress


class Clock:
    """Time that a test sets."""

    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_table_shows_each_value_in_its_way(capsys):
    print_table("scores [new]", ["stage", "mIoU", "images", "crf"], [["cam", 49.51234, 10_582, True], ["a long stage", None, 7, False]])
    lines = [line.rstrip() for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "scores [new]",
        "stage          mIoU  images  crf",
        "cam           49.51   10582  yes",
        "a long stage      -       7  no",
    ]


def test_a_table_in_a_pipe_is_not_folded(capsys):
    print_table("t", ["name", "about"], [["x", "word " * 60]])
    assert max(len(line) for line in capsys.readouterr().out.splitlines()) > 280


def test_a_table_as_json_is_a_list_of_objects_with_all_digits(capsys):
    print_table("t", ["stage", "mIoU"], [["cam", 49.51234], ["crf", float("nan")]], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"stage": "cam", "mIoU": 49.51234}, {"stage": "crf", "mIoU": None}]


def test_json_is_whole_lines_however_long(capsys):
    print_json({"[bold]": "x" * 500})
    assert json.loads(capsys.readouterr().out) == {"[bold]": "x" * 500}


def test_messages_go_to_stderr_as_they_are(capsys):
    say("[red] " + "x" * 200)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "[red] " + "x" * 200 + "\n"


class TestProgressLines:
    @pytest.fixture
    def lines(self):
        self.clock = Clock()
        self.written: list[str] = []
        return ProgressLines(self.written.append, every=10, clock=self.clock)

    def at(self, seconds: float, lines: ProgressLines, progress: Progress) -> list[str]:
        self.clock.now = seconds
        before = len(self.written)
        lines.update(progress)
        return self.written[before:]

    def test_a_line_at_the_start_then_every_ten_seconds_then_at_the_end(self, lines):
        assert self.at(0, lines, Progress("classifier", 0, 680)) == ["classifier 0/680 0%"]
        assert self.at(9.9, lines, Progress("classifier", 100, 680, "loss 0.3")) == []
        assert self.at(12, lines, Progress("classifier", 120, 680, "loss 0.123")) == ["classifier 120/680 17% 56s left  loss 0.123"]
        assert self.at(21, lines, Progress("classifier", 300, 680)) == []
        assert self.at(68, lines, Progress("classifier", 680, 680, "loss 0.1")) == ["classifier 680/680 100% in 1m08s  loss 0.1"]
        assert self.at(99, lines, Progress("classifier", 680, 680, "loss 0.1")) == []

    def test_steps_of_an_earlier_run_do_not_count_as_speed(self, lines):
        self.at(0, lines, Progress("walk", 500, 1000))
        assert self.at(10, lines, Progress("walk", 510, 1000)) == ["walk 510/1000 51% 8m10s left"]

    def test_scoring_has_lines_of_its_own(self, lines):
        assert self.at(0, lines, Progress("cam", 8, 8)) == ["cam 8/8 100% in 0s"]
        assert self.at(1, lines, Progress("cam", 0, 20, part="scoring")) == ["cam scoring 0/20 0%"]
        assert self.at(3, lines, Progress("cam", 20, 20, part="scoring")) == ["cam scoring 20/20 100% in 2s"]

    def test_each_task_has_its_own_pace(self, lines):
        assert self.at(0, lines, Progress("cam", 1, 10)) == ["cam 1/10 10%"]
        assert self.at(1, lines, Progress("crf", 1, 10)) == ["crf 1/10 10%"]
        assert self.at(10, lines, Progress("cam", 2, 10)) == ["cam 2/10 20% 1m20s left"]
        assert self.at(10, lines, Progress("crf", 2, 10)) == []

    def test_loss_and_speed_of_a_training_are_shown(self, lines):
        metrics = {"step": 10, "loss": 0.25, "loss_image": 0.2, "images_per_second": 7.614, "data_wait_share": 0.012}
        assert self.at(0, lines, Progress("irnet", 10, 100, metrics=metrics)) == [
            "irnet 10/100 10%  loss 0.2500  7.61 images/s, 1% waiting for data"
        ]
        assert self.at(10, lines, Progress("irnet", 20, 100, metrics={"loss": 0.125})) == ["irnet 20/100 20% 1m20s left  loss 0.1250"]

    def test_a_task_without_steps_is_done_at_once(self, lines):
        assert self.at(0, lines, Progress("crf", 0, 0)) == ["crf 0/0 100% in 0s"]

    def test_an_interrupted_stage_leaves_its_last_progress(self, lines):
        self.at(0, lines, Progress("cam", 1, 10))
        self.at(1, lines, Progress("cam", 4, 10))
        lines.close()
        assert self.written[1:] == ["cam 4/10 40% 2s left"]
        lines.close()
        assert len(self.written) == 2


def test_in_a_pipe_progress_is_lines_on_stderr_also_when_cut_off(capsys):
    def cut_off() -> None:
        with progress_view() as view:
            view.update(Progress("cam", 1, 3))
            view.update(Progress("cam", 2, 3, "half [way]"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cut_off()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert [line.partition("%")[0] for line in captured.err.splitlines()] == ["cam 1/3 33", "cam 2/3 66"]
    assert captured.err.endswith("  half [way]\n")


def test_a_terminal_shows_the_metrics_of_the_running_training_below_the_bars(monkeypatch):
    terminal = Console(file=StringIO(), force_terminal=True, width=160, _environ={})
    monkeypatch.setattr(console, "messages", terminal)
    with progress_view() as view:
        view.update(
            Progress(
                "classifier", 10, 20, metrics={"step": 10, "loss": 0.75, "loss_image": 0.5, "learning_rate": 0.01, "codewords_used": 142}
            )
        )
        while_training = drawn(view)
        view.update(
            Progress(
                "classifier", 20, 20, metrics={"step": 20, "loss": 0.25, "loss_image": 0.125, "learning_rate": 0.001, "codewords_used": 140}
            )
        )
        view.update(Progress("cam", 1, 8))
        afterwards = drawn(view)
    assert "classifier" in while_training[0]
    assert "10/20" in while_training[0]
    assert "loss 0.7500" in while_training[0]
    assert [line.split() for line in while_training[1:]] == [["image", "learning", "rate", "codewords", "used"], ["0.5", "0.01", "142"]]
    assert len(afterwards) == 2
    assert "cam" in afterwards[1]


def drawn(view) -> list[str]:
    paper = Console(file=StringIO(), width=160)
    paper.print(view.drawn())
    return paper.file.getvalue().splitlines()


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (0.4, "0s"), (59.6, "1m00s"), (62, "1m02s"), (3599, "59m59s"), (3 * 3600 + 300, "3h05m"), (2 * 86400 + 3 * 3600, "2d 3h")],
)
def test_durations_are_short(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(("column", "value", "shown"), [("seconds", 61.2, "1m01s"), ("hours", 3.1, "3h06m"), ("hours", 0.01, "36s")])
def test_durations_are_shown_in_hours_and_minutes_and_are_numbers_in_json(column, value, shown, capsys):
    print_table("times", ["best_stage", column], [["cam", value], ["crf", None]])
    printed = capsys.readouterr().out
    assert "best stage" in printed
    assert "time" in printed
    assert shown in printed
    print_table("times", ["best_stage", column], [["cam", value]], as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"best_stage": "cam", column: value}]
