"""Trackers get each line of metrics.jsonl and each score once, in one run of theirs, and their own libraries read it back."""

import json
import sys
from pathlib import Path

import pytest

import vwl
from tests.helpers import copy_run
from tests.stages import STAGES
from vwl.api import trackers
from vwl.api.events import Metrics
from vwl.api.history import score_metrics
from vwl.api.trackers import open_tracker
from vwl.errors import Interrupted
from vwl.workflow.stages import SCORED

TRAININGS = [name for name, spec in STAGES.items() if spec.kind == "train"]


class Recorder:
    """A tracker's run that keeps what it gets; fails while `failing`."""

    starts: list[str | None]
    failing = False

    def __init__(self, run, run_id):
        type(self).starts.append(run_id)
        self.run_id = run_id or "run-1"

    def log(self, metrics):
        if self.failing:
            raise OSError("connection\nrefused")
        self.logged.append(metrics)

    def end(self, status):
        self.ended.append(status)


@pytest.fixture
def recorder(monkeypatch):
    kind = type("OfTest", (Recorder,), {"starts": [], "logged": [], "ended": [], "failing": False})
    monkeypatch.setitem(trackers._BACKENDS, "tensorboard", kind)
    return kind


@pytest.fixture
def copied(tiny_run, tmp_path):
    return copy_run(tiny_run, tmp_path)


def expected(run) -> list[Metrics]:
    """What a finished run has to tell, in the order of the stages."""
    result, found = vwl.RunResult(run), []
    for stage in STAGES:
        found += result.metrics(stage) if stage in TRAININGS else [score_metrics(run, stage)] if stage in SCORED else []
    return found


def test_what_an_earlier_start_has_left_is_sent_once(recorder, copied):
    for _ in range(2):
        with open_tracker("tensorboard", copied) as send:
            for metrics in expected(copied):
                send(metrics)
    assert recorder.logged == expected(copied)
    assert recorder.starts == [None, "run-1"]
    assert recorder.ended == ["finished", "finished"]


def test_new_scores_are_sent_and_changed_settings_start_a_new_run(recorder, copied):
    with open_tracker("tensorboard", copied) as send:
        recorder.logged.clear()
        send(Metrics("walk", None, {"val_miou": 12.5}))
        send(Metrics("walk", None, {"val_miou": 12.5}))
    assert recorder.logged == [Metrics("walk", None, {"val_miou": 12.5})]
    copied.recipe = copied.recipe.model_copy(update={"seed": 7})
    with open_tracker("tensorboard", copied):
        pass
    assert recorder.starts == [None, None]


def test_a_tracker_that_fails_is_one_warning_and_gets_the_rest_at_the_next_start(recorder, copied, caplog):
    recorder.failing = True
    with open_tracker("tensorboard", copied) as send:
        send(Metrics("walk", None, {"val_miou": 1.0}))
    assert caplog.messages == ["the tracker tensorboard has failed: connection refused; the same command sends what is missing later"]
    recorder.failing = False
    with open_tracker("tensorboard", copied):
        pass
    assert recorder.logged == expected(copied)


@pytest.mark.parametrize(
    ("error", "status"), [(Interrupted("stopped"), "stopped"), (KeyboardInterrupt(), "stopped"), (vwl.VwlError("no"), "failed")]
)
def test_how_a_run_ended_is_told(recorder, copied, error, status):
    with pytest.raises(type(error)), open_tracker("tensorboard", copied):
        raise error
    assert recorder.ended == [status]


@pytest.mark.parametrize("name", ["mlflow", "wandb"])
def test_a_tracker_that_is_not_installed_is_one_line_with_its_extra(name, copied, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    before = sorted(Path(copied.folder.path).iterdir())
    with pytest.raises(vwl.VwlError, match=rf"the tracker {name} is not installed; install it with: pip install 'vwl\[{name}\]'"):
        vwl.run(out=copied.folder.uri, backend="local", tracker=name)
    assert sorted(Path(copied.folder.path).iterdir()) == before


def test_tensorboard_gets_the_scores_beside_what_the_trainings_have_written(copied):
    from tensorboardX.proto.event_pb2 import Event

    before = {stage: sorted(Path(copied.folder.path, stage, "tensorboard").iterdir()) for stage in TRAININGS}
    with open_tracker("tensorboard", copied):
        pass
    assert {stage: sorted(Path(copied.folder.path, stage, "tensorboard").iterdir()) for stage in TRAININGS} == before
    (path,) = Path(copied.folder.path, "walk/tensorboard").iterdir()
    data, found = path.read_bytes(), {}
    while data:
        length = int.from_bytes(data[:8], "little")
        event = Event.FromString(data[12 : 12 + length])
        found |= {value.tag: value.simple_value for value in event.summary.value}
        data = data[16 + length :]
    assert found == pytest.approx(dict(score_metrics(copied, "walk").values))


def test_mlflow_reads_back_metrics_scores_and_settings(copied, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    pytest.importorskip("sqlalchemy")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    for _ in range(2):  # the second start finds everything sent
        vwl.run(out=copied.folder.uri, backend="local", tracker="mlflow")
    client = mlflow.MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    experiment = client.get_experiment_by_name("vwl")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "run"
    assert run.data.params["classifier.codebook.num_codewords"] == "8"
    for stage in TRAININGS:
        lines = [json.loads(line) for line in Path(copied.folder.path, stage, "metrics.jsonl").read_text().splitlines()]
        for name in {name for line in lines for name in line} - {"step", "num_steps"}:
            values = [(metric.step, metric.value) for metric in client.get_metric_history(run.info.run_id, f"{stage}/{name}")]
            assert sorted(values) == sorted((line["step"], line[name]) for line in lines if name in line)
    for score in vwl.evaluate(copied.folder.uri):
        (metric,) = client.get_metric_history(run.info.run_id, f"{score.stage}/{score.split}_miou")
        assert metric.value == score.miou


def wandb_records(data: bytes):
    """The records of a .wandb file, decoded by wandb's own message class; it frames them as LevelDB's logs do, in blocks of 32 KiB."""
    from wandb.proto.wandb_internal_pb2 import Record

    position, parts = 7, b""  # after the file's header
    while position + 7 <= len(data):
        if (left := 32768 - position % 32768) < 7:
            position += left
            continue
        length, kind = int.from_bytes(data[position + 4 : position + 6], "little"), data[position + 6]
        parts += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(parts)
            parts = b""


def test_wandb_reads_back_an_offline_run(copied, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    vwl.run(out=copied.folder.uri, backend="local", tracker="wandb")
    (path,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    history, config = [], {}
    for record in wandb_records(path.read_bytes()):
        if record.HasField("history"):
            items = {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            history.append({name: value for name, value in items.items() if not name.startswith("_")})
        if record.HasField("run"):
            config |= {item.key: json.loads(item.value_json) for item in record.run.config.update}
    assert config["classifier.codebook.num_codewords"] == 8
    for stage in TRAININGS:
        lines = map(json.loads, Path(copied.folder.path, stage, "metrics.jsonl").read_text().splitlines())
        wanted = [{f"{stage}/{name}": value for name, value in line.items() if name != "num_steps"} for line in lines]
        assert [line for line in history if f"{stage}/step" in line] == wanted != []
    for score in vwl.evaluate(copied.folder.uri):
        (value,) = (line[name] for line in history if (name := f"{score.stage}/{score.split}_miou") in line)
        assert value == score.miou
