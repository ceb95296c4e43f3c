"""`vwl.run` without Ray: it gives the files of the commands, tells how far it is, stops on request, and goes on where it stopped."""

import json
import signal
import threading
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import vwl
from tests.conftest import TINY
from tests.drills import results
from tests.helpers import tiny_scenes
from tests.stages import STAGES
from vwl.cli.main import app

TRAININGS = [name for name, spec in STAGES.items() if spec.kind == "train"]


def command(*words: object) -> None:
    result = CliRunner().invoke(app, [str(word) for word in words])
    assert result.exit_code == 0, result.output


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    return tiny_scenes(tmp_path_factory.mktemp("api") / "scenes", 8, 4)


@pytest.fixture(scope="module")
def called(index, tmp_path_factory) -> tuple[vwl.RunResult, list, list]:
    """A run by one call with an index object, and the events that it gave."""
    progress, metrics = [], []
    out = tmp_path_factory.mktemp("called") / "run"
    calls = {"on_progress": progress.append, "on_metrics": metrics.append, "tracker": "tensorboard"}
    return vwl.run(index, "demo", out, overrides=TINY, backend="local", **calls), progress, metrics


def classifier(index, out, **arguments) -> vwl.RunResult:
    return vwl.run(index, "demo", out, overrides=TINY, backend="local", stages=["classifier"], **arguments)


def weights(folder: object) -> dict[str, torch.Tensor]:
    return torch.load(Path(str(folder), "classifier/weights.pt"), weights_only=True)["model"]


def assert_equal_weights(one: object, other: object) -> None:
    ours, theirs = weights(one), weights(other)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_the_commands_and_the_call_give_the_same_files(called, index, tmp_path):
    vwl.write_index(index, tmp_path / "index.parquet")
    first = ["--data", tmp_path / "index.parquet", "--recipe", "demo", *(word for override in TINY for word in ("-o", override))]
    for stage, spec in STAGES.items():
        command("train" if spec.kind == "train" else "infer", stage, "--run", tmp_path / "run", "--backend", "local", *first)
        first = []
    command("run", "--run", tmp_path / "run", "--backend", "local")  # writes scores and pictures
    ours, theirs = results(Path(called[0].folder)), results(tmp_path / "run")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []
    assert_equal_weights(called[0].folder, tmp_path / "run")
    for name in ("scores.json", "recipe.yaml"):
        assert_same_but_seconds(Path(called[0].folder, name), tmp_path / "run" / name)


def assert_same_but_seconds(one: Path, other: Path) -> None:
    if one.suffix == ".json":
        ours, theirs = ([{**line, "seconds": 0, "scoring_seconds": 0} for line in json.loads(path.read_text())] for path in (one, other))
        assert ours == theirs != []
    else:
        assert one.read_bytes() == other.read_bytes()


def test_progress_counts_every_stage_to_its_end_and_estimates_what_is_left(called):
    _, progress, _ = called
    last = {event.stage: event for event in progress}
    assert list(last) == list(STAGES)
    assert all(event.done == event.total > 0 for event in last.values())
    assert all(event.stages == tuple(STAGES) for event in progress)
    assert [event.seconds for event in progress] == sorted(event.seconds for event in progress)
    assert progress[0].seconds_left is None
    assert last["classifier"].seconds_left > 0
    assert last["segment"].seconds_left == 0
    assert str(last["classifier"]).startswith("classifier 2/2, loss ")


def test_metrics_are_the_lines_of_every_training_and_the_scores_of_every_scored_stage(called):
    result, _, metrics = called
    for stage in TRAININGS:
        told = [event for event in metrics if event.stage == stage]
        lines = [json.loads(line) for line in Path(result.folder, stage, "metrics.jsonl").read_text().splitlines()]
        assert [event.step for event in told] == [line["step"] for line in lines]
        assert [{**event.values, "step": event.step} for event in told] == [
            {name: value for name, value in line.items() if name != "num_steps"} for line in lines
        ]
        assert told == result.metrics(stage)
        assert told
    scores = {event.stage: event.values for event in metrics if event.step is None}
    assert list(scores) == ["cam", "crf", "walk", "segment"]
    for line in result.scores:
        assert scores[line.stage][f"{line.split}_miou"] == line.miou


