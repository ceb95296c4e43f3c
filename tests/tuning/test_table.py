"""The table of a search: its cells and notes, and each format as stored in `snapshots`.

`python -m tests.tuning.test_table` updates the snapshots; read the difference before you commit it.
"""

import csv
import io
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from rich.console import Console

from tests.tuning.searches import rows_of, search_of, space
from vwl.cli import console, tune
from vwl.config.recipe import Evaluation, Recipe
from vwl.tuning.formats import FORMATS, header, markdown, texts
from vwl.tuning.table import build_table

SNAPSHOTS = Path(__file__).parent / "snapshots"
PAPER = {"train": [50.0, 57.3, 55.6, None], "val": [54.5, 56.9, 55.1, 54.9]}
SPACE = {"values": [8, 16, 32, 64], "paper": PAPER, "compare_with": 16, "remark": "Costs 100% & more_or_less."}
SCORES = {
    ("8", 0): (40.0, 38.0),
    ("8", 1): (42.0, 40.0),
    ("16", 0): (43.0, 42.0),
    ("16", 1): (45.0, 43.0),
    ("32", 0): (50.0, 41.0),
    ("32", 1): (53.0, 42.0),
    ("64", 0): (44.0, 44.0),
    ("64", 1): "RuntimeError: out of memory | killed",
}


def example(scores=SCORES, seeds=2, **fields):
    search = search_of(space(**{**SPACE, **fields}), seeds)
    return build_table(search, rows_of(search, scores))


def by_label(table):
    return {line.label: line for line in table.lines}


def test_a_cell_has_mean_and_deviation_over_seeds_and_the_papers_miou():
    cell = by_label(example())["8"].train
    assert (cell.mean, cell.sd, cell.paper) == (41.0, pytest.approx(2**0.5), 50.0)
    assert cell.best_with_ground_truth == 42.0
    assert cell.scores == {0: 40.0, 1: 42.0}


def test_differences_are_to_the_base_setting():
    lines = by_label(example())
    assert lines["16"].is_base
    assert lines["16"].train.difference is None
    assert lines["8"].train.difference.value == -3.0
    assert lines["32"].train.difference.value == 7.5
    assert lines["64"].train.difference.value == 0.0  # 44 with one seed, against the mean 44 of two


def test_the_noise_is_estimated_from_the_complete_rows():
    # train, rows 8, 16 and 32: two residuals each of size 1/6, 1/6 and 1/3, squares sum to 1/3, over 2 degrees of freedom
    lines = by_label(example())
    half = 4.303 * (2 * (1 / 6) / 2) ** 0.5
    assert lines["8"].train.difference.half_width == pytest.approx(half, rel=1e-3)
    assert lines["8"].train.difference.is_significant
    assert lines["64"].train.difference.half_width is None


def test_the_best_mean_of_a_column_is_marked_and_only_it():
    lines = example().lines
    assert [line.label for line in lines if line.train.is_best] == ["32"]
    assert [line.label for line in lines if line.val.is_best] == ["64"]


def test_a_failed_and_an_unfinished_trial_are_in_the_table_with_their_reasons():
    table = example({key: value for key, value in SCORES.items() if key != ("8", 1)})
    lines = by_label(table)
    assert not table.is_complete
    assert lines["8"].missing == {1: "not finished"}
    assert lines["64"].missing == {1: "failed: RuntimeError: out of memory | killed"}
    assert "INCOMPLETE: 2 of 8 trials have no score." in table.notes
    assert "64, seed 1: failed: RuntimeError: out of memory | killed" in table.notes


def test_a_complete_table_has_no_note_on_missing_trials():
    table = example({key: value for key, value in SCORES.items() if key[0] != "64"}, values=[8, 16, 32], paper={})
    assert table.is_complete
    assert not any("INCOMPLETE" in note for note in table.notes)


def test_a_table_without_any_result_can_be_shown():
    table = example({})
    assert texts(table)[0] == ["8", "-", "50.0", "-", "-", "-", "-", "-", "54.5", "-", "-", "-", "-", "0 of 2"]
    assert all(form.write(table) for form in FORMATS.values())


def test_a_small_loss_is_not_minus_zero():
    table = example({("8", 0): (42.96, 1.0), ("16", 0): (43.0, 1.0)}, seeds=1)
    assert texts(table)[0][3] == "+0.0"


