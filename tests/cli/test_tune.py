"""`vwl tune`: optional arguments, one-line errors, and the output of a finished search."""

import csv
import io
import json
import shlex
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import vwl as public
from tests.tuning.searches import space, tiny_index, tiny_recipe
from vwl.api.tune import _update_trials
from vwl.cli.main import app
from vwl.cli.trials import LiveTrials, TrialLines
from vwl.config.files import load_recipe
from vwl.data.index import read_index
from vwl.storage.folder import Folder
from vwl.tuning.search import Search
from vwl.tuning.space import builtin_spaces
from vwl.tuning.trials import update_record


def vwl(*words: object) -> Result:
    return CliRunner().invoke(app, [str(word) for word in words])


def refused(*words: object) -> str:
    result = vwl("tune", *words)
    assert result.exit_code == 1, result.output
    assert result.stderr.count("\n") == 1
    return result.stderr


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> str:
    return tiny_index(tmp_path_factory.mktemp("tune"))


def test_every_built_in_space_is_listed():
    found = json.loads(vwl("tune", "spaces", "--json").stdout)
    assert [row["space"] for row in found] == builtin_spaces()


@pytest.mark.parametrize("words", ["tune run table9", "tune table9"])
def test_the_command_run_is_optional(words, index_path, tmp_path):
    line = refused(*shlex.split(words)[1:], "--data", index_path, "--run", tmp_path)
    assert line.startswith("error: no space named 'table9'; did you mean 'table")


def test_a_resumed_search_needs_no_space(tmp_path):
    assert f"{tmp_path} holds no search" in refused("--resume", tmp_path)


def test_a_missing_argument_is_named(index_path, tmp_path):
    assert "give --data" in refused("table5a", "--run", tmp_path)
    assert "give a SPACE" in refused("run", "--run", tmp_path)
    assert "give either a SPACE with --run FOLDER" in refused("table5a")


@pytest.mark.parametrize(
    ("option", "value", "choices"),
    [
        ("--concurrent", "some", "auto"),
        ("--precision", "half", "'float32', 'bf16'"),
        ("--threshold", "1.5", "auto-by-class"),
        ("-o", "seed", "KEY=VALUE"),
    ],
)
def test_a_wrong_value_of_an_option_exits_with_2_and_is_not_stored(option, value, choices, index_path, tmp_path):
    result = vwl("tune", "table5a", "--recipe", "demo", "--data", index_path, "--run", tmp_path, option, value)
    assert result.exit_code == 2
    shown = " ".join(result.stderr.replace("│", " ").split())
    assert all(part in shown for part in (option, value, choices))
    assert not (tmp_path / "resources.json").exists()


def test_a_batch_that_does_not_divide_among_the_workers_is_an_error_before_ray_starts(index_path, tmp_path):
    line = refused("table5a", "--recipe", "demo", "--data", index_path, "--run", tmp_path, "--workers-per-trial", 3)
    assert "batch of 8 does not divide among 3 workers" in line
    assert not (tmp_path / "searches").exists()


def test_a_resumed_search_cannot_change_its_recipe_or_seeds(done_search):
    root, _ = done_search
    for options in (("--seeds", 3), ("--recipe", "demo"), ("-o", "seed=1"), ("--threshold", "0.3")):
        line = refused("--resume", root, *options)
        assert "--resume cannot change --" in line
        assert f"give the SPACE with all options and --run {root} instead" in line


def test_wrong_options_are_not_stored(index_path, tmp_path):
    given = ("--recipe", "demo", "--data", index_path, "--run", tmp_path)
    assert "batch of 8 does not divide" in refused("table5a", *given, "--workers-per-trial", 3)
    assert not (tmp_path / "resources.json").exists()


