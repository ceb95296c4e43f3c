"""What is deleted from a finished run, or damaged in it, is made again by the same command, and the run is then as if nothing had happened."""

import json
import re
import shutil
from pathlib import Path

import pytest
import torch

from tests.damage import delete, empty, flip, flip_unnoticed, truncate
from tests.stages import STAGES
from tests.workflow.runs import delete_stages, modification_times, run_locally
from vwl.errors import VwlError
from vwl.storage.folder import Folder
from vwl.storage.record import read_record
from vwl.workflow.run_folder import Run

INFERENCE = [name for name, spec in STAGES.items() if spec.kind != "train"]
TRAININGS = [name for name, spec in STAGES.items() if spec.kind == "train"]
FILES = [
    *((name, "weights.pt") for name in TRAININGS),
    *((name, "part-00000.parquet") for name in ("cam", "walk")),
    *((name, "train_00003.png") for name in ("crf", "irnet-labels", "masks", "segment")),
    *((name, "done/00000.json") for name in INFERENCE),
    *((name, "manifest.json") for name in STAGES),
    *((name, "scores-val.json") for name in ("cam", "segment")),
]
"""A file of every kind in every stage that has it."""


DAMAGES = [delete, truncate, flip]


def result(run: Run) -> dict[str, bytes]:
    """Every file of the run that says the same however often a stage was started."""
    times = {"manifest.json", "record.json", "metrics.jsonl", "run.json"}
    passing = {"checkpoints", "tensorboard", "pictures", "begun"}
    root = Path(run.folder.path)
    files = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return {
        str(path): (root / path).read_bytes()
        for path in files
        if not passing & set(path.parts) and path.name not in times and not path.name.startswith(".")
    }


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(("stage", "name"), FILES)
def test_a_deleted_or_damaged_file_is_made_again_by_the_same_command(copied, tiny_run, stage, name, damage):
    damage(Path(copied.folder.path, stage, name))
    # a manifest has a copy, so its stage stays done
    assert copied.is_done(stage) == (name == "manifest.json")
    messages = run_locally(copied, *STAGES)
    if name != "manifest.json":
        (line,) = [line for line in messages if not line.endswith("done before, skipped")]
        assert line.startswith(f"{stage}: {copied.folder}/{stage}/{name} is ")
        assert line.endswith("; what is missing is made again")
    assert result(copied) == result(tiny_run)
    assert all(copied.is_done(other) for other in STAGES)
    assert {score.split: score for score in copied.manifest(stage).scores} == {s.split: s for s in tiny_run.manifest(stage).scores}
    assert run_locally(copied, *STAGES) == [f"{other}: done before, skipped" for other in STAGES]


@pytest.mark.parametrize("stage", TRAININGS)
def test_weights_that_are_lost_with_all_checkpoints_are_trained_again(copied, tiny_run, stage):
    folder = Path(copied.folder.path, stage)
    (folder / "weights.pt").unlink()
    shutil.rmtree(folder / "checkpoints")
    run_locally(copied, stage)
    assert result(copied) == result(tiny_run)


def interrupted(run: Run, stage: str) -> None:
    """Leave what a stage leaves that was killed after its last shard or checkpoint."""
    run.start_stage(stage)
    for path in Path(run.folder.path, stage).glob("scores-*.json"):
        path.unlink()


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize(
    ("stage", "name"), [(stage, name) for stage, name in FILES if stage in ("cam", "irnet-labels", "irnet") and "scores" not in name]
)
def test_an_interrupted_stage_makes_damaged_files_again_when_it_resumes(copied, tiny_run, stage, name, damage):
    interrupted(copied, stage)
    damage(Path(copied.folder.path, stage, name))
    run_locally(copied, stage)
    assert result(copied) == result(tiny_run)


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("stage", ["cam", "classifier", "masks"])
def test_a_lost_record_is_made_again(copied, tiny_run, stage, damage):
    path = Path(copied.folder.path, stage, "record.json")
    damage(path)
    assert run_locally(copied, stage) == [f"{stage}: done before, skipped"]
    assert result(copied) == result(tiny_run)
    assert read_record(copied.folder / stage) == read_record(tiny_run.folder / stage)


def as_earlier_versions_left_it(run: Run) -> None:
    for path in Path(run.folder.path).glob("*/record.json"):
        path.unlink()
    for path in [*Path(run.folder.path).glob("*/manifest.json"), *Path(run.folder.path).glob("*/done/*.json")]:
        stored = json.loads(path.read_text())
        for key in ("checksum", "ids", "files", "resumed"):
            stored.pop(key, None)
        path.write_text(json.dumps(stored))


def test_a_run_of_an_earlier_version_is_done_if_its_files_are_there(copied, tiny_run):
    as_earlier_versions_left_it(copied)
    before = result(copied)
    assert all(copied.is_done(stage) for stage in STAGES)
    assert run_locally(copied, *STAGES) == [f"{stage}: done before, skipped" for stage in STAGES]
    assert result(copied) == before
    assert {stage: set(read_record(copied.folder / stage).files) for stage in STAGES} == {
        stage: set(read_record(tiny_run.folder / stage).files) for stage in STAGES
    }


