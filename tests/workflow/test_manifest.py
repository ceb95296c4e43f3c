"""A stage's manifest: read back as it was written; a damaged one, or one of another version, gives one line that says what to do."""

import json
from pathlib import Path

import pytest

from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.workflow.manifest import Manifest, StageScore, read_manifest, write_manifest

SCORE = StageScore(
    stage="cam",
    split="train",
    images=8,
    miou=41.5,
    object_precision=50.5,
    object_recall=61.0,
    threshold=0.25,
    threshold_chosen="fixed",
    best_miou_with_ground_truth=42.0,
    best_threshold_with_ground_truth=0.3,
)
MANIFEST = Manifest(
    stage="cam",
    state="done",
    fingerprint="ab",
    settings={"scales": [0.5, 1.0]},
    seed=3,
    recipe="demo",
    reads={"classifier": "cd"},
    index="ef",
    versions={"vwl": "1"},
    started="2026-01-01T00:00:00",
    failed={"image1": "truncated"},
    scores=[SCORE],
)


def test_a_manifest_is_read_back_as_it_was_written(tmp_path):
    assert read_manifest(Folder(tmp_path)) is None
    write_manifest(Folder(tmp_path), MANIFEST)
    assert read_manifest(Folder(tmp_path)) == MANIFEST


def test_a_damaged_manifest_or_one_of_another_version_gives_one_line(tmp_path):
    write_manifest(Folder(tmp_path), MANIFEST)
    path = Path(tmp_path, "manifest.json")
    stored = json.loads(path.read_text())
    without_seed = {key: value for key, value in stored.items() if key != "seed"}
    damaged = [b"", b'{"stage": ', b"\xff\xfe", b"[]", path.read_bytes()[:-20]]
    other = [without_seed, {**stored, "decisions": {}}, {**stored, "state": "begun"}, {**stored, "scores": [{"stage": "cam"}]}]
    for content in [*damaged, *(json.dumps(value).encode() for value in other)]:
        path.write_bytes(content)
        with pytest.raises(VwlError) as caught:
            read_manifest(Folder(tmp_path))
        assert str(caught.value) == (
            f"{path} is damaged or of another version of vwl; delete {tmp_path} to run the stage again, or use another --run folder"
        ), content