def test_each_search_of_a_folder_resumes_with_its_own_options_and_failed_samples_exit_with_1(index_path, tmp_path, monkeypatch):
    root = Folder(tmp_path / "search")
    drawn = space(
        name="drawn", parameter=None, values=[], strategy="search", search={"classifier.codebook.num_codewords": {"choices": [4]}}
    )
    for found in (space(), drawn):
        Search.plan(found, tiny_recipe(), read_index(index_path), index_path, num_seeds=1).write(root)
    root.write_json("resources.json", {"drawn": {"precision": "bf16", "workers": 2}, "words": {"concurrent": 1}})
    seen = {}

    def run_search(search, root, resources, *_):
        seen[search.space.name] = (
            resources.layout.precision,
            resources.layout.workers,
            resources.layout.gpus_per_worker,
            resources.concurrent,
        )
        if search.space.name == "drawn":
            search = replace(search, samples=({"classifier.codebook.num_codewords": 4},))
            search.write(root)
            update_record(search.entries()[0].trial, root, state="failed", reason="no weights")

    monkeypatch.setattr("vwl.tuning.runner.run_search", run_search)
    assert vwl("tune", "--resume", root, "--gpus-per-worker", 1, "--space", "drawn").exit_code == 2
    result = vwl("tune", "drawn", "--resume", root, "--gpus-per-worker", 1)
    assert result.exit_code == 1, result.output
    assert "failed: no weights" in result.stdout
    assert vwl("tune", "words", "--resume", root).exit_code == 0
    assert seen == {"drawn": ("bf16", 2, 1, None), "words": ("float32", 1, 0, 1)}


def test_a_search_continues_when_the_table_of_trials_cannot_be_written(done_search, tmp_path, caplog):
    root, _ = done_search
    shutil.copytree(root.path, tmp_path / "search")
    (tmp_path / "search" / "trials.parquet").unlink(missing_ok=True)  # other tests of the session may have written it
    (tmp_path / "search" / "trials.parquet").mkdir()
    _update_trials(Folder(tmp_path / "search"))
    assert "trials.parquet is not up to date: cannot write" in caplog.text


