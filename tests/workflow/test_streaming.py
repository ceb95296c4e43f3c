"""The streamed pass leaves what the stages leave one after the other, whatever is ready when; on Ray both really run at a time."""

import threading
import time
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.drills import results
from tests.helpers import copy_run, tiny_scenes, truncate
from vwl.config.files import load_recipe, overridden
from vwl.config.layout import Layout
from vwl.data.index import write_index
from vwl.engine import local, map, train
from vwl.engine.base import Engine
from vwl.engine.session import session
from vwl.errors import VwlError
from vwl.inference.build import MapSpec
from vwl.inference.runner import Shard
from vwl.workflow.pipeline import run_stages
from vwl.workflow.run_folder import Run
from vwl.workflow.streaming import STREAMED, Streaming

OVERRIDES = ("crf.background=0.2", "crf.kernels.iterations=2", "irnet_labels.kernels.iterations=2")
BAD = ("train_00003", "train_00020")
"""Photographs that are cut off: in the first and in the second shard."""


class Slowly:
    """This process as an engine of two places, whose CAM stage lets every shard be seen before it makes the next, in any order."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.calls: list[tuple[str, int]] = []
        self.threads: set[str] = set()

    def split_processes(self) -> tuple[int, int]:
        return 1, 1

    def run_shards(self, spec: MapSpec, shards: list[Shard], images_done: int, on_progress, max_processes: int | None = None) -> None:
        self.calls.append((spec.stage, len(shards)))
        self.threads.add(threading.current_thread().name)
        for shard in [*shards[self.first : self.first + 1], *shards[: self.first], *shards[self.first + 1 :]]:
            local.run_shards(spec, [shard], images_done, on_progress)
            images_done += len(shard.rows)
            if spec.stage == "cam":
                time.sleep(0.2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a trained classifier, whose data set has two photographs that cannot be read."""
    folder = tmp_path_factory.mktemp("streaming")
    write_index(tiny_scenes(folder / "scenes", 70, 6), folder / "index.parquet")
    settings = [*TINY, *OVERRIDES, "classifier.batch_size=35"]
    run = Run.start(str(folder / "run"), load_recipe("demo", settings), str(folder / "index.parquet"))
    run_stages(run, ["classifier"], Engine(local, local), Layout(), lambda progress: None, lambda message: None)
    for image_id in BAD:
        truncate(run.index, image_id)
    return run


@pytest.fixture
def run(trained: Run, tmp_path: Path) -> Run:
    return copy_run(trained, tmp_path)


@pytest.fixture(scope="module")
def wanted(trained: Run, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the stages leave one after the other."""
    run = copy_run(trained, tmp_path_factory.mktemp("wanted"))
    do(run, Engine(local, local))
    return left(run)


def with_overrides(run: Run, *overrides: str) -> Run:
    """The run with other settings."""
    return Run.start(str(run.folder), overridden(run.recipe, overrides), run.index_path, overwrite=True)


def do(run: Run, engine: Engine, strict: bool = False) -> list[tuple[str, int, int]]:
    seen: list[tuple[str, int, int]] = []
    run_stages(run, STREAMED, engine, Layout(), lambda *line: seen.append(line[:3]), lambda _: None, strict=strict)
    return seen


def before_the_last_map(seen: list[tuple[str, int, int]]) -> set[str]:
    """The stages that were at work until the last map was made."""
    return {line[0] for line in seen[: max(at for at, line in enumerate(seen) if line[0] == "cam") + 1]}


def left(run: Run) -> dict[str, bytes]:
    """Every file of the three stages but their manifests, and what these say of images that failed."""
    found = {name: data for name, data in results(Path(str(run.folder))).items() if name.split("/")[0] in STREAMED}
    failed = {stage: run.manifest(stage).failed for stage in STREAMED}
    return found | {"failed": repr(sorted(failed.items())).encode()}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """One shard is worth a pool, and is looked for without pause."""
    monkeypatch.setattr("vwl.workflow.streaming._SHARDS_PER_CPU", 1)
    monkeypatch.setattr("vwl.workflow.streaming._POLL", 0.01)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("first", [0, 2])
def test_streamed_stages_leave_the_bytes_of_one_after_the_other(run, wanted, first):
    engine = Slowly(first)
    seen = do(run, Engine(local, Streaming(run, engine)))
    assert left(run) == wanted
    assert all(image_id.encode() in wanted["failed"] for image_id in BAD)
    assert before_the_last_map(seen) == set(STREAMED)
    assert len(engine.threads) == 2
    done = {name: [line[1] for line in seen if line[0] == name] for name in STREAMED}
    assert all(counts == sorted(counts) for counts in done.values())


@pytest.mark.usefixtures("eager")
def test_a_streamed_pass_that_was_cut_off_goes_on(run, wanted):
    class CutOff(Slowly):
        def run_shards(self, spec, shards, images_done, on_progress, max_processes=None):
            super().run_shards(spec, shards[:2] if spec.stage == "cam" else shards, images_done, on_progress, max_processes)
            if spec.stage == "cam":
                time.sleep(1)
                raise VwlError("cut off")

    with pytest.raises(VwlError, match="cut off"):
        do(run, Engine(local, Streaming(run, CutOff())))
    assert (run.folder / "irnet-labels/done").names() != []
    do(run, Engine(local, Streaming(run, Slowly())))
    assert left(run) == wanted


@pytest.mark.usefixtures("eager")
def test_what_other_settings_have_left_is_not_taken_for_done(run, wanted):
    other = with_overrides(run, "crf.background=0.95", "cam.hflip=false")
    do(other, Engine(local, local))
    assert {name.split("/")[0] for name, data in left(other).items() if data != wanted[name]} >= {"cam", "crf"}
    seen = do(with_overrides(run), Engine(local, Streaming(with_overrides(run), Slowly())))
    assert left(run) == wanted
    assert before_the_last_map(seen) == set(STREAMED)


@pytest.mark.parametrize(("background", "can_start"), [("0.2", True), ("auto", False)])
def test_a_threshold_that_needs_all_maps_keeps_the_crf_waiting(run, background, can_start):
    streaming = Streaming(with_overrides(run, f"crf.background={background}"), Slowly())
    assert (streaming._can_start("crf"), streaming._can_start("irnet-labels")) == (can_start, True)


@pytest.mark.usefixtures("eager")
def test_strict_stops_at_a_photograph_that_cannot_be_read(run):
    with pytest.raises(VwlError, match=r"train_00003.*put that right"):
        do(run, Engine(local, Streaming(run, Slowly(), strict=True)), strict=True)


@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("eager")
def test_on_ray_maps_are_made_and_refined_at_the_same_time(run, wanted):
    with session(None, cpus=2):
        seen = do(run, Engine(train, Streaming(run, map)))
    assert left(run) == wanted
    assert before_the_last_map(seen) > {"cam"}