def test_the_index_object_is_in_the_run_folder_and_the_run_goes_on_without_data(called, index):
    result, _, _ = called
    stored = vwl.read_index(Path(result.folder, "index.parquet"))
    assert (stored.rows, stored.root.uri) == (result.index.rows, result.index.root.uri) == (index.rows, index.root.uri)
    again = vwl.run(out=result.folder, backend="local")
    assert again.scores == result.scores
    assert again.report == result.report == f"{result.folder}/report.html"


@pytest.mark.parametrize("how", ["stop object", "callback", "thread"])
def test_a_stopped_training_is_saved_and_the_same_call_ends_with_the_same_weights(how, called, index, tmp_path):
    stop, told = threading.Event(), []

    def at_step_one(progress: vwl.RunProgress) -> None:
        if progress.done == 1 and how == "callback":
            raise KeyboardInterrupt
        if progress.done == 1:
            stop.set()

    def start() -> None:
        with pytest.raises(vwl.Interrupted):
            classifier(index, tmp_path / "run", on_progress=at_step_one, on_metrics=told.append, stop=stop)

    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    if how == "thread":  # where no signal handler can be set
        thread = threading.Thread(target=start)
        thread.start()
        thread.join()
    else:
        start()
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    stopped = vwl.open_run(tmp_path / "run")
    assert (stopped.status[0].state, stopped.status[1].state) == ("interrupted", "not started")
    assert [path.name for path in (tmp_path / "run/classifier/checkpoints").iterdir()] == ["step-00000001.pt"]
    result = classifier(index, tmp_path / "run", on_metrics=told.append)
    assert result.status[0].state == "done"
    assert told == result.metrics("classifier")  # each line once
    assert_equal_weights(result.folder, called[0].folder)


def test_a_stop_that_is_asked_for_before_the_start_leaves_a_run_that_starts(index, tmp_path):
    stop = threading.Event()
    stop.set()
    with pytest.raises(vwl.Interrupted):
        classifier(index, tmp_path / "run", stop=stop)
    assert classifier(index, tmp_path / "run").status[0].state == "done"


def test_another_exception_of_a_callback_is_raised_as_it_is(index, tmp_path):
    def fail(progress: vwl.RunProgress) -> None:
        raise RuntimeError("no disk for my plot")

    with pytest.raises(RuntimeError, match="no disk for my plot"):
        classifier(index, tmp_path / "run", on_progress=fail)


def test_another_index_object_is_refused_and_the_stored_one_stays(called, index, tmp_path):
    result, _, _ = called
    with pytest.raises(vwl.VwlError, match="is a run on another data set"):
        vwl.run(tiny_scenes(tmp_path / "scenes", 3, 2), result.recipe, result.folder, backend="local")
    assert vwl.open_run(result.folder).index.fingerprint() == index.fingerprint()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"out": None}, r"name the run folder: vwl\.run\(data, recipe, out\)"),
        ({"stages": ["cams"]}, r"there is no stage 'cams'; did you mean 'cam'\?"),
        ({"stages": []}, "stages is empty"),
        ({"backend": "slurm"}, "the backend 'slurm' is neither ray nor local"),
        ({"workers": vwl.Layout(workers=4, min_workers=2)}, "elastic workers .* need the backend ray"),
        ({"workers": 0}, r"workers=0 is no positive number"),
        ({"gpus_per_worker": 2}, "gpus_per_worker=2 is neither 0 nor 1"),
        ({"overrides": {"classifier.epoch": 1}}, r"did you mean 'epochs'"),
        ({"overrides": {"classifier.epochs": object()}}, r"override classifier\.epochs: .* is no value of a recipe"),
        ({"overrides": "classifier.epochs=1"}, r"write \['classifier\.epochs=1'\]"),
        ({"overrides": ["classifier.epochs"]}, r"'classifier\.epochs' is not of the form section\.key=value"),
        ({"recipe": "dmeo"}, "did you mean 'demo'"),
        ({"tracker": "wandbb"}, "there is no tracker 'wandbb'; did you mean 'wandb'"),
    ],
)
def test_a_wrong_argument_is_one_line_and_leaves_no_folder(arguments, message, index, tmp_path):
    wanted = {"data": index, "recipe": "demo", "out": tmp_path / "run", "backend": "local"} | arguments
    with pytest.raises(vwl.VwlError, match=message) as refused:
        vwl.run(**wanted)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_images_is_no_index(tmp_path):
    with pytest.raises(vwl.VwlError, match=r"is a folder; make an index of it with vwl\.prepare_folder\('.*', LABELS\.csv\)"):
        vwl.run(tmp_path, "demo", tmp_path / "run", backend="local")