def test_a_finished_search_is_shown_and_resumed_after_its_data_set_has_moved(done_search, tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    root, search = done_search
    folder = tmp_path / "elsewhere"
    shutil.copytree(root.path, folder)
    stored = Folder(folder / "searches")
    stored.write_json("words.json", stored.read_json("words.json") | {"index": "/gone/index.parquet"})
    shown = vwl("tune", "table", "--run", folder)
    assert shown.exit_code == 0, shown.output
    assert "INCOMPLETE" not in shown.stdout
    assert "there is no index table at /gone/index.parquet" in refused("--resume", folder)
    result = vwl("tune", "--resume", folder, "--data", search.index_path)
    assert result.exit_code == 0, result.output
    assert "words: 4 trials, 4 of them finished\n" in result.stderr
    assert stored.read_json("words.json")["index"] == search.index_path


def test_a_finished_search_is_shown_again_without_ray(done_search, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    root, _ = done_search
    result = vwl("tune", "--resume", root)
    assert result.exit_code == 0, result.output
    assert "words: 4 trials, 4 of them finished\n" in result.stderr
    assert result.stdout.startswith("words: Number of words · recipe demo\n")


def test_a_table_is_printed_in_each_format(done_search):
    root, _ = done_search
    shown = {
        form: vwl("tune", "table", "--run", root, "--format", form).stdout for form in ("terminal", "markdown", "latex", "csv", "json")
    }
    assert [line.split()[0] for line in shown["terminal"].splitlines()[1:4]] == ["k", "4", "8"]
    assert shown["markdown"].startswith("### words: Number of words\n")
    assert r"\begin{tabular}" in shown["latex"]
    assert len(list(csv.DictReader(io.StringIO(shown["csv"])))) == 4
    assert json.loads(shown["json"])["is_complete"]
    assert vwl("tune", "table", "--run", root, "--format", "yaml").exit_code == 2
    assert "no search of the space table4; it holds words" in refused("table", "--run", root, "--space", "table4")


def test_a_table_is_written_with_plots_and_trials(done_search, tmp_path):
    root, _ = done_search
    assert vwl("tune", "table", "--run", root, "--out", tmp_path / "out").exit_code == 0
    suffixes = ("csv", "json", "md", "png", "svg", "tex")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["trials.parquet", *(f"words.{suffix}" for suffix in suffixes)]


def test_tables_and_the_best_trial_are_printed_as_json(done_search, tmp_path):
    root, search = done_search
    (found,) = json.loads(vwl("tune", "table", "--run", root, "--json").stdout)
    assert [line["setting"] for line in found["lines"]] == ["4", "8"]
    (best,) = json.loads(vwl("tune", "best", "--run", root, "--out", tmp_path / "best.yaml", "--json").stdout)
    assert best["setting"] in {"4", "8"}
    assert best["val mIoU"] in found["lines"][["4", "8"].index(best["setting"])]["val"]["scores"].values()
    assert search.space.name == best["space"]


def test_the_best_recipe_can_be_used(done_search, tmp_path):
    root, _ = done_search
    result = vwl("tune", "best", "--run", root, "--out", tmp_path / "best.yaml")
    assert result.exit_code == 0, result.output
    recipe = load_recipe(str(tmp_path / "best.yaml"))
    assert recipe.classifier.codebook.num_codewords in {4, 8}
    assert f"{Path(tmp_path)}/best.yaml" in result.stdout
    assert vwl("tune", "best", "--run", root, "--out", f"file://{tmp_path}/there/best.yaml").exit_code == 0
    assert load_recipe(str(tmp_path / "there" / "best.yaml")) == recipe


def test_a_search_by_call_shows_the_trials_tables_and_best_trial_of_the_commands(done_search, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "ray", None)
    root, search = done_search
    seen: list[public.TrialProgress] = []
    found = public.resume_tune(root.uri, on_trial=seen.append)
    assert {(trial.state, trial.text[:5]) for trial in seen} == {("done", "mIoU ")}
    assert len(seen) == len(found.rows) == 4
    assert found.failed == {}
    (shown,) = json.loads(vwl("tune", "table", "--run", root, "--json").stdout)
    (table,) = found.tables
    assert [json.loads(json.dumps(asdict(line.val)))["scores"] for line in table.lines] == [
        line["val"]["scores"] for line in shown["lines"]
    ]
    (best,) = json.loads(vwl("tune", "best", "--run", root, "--json").stdout)
    assert (found.best().trial, found.best().score) == (best["trial"], best["val mIoU"])
    assert {row["trial"] for row in public.open_tune(root.uri, search.space.name).rows} == {trial.trial for trial in seen}


def test_a_call_refuses_what_the_command_refuses(done_search, index_path, tmp_path):
    root, _ = done_search
    with pytest.raises(public.VwlError, match="holds no search"):
        public.open_tune(tmp_path)
    with pytest.raises(public.VwlError, match=r"name the folder of the search"):
        public.tune("table5a", index_path, "demo")
    with pytest.raises(public.VwlError, match="batch of 8 does not divide among 3 workers"):
        public.tune("table5a", index_path, "demo", tmp_path / "s", resources=public.TrialResources(workers=3))
    index = public.read_index(index_path)
    with pytest.raises(public.VwlError, match="holds searches on another data set"):
        public.tune("table5a", replace(index, rows=index.rows[:-1]), "demo", root.uri)


def test_lines_are_printed_when_a_stage_changes_and_at_most_every_30_seconds():
    lines, now = [], [0.0]
    view = TrialLines(lines.append, every=30, clock=lambda: now[0])
    view.show_trial("a", "waiting")
    view.show_trial("a", "classifier", "loss 2.0", 1, 10)
    now[0] = 10
    view.show_trial("a", "classifier", "loss 1.0", 2, 10)
    now[0] = 31
    view.show_trial("a", "classifier", "loss 0.5", 3, 10)
    view.show_trial("a", "cam", "", 0, 4)
    view.show_trial("a", "done", "mIoU 40.00")
    view.show_trial("a", "done", "mIoU 40.00")
    assert lines == ["a: classifier  1/10  loss 2.0", "a: classifier  3/10  loss 0.5", "a: cam  0/4", "a: done  mIoU 40.00"]


def test_the_live_table_shows_running_trials_first_and_no_more_than_fit():
    view = LiveTrials(height=3)
    for number in range(5):
        view.show_trial(f"w{number}", "waiting")
    view.show_trial("d", "done", "mIoU 40.00")
    view.show_trial("r", "classifier", "loss 2.0", 1, 10)
    table = view.render()
    assert table.title == "7 trials: 1 running, 1 done, 5 waiting"
    assert [str(cell) for cell in table.columns[0].cells] == ["r", "d", "w0"]
    assert [str(cell) for cell in table.columns[2].cells] == ["1/10", "", ""]