def test_the_background_is_named_among_the_scored_classes():
    recipe = Recipe(name="tiny", evaluation=Evaluation(classes=("cat", "cow")))
    search = search_of(space(), recipe=recipe)
    assert "of the stage cam over background, cat, cow:" in build_table(search, rows_of(search, {})).notes[0]


def test_every_line_has_one_cell_per_column():
    table = example()
    assert {len(cells) for cells in texts(table)} == {len(header(table))}


def test_a_joint_search_has_its_best_sample_first():
    fields = {"parameter": None, "values": [], "paper": {}, "compare_with": None, "remark": "", "strategy": "search"}
    found = space(**fields, search={"classifier.codebook.num_codewords": {"choices": [4, 8, 16]}}, early_stopping={"grace_epochs": 1})
    search = replace(search_of(found), samples=tuple({"classifier.codebook.num_codewords": k} for k in (4, 8, 16)))
    scores = {("sample 1", 0): (1.0, 20.0), ("sample 1", 1): (3.0, 22.0), ("sample 3", 0): (2.0, 30.0), ("sample 3", 1): (4.0, 33.0)}
    rows = rows_of(search, scores)
    for row in rows:
        if row["state"] == "unfinished":
            row |= {"state": "stopped", "reason": "stopped early after epoch 1"}
    table = build_table(search, rows)
    assert [(line.train.mean, line.val.mean) for line in table.lines] == [(3.0, 31.5), (2.0, 21.0), (None, None)]
    assert [line.label for line in table.lines] == ["sample 3: num_codewords 16", "sample 1: num_codewords 4", "sample 2: num_codewords 8"]
    assert table.notes[-1] == "sample 2: num_codewords 8, seed 1: stopped early after epoch 1"
    assert table.is_complete
    assert not any("INCOMPLETE" in note for note in table.notes)


def test_a_trial_that_another_search_has_stopped_is_unfinished_in_a_table():
    search = search_of(space())
    rows = rows_of(search, {("8", 0): (1.0, 20.0), ("8", 1): (1.0, 20.0), ("16", 0): (1.0, 20.0)})
    rows[-1] |= {"state": "stopped", "reason": "stopped early after epoch 1"}
    assert "INCOMPLETE: 1 of 4 trials have no score." in build_table(search, rows).notes


def test_the_csv_has_one_line_per_setting_and_split_with_all_digits():
    rows = list(csv.DictReader(io.StringIO(FORMATS["csv"].write(example()))))
    assert [(row["setting"], row["split"]) for row in rows][:3] == [("8", "train"), ("8", "val"), ("16", "train")]
    assert float(rows[0]["sd"]) == pytest.approx(2**0.5)
    assert rows[0]["scores"] == "0:40.0 1:42.0"
    assert rows[-1]["missing"] == "1: failed: RuntimeError: out of memory | killed"


def test_the_json_holds_each_seeds_score():
    found = json.loads(FORMATS["json"].write(example()))
    assert found["lines"][0]["train"]["scores"] == {"0": 40.0, "1": 42.0}
    assert found["lines"][0]["train"]["difference"]["is_significant"] is True
    assert found["is_complete"] is False


def test_a_bar_in_a_label_does_not_break_the_markdown():
    table = example({}, parameter=None, values=[], paper={}, compare_with=None, rows=[{"label": "a|b"}, {"label": "c"}])
    lines = [line for line in markdown(table).splitlines() if line.startswith("|")]
    assert {line.replace("\\|", "").count("|") for line in lines} == {len(header(table)) + 1}


def terminal(table) -> str:
    """Return what the command prints into a pipe."""
    printed = io.StringIO()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(console, "tables", Console(file=printed, highlight=False))
        patch.setattr(console, "Console", partial(Console, file=printed))
        tune.show(table)
    return "\n".join(line.rstrip() for line in printed.getvalue().splitlines()) + "\n"


def snapshots() -> dict[str, str]:
    table = example()
    return {f"table.{form.suffix}": form.write(table) for form in FORMATS.values()} | {"table.txt": terminal(table)}


@pytest.mark.parametrize("name", ["table.md", "table.tex", "table.csv", "table.json", "table.txt"])
def test_a_format_equals_its_snapshot(name):
    assert snapshots()[name] == (SNAPSHOTS / name).read_text(encoding="utf-8")


if __name__ == "__main__":
    for name, text in snapshots().items():
        (SNAPSHOTS / name).write_text(text, encoding="utf-8")
