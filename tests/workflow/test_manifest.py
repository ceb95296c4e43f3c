"""A stage's manifest: read back as it was written or restored; one of another version gives one line that says what to do."""

from pathlib import Path

import pytest

from vwl.errors import VwlError
from vwl.storage.checked import write_checked
from vwl.storage.folder import Folder
from vwl.storage.record import Record, write_record
from vwl.workflow.manifest import Manifest, StageScore, read_manifest, restore_manifest, write_manifest

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


def unreadable(path: Path) -> str:
    return f"{path} is damaged or of another version of vwl; delete {path.parent} to run the stage again, or use another --run folder"


@pytest.mark.parametrize("content", [b"", b'{"stage": ', b"\xff\xfe", b"[]", b"[" * 100_000])
def test_a_damaged_manifest_is_restored_from_the_record_and_gives_one_line_without(tmp_path, content):
    folder = Folder(tmp_path)
    write_manifest(folder, MANIFEST)
    whole = folder.read("manifest.json")
    folder.write("manifest.json", content)
    with pytest.raises(VwlError) as caught:
        read_manifest(folder)
    assert str(caught.value) == unreadable(tmp_path / "manifest.json")
    write_record(folder, Record(MANIFEST.as_json()))
    assert read_manifest(folder) == MANIFEST
    restore_manifest(folder)
    assert folder.read("manifest.json") == whole


@pytest.mark.parametrize("bit", range(8))
def test_a_flipped_bit_never_changes_what_is_read(tmp_path, bit):
    folder = Folder(tmp_path)
    write_manifest(folder, MANIFEST)
    write_record(folder, Record(MANIFEST.as_json()))
    whole = folder.read("manifest.json")
    for position in range(bit, len(whole), 8):
        damaged = bytes(byte ^ (1 << bit if at == position else 0) for at, byte in enumerate(whole))
        Path(tmp_path, "manifest.json").write_bytes(damaged)
        assert read_manifest(folder) == MANIFEST, position


def test_a_lost_manifest_is_restored_from_the_record(tmp_path):
    write_record(Folder(tmp_path), Record(MANIFEST.as_json()))
    assert read_manifest(Folder(tmp_path)) == MANIFEST
    restore_manifest(Folder(tmp_path))
    assert Folder(tmp_path).exists("manifest.json")


def test_a_manifest_of_an_earlier_version_has_no_checksum(tmp_path):
    Folder(tmp_path).write_json("manifest.json", MANIFEST.as_json())
    assert read_manifest(Folder(tmp_path)) == MANIFEST


@pytest.mark.parametrize("changes", [{"seed": None}, {"decisions": {}}, {"state": "begun"}, {"scores": [{"stage": "cam"}]}])
def test_a_manifest_of_another_version_gives_one_line_and_stays(tmp_path, changes):
    folder = Folder(tmp_path)
    write_checked(folder, "manifest.json", {**MANIFEST.as_json(), **changes})
    write_record(folder, Record(MANIFEST.as_json()))
    before = folder.read("manifest.json")
    for call in (read_manifest, restore_manifest):
        with pytest.raises(VwlError) as caught:
            call(folder)
        assert str(caught.value) == unreadable(tmp_path / "manifest.json")
    assert folder.read("manifest.json") == before
