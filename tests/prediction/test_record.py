"""The record of a folder of predictions: what is kept, and what is made again."""

import json

import pytest

from vwl.prediction.record import NAME, PredictionRecord
from vwl.prediction.results import PredictionLine
from vwl.storage.checked import digest
from vwl.storage.folder import Folder

CONTENT = b"a mask"
LINE = PredictionLine(
    **{"image": "a.jpg", "name": "a", "status": "ok", "mask": "a_mask.png", "settings": "s", "source": (7, 8)},
    files={"a_mask.png": (len(CONTENT), digest(CONTENT))},
)
WANTED = LINE.model_copy(update={"status": "", "mask": None, "files": {}})


@pytest.fixture
def folder(tmp_path):
    """A folder with one result."""
    (tmp_path / "a_mask.png").write_bytes(CONTENT)
    PredictionRecord(Folder(tmp_path)).add(LINE)
    return tmp_path


def test_an_intact_result_is_kept(folder):
    assert PredictionRecord(Folder(folder)).done(WANTED, ["a_mask.png"]) == LINE


@pytest.mark.parametrize(
    "change",
    [{"settings": "t"}, {"source": (7, 9)}, {"source": (6, 8)}, {"labels": ("dog",)}, {"frame": 0}, {"name": "b"}],
    ids=lambda change: next(iter(change)),
)
def test_a_result_of_something_else_is_made_again(folder, change):
    assert PredictionRecord(Folder(folder)).done(WANTED.model_copy(update=change), ["a_mask.png"]) is None


@pytest.mark.parametrize("content", [b"", b"A mask", None])
def test_a_damaged_or_missing_file_is_made_again(folder, content):
    (folder / "a_mask.png").unlink()
    if content is not None:
        (folder / "a_mask.png").write_bytes(content)
    assert PredictionRecord(Folder(folder)).done(WANTED, ["a_mask.png"]) is None


def test_a_file_that_was_not_wanted_before_is_made(folder):
    assert PredictionRecord(Folder(folder)).done(WANTED, ["a_mask.png", "a_overlay.png"]) is None


def test_a_failed_image_is_tried_again(folder):
    PredictionRecord(Folder(folder)).add(LINE.model_copy(update={"status": "failed"}))
    assert PredictionRecord(Folder(folder)).done(WANTED, []) is None


@pytest.mark.parametrize("end", ['{"image": "b.j', "\n", "[]\n", '{"image": 3}\n', "\udcff"])
def test_lines_that_a_kill_or_a_person_has_damaged_do_not_count_and_are_removed(folder, end):
    with (folder / NAME).open("ab") as stream:
        stream.write(end.encode(errors="surrogateescape"))
    record = PredictionRecord(Folder(folder))
    assert list(record.lines.values()) == [LINE]
    record.add(LINE.model_copy(update={"name": "b"}))
    assert [json.loads(line)["name"] for line in (folder / NAME).read_text().splitlines()] == ["a", "b"]


def test_at_the_end_each_result_has_one_line_in_the_order_of_the_images(folder):
    record = PredictionRecord(Folder(folder))
    for name in ("c", "b", "c", "z"):
        record.add(LINE.model_copy(update={"name": name}))
    record.finish(["b", "c", "never met"])
    assert [json.loads(line)["name"] for line in (folder / NAME).read_text().splitlines()] == ["a", "z", "b", "c"]


def test_an_object_store_is_written_every_half_minute_and_at_the_end(folder, monkeypatch):
    now, appended = [0.0], []
    target = Folder(folder)
    monkeypatch.setattr(Folder, "is_local", False)
    monkeypatch.setattr(Folder, "append", lambda self, name, text: appended.append(text.count("\n")))
    record = PredictionRecord(target, clock=lambda: now[0])
    for second in range(0, 100, 10):
        now[0] = second
        record.add(LINE.model_copy(update={"name": f"{second}"}))
    assert appended == [5, 4]
    record.finish([])
    assert len((folder / NAME).read_text().splitlines()) == 11
