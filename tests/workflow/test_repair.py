"""What is deleted from a finished run, or damaged in it, is made again by the same command, and the run is then as if nothing had happened."""

import os
from pathlib import Path

import pytest

from tests.workflow.runs import run_locally
from vwl.workflow.run_folder import Run
from vwl.workflow.stages import STAGES

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


def delete(path: Path) -> None:
    path.unlink()


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def flip(path: Path) -> None:
    """Flip one bit in the middle."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def flip_unnoticed(path: Path) -> None:
    """Flip one bit as a disk does: size and modification time stay."""
    before = path.stat()
    flip(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


DAMAGES = [delete, truncate, empty, flip]


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
