"""Whether a stage in an object store is complete is known from a few requests, and what is lost there is made again."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.s3 import copy_tree, serving
from tests.stages import STAGES
from tests.workflow.runs import run_locally
from vwl.storage.folder import Folder
from vwl.workflow.run_folder import Run
from vwl.workflow.status import stage_status


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("s3")


@pytest.fixture(scope="module")
def run(tiny_run, log) -> Iterator[Run]:
    """The finished run, copied to an object store."""
    with serving(log) as server:
        there = Folder(server.uri("run"))
        copy_tree(Path(tiny_run.folder.path), there)
        yield Run(there, tiny_run.recipe, tiny_run.index, tiny_run.index_path)


def requests(log: Path) -> int:
    return (log / "server.log").read_text().count("HTTP/1.1")


def test_a_copied_run_is_done_and_its_files_are_not_read_again(run, log):
    assert all(run.is_done(stage) for stage in STAGES)
    before = requests(log)
    assert run.is_done("masks")
    few = requests(log) - before
    assert 0 < few < 20
    before = requests(log)
    assert run.is_done("segment")  # half as many masks again
    assert requests(log) - before == few


def test_a_mask_that_is_lost_there_is_made_again(run):
    folder = run.stage_folder("masks")
    whole = folder.read("train_00003.png")
    folder.delete("train_00003.png")
    assert stage_status(run, "masks").note == f"{folder.uri_of('train_00003.png')} is missing; run the same command again"
    run_locally(run, "masks")
    assert folder.read("train_00003.png") == whole
    assert run.is_done("masks")


def test_a_stage_that_has_not_ended_there_runs_or_was_interrupted(run):
    run.start_stage("crf")
    line = stage_status(run, "crf")
    assert (line.state, line.note) == ("running", "or interrupted: this storage has no locks")
    run_locally(run, "crf")
    assert stage_status(run, "crf").state == "done"