@pytest.mark.parametrize("damage", [delete, empty])
@pytest.mark.parametrize(("stage", "name"), [(stage, name) for stage, name in FILES if "json" not in name])
def test_a_run_of_an_earlier_version_makes_a_lost_file_again(copied, tiny_run, stage, name, damage):
    as_earlier_versions_left_it(copied)
    damage(Path(copied.folder.path, stage, name))
    assert not copied.is_done(stage)
    run_locally(copied, stage)
    assert Path(copied.folder.path, stage, name).read_bytes() == Path(tiny_run.folder.path, stage, name).read_bytes()


@pytest.mark.parametrize(
    ("reader", "stage", "name"),
    [
        ("cam", "classifier", "weights.pt"),
        ("walk", "irnet", "weights.pt"),
        ("segment", "segmenter", "weights.pt"),
        ("crf", "cam", "part-00000.parquet"),
        ("irnet-labels", "cam", "part-00000.parquet"),
        ("walk", "cam", "part-00000.parquet"),
        ("masks", "walk", "part-00000.parquet"),
        ("irnet", "irnet-labels", "train_00003.png"),
        ("segmenter", "masks", "train_00003.png"),
    ],
)
def test_damage_without_a_trace_is_named_by_the_stage_that_reads_the_file_and_the_advice_works(copied, tiny_run, reader, stage, name):
    path = Path(copied.folder.path, stage, name)
    delete_stages(copied, reader)
    flip_unnoticed(path)
    with pytest.raises(VwlError) as caught:
        run_locally(copied, reader)
    kind = "train" if stage in TRAININGS else "infer"
    assert re.search(rf"{path} is damaged.*; delete it and (run|train) its stage again \(vwl {kind} {stage}\)$", str(caught.value))
    path.unlink()
    with pytest.raises(VwlError) as caught:
        run_locally(copied, reader)
    assert str(caught.value) == (
        f"{reader} needs the {stage} stage, of which {path} is missing; make it again with: vwl {kind} {stage} --run {copied.folder}"
    )
    run_locally(copied, stage, reader)
    assert result(copied) == result(tiny_run)
    assert copied.manifest(reader).failed == {}


def test_a_copy_with_new_modification_times_is_read_once(copied, monkeypatch):
    for path in Path(copied.folder.path, "masks").glob("*.png"):
        path.touch()
    reads = []
    read = Folder.read
    monkeypatch.setattr(Folder, "read", lambda folder, name: (reads.append(name), read(folder, name))[1])
    assert copied.is_done("masks")
    assert len([name for name in reads if name.endswith(".png")]) == 8
    reads.clear()
    assert copied.is_done("masks")
    # as many as for any number of masks
    assert sorted(set(reads)) == ["manifest.json", "record.json"]


def test_a_damaged_shard_keeps_only_its_own_images_from_being_made(copied, tiny_run, monkeypatch):
    monkeypatch.setattr("vwl.inference.runner.SHARD_SIZE", 4)
    monkeypatch.setattr("vwl.workflow.stage_shards.SHARD_SIZE", 4)
    delete_stages(copied, "cam", "irnet-labels")
    run_locally(copied, "cam")
    path = Path(copied.folder.path, "cam/part-00001.parquet")
    flip_unnoticed(path)
    with pytest.raises(VwlError, match=rf"^irnet-labels: 4 images could not be processed, e\.g\. train_00004: {path} is damaged"):
        run_locally(copied, "irnet-labels")
    made = [f"train_{number:05d}.png" for number in range(4)]
    assert (copied.folder / "irnet-labels").names(".png") == made
    assert copied.manifest("irnet-labels").state == "running"
    before = modification_times(copied, "irnet-labels/*.png")
    path.unlink()
    run_locally(copied, "cam", "irnet-labels")
    after = modification_times(copied, "irnet-labels/*.png")
    assert len(after) == 8
    assert {name: after[name] for name in before} == before
    assert {name: (copied.folder / "irnet-labels").read(name) for name in (copied.folder / "irnet-labels").names(".png")} == {
        name: (tiny_run.folder / "irnet-labels").read(name) for name in (tiny_run.folder / "irnet-labels").names(".png")
    }


def test_only_the_shard_of_a_lost_mask_is_made_again(copied, monkeypatch):
    monkeypatch.setattr("vwl.inference.runner.SHARD_SIZE", 4)
    monkeypatch.setattr("vwl.workflow.stage_shards.SHARD_SIZE", 4)
    delete_stages(copied, "masks")
    run_locally(copied, "masks")
    before = modification_times(copied, "masks/*.png")
    Path(copied.folder.path, "masks/train_00001.png").unlink()
    run_locally(copied, "masks")
    after = modification_times(copied, "masks/*.png")
    assert sorted(path.stem for path in after if after[path] != before[path]) == [f"train_{number:05d}" for number in range(4)]


def test_weights_that_differ_after_a_new_training_are_reported(copied):
    folder = Path(copied.folder.path, "classifier")
    state = torch.load(folder / "checkpoints/step-00000002.pt", weights_only=True)
    name = next(name for name, value in state["model"].items() if value.ndim == 4)
    state["model"][name] = state["model"][name] + 1
    torch.save(state, folder / "checkpoints/step-00000002.pt")
    (folder / "weights.pt").unlink()
    assert "classifier: its new weights are not those from before; what later stages made with those is kept" in run_locally(
        copied, "classifier"
    )
