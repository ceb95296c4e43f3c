"""TensorBoard files hold the numbers of metrics.jsonl, each step once."""

import struct
from pathlib import Path

import pytest
from tensorboardX.proto.event_pb2 import Event
from tensorboardX.record_writer import masked_crc32c

from tests.training.test_loop import Slope, break_off, run
from tests.trainings import metrics
from vwl.storage.folder import Folder
from vwl.training.tensorboard import TensorBoard


def events(data: bytes) -> list[Event]:
    """Read TFRecords: length and checksum, data and checksum."""
    found = []
    while data:
        (length,) = struct.unpack_from("<Q", data)
        (length_sum,), (data_sum,) = struct.unpack_from("<I", data, 8), struct.unpack_from("<I", data, 12 + length)
        assert length_sum == masked_crc32c(data[:8])
        assert data_sum == masked_crc32c(data[12 : 12 + length])
        found.append(Event.FromString(data[12 : 12 + length]))
        data = data[16 + length :]
    return found


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    files = sorted((folder / "tensorboard").glob("events.out.tfevents.*"), key=lambda path: path.name.rpartition(".")[2])
    return [
        (event.step, value.tag, pytest.approx(value.simple_value))
        for file in files
        for event in events(file.read_bytes())
        for value in event.summary.value
    ]


def lines(folder: Path) -> list[tuple[int, str, float]]:
    found = metrics(folder)
    return [(line["step"], key.replace("loss_", "loss/"), line[key]) for line in found for key in line if key not in {"step", "num_steps"}]


def without_times(found: list[tuple[int, str, float]]) -> list[tuple[int, str, float]]:
    return [entry for entry in found if entry[1] not in {"images_per_second", "data_wait_share"}]


def test_every_number_of_the_metrics_is_a_scalar_at_its_step(tmp_path):
    run(tmp_path, Slope(num_steps=24))
    assert {tag for _, tag, _ in scalars(tmp_path)} >= {"loss", "loss/height", "learning_rate", "images_per_second", "val_slope"}
    assert without_times(scalars(tmp_path)) == lines(tmp_path)


def test_after_a_crash_no_step_is_there_twice(tmp_path):
    with pytest.raises(ConnectionAbortedError):
        run(tmp_path, Slope(num_steps=40), break_off(27), checkpoint_steps=12)
    assert max(step for step, _, _ in scalars(tmp_path)) <= 24
    run(tmp_path, Slope(num_steps=40), checkpoint_steps=12)
    assert without_times(scalars(tmp_path)) == lines(tmp_path)


def test_the_first_event_names_the_format(tmp_path):
    board = TensorBoard(Folder(tmp_path), 7)
    board.save()
    (file,) = (tmp_path / "tensorboard").iterdir()
    (first,) = events(file.read_bytes())
    assert (first.file_version, first.step) == ("brain.Event:2", 7)
