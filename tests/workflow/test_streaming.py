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
from vwl.config.recipe import Recipe
from vwl.data.index import write_index
from vwl.engine import local, map, train
from vwl.engine.base import Engine
from vwl.engine.session import session
from vwl.errors import VwlError
from vwl.inference.build import InferenceSpec
from vwl.inference.runner import Shard
from vwl.workflow.pipeline import run_stages
from vwl.workflow.run_folder import Run
from vwl.workflow.streaming import Streaming, streamed

STREAMED = streamed(Recipe())

OVERRIDES = ("crf.background=0.2", "crf.kernels.iterations=2", "irnet_labels.kernels.iterations=2")
BAD = ("train_00003", "train_00020")
"""Images that are cut off: in the first and in the second shard."""


class Slowly:
    """Runs shards in this process as if it had two; the CAM stage waits after each shard, so that it is seen before the next."""

    def __init__(self, first: int = 0) -> None:
        self.first = first
        self.calls: list[tuple[str, int]] = []
        self.threads: set[str] = set()

    def split_processes(self) -> tuple[int, int]:
        return 1, 1

    def run_shards(self, spec: InferenceSpec, shards: list[Shard], images_done: int, on_progress, max_processes: int | None = None) -> None:
        self.calls.append((spec.stage, len(shards)))
        self.threads.add(threading.current_thread().name)
        for shard in [*shards[self.first : self.first + 1], *shards[: self.first], *shards[self.first + 1 :]]:
            local.run_shards(spec, [shard], images_done, on_progress)
            images_done += len(shard.rows)
            if spec.stage == "cam":
                time.sleep(0.2)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with a trained classifier and two images that cannot be read."""
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
    """The files that the stages write one after the other."""
    run = copy_run(trained, tmp_path_factory.mktemp("wanted"))
    run_streamed(run, Engine(local, local))
    return written_files(run)


def with_overrides(run: Run, *overrides: str) -> Run:
    """The run with other settings."""
    return Run.start(str(run.folder), overridden(run.recipe, overrides), run.index_path, overwrite=True)


def run_streamed(run: Run, engine: Engine, strict: bool = False) -> list[tuple[str, int, int]]:
    """Return the progress (stage, done, total) of the stages themselves, without that of their scoring."""
    seen: list[tuple[str, int, int]] = []
    run_stages(
        run,
        STREAMED,
        engine,
        Layout(),
        lambda progress: None if progress.part else seen.append((progress.stage, progress.done, progress.total)),
        lambda _: None,
        strict=strict,
    )
    return seen


def before_the_last_map(seen: list[tuple[str, int, int]]) -> set[str]:
    """The stages that made progress before the last map was finished."""
    return {line[0] for line in seen[: max(at for at, line in enumerate(seen) if line[0] == "cam") + 1]}


def written_files(run: Run) -> dict[str, bytes]:
    """Every file of the three stages except manifests, and the failed images."""
    found = {name: data for name, data in results(Path(str(run.folder))).items() if name.split("/")[0] in STREAMED}
    failed = {stage: run.manifest(stage).failed for stage in STREAMED}
    return found | {"failed": repr(sorted(failed.items())).encode()}


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """A single shard starts a pool, and polling is fast."""
    monkeypatch.setattr("vwl.workflow.streaming._SHARDS_PER_CPU", 1)
    monkeypatch.setattr("vwl.workflow.streaming._POLL", 0.01)


@pytest.mark.usefixtures("eager")
@pytest.mark.parametrize("first", [0, 2])
def test_streamed_stages_write_the_same_bytes_as_one_after_the_other(run, wanted, first):
    engine = Slowly(first)
    seen = run_streamed(run, Engine(local, Streaming(run, engine)))
    assert written_files(run) == wanted
    assert all(image_id.encode() in wanted["failed"] for image_id in BAD)
    assert before_the_last_map(seen) == set(STREAMED)
    assert len(engine.threads) == 2
    done = {name: [line[1] for line in seen if line[0] == name] for name in STREAMED}
    assert all(counts == sorted(counts) for counts in done.values())


@pytest.mark.usefixtures("eager")
def test_an_interrupted_streamed_pass_resumes(run, wanted):
    class CutOff(Slowly):
        def run_shards(self, spec, shards, images_done, on_progress, max_processes=None):
            super().run_shards(spec, shards[:2] if spec.stage == "cam" else shards, images_done, on_progress, max_processes)
            if spec.stage == "cam":
                time.sleep(1)
                raise VwlError("cut off")

    with pytest.raises(VwlError, match="cut off"):
        run_streamed(run, Engine(local, Streaming(run, CutOff())))
    assert (run.folder / "irnet-labels/done").names() != []
    run_streamed(run, Engine(local, Streaming(run, Slowly())))
    assert written_files(run) == wanted


@pytest.mark.usefixtures("eager")
def test_results_of_other_settings_do_not_count_as_done(run, wanted):
    other = with_overrides(run, "crf.background=0.95", "cam.hflip=false")
    run_streamed(other, Engine(local, local))
    assert {name.split("/")[0] for name, data in written_files(other).items() if data != wanted[name]} >= {"cam", "crf"}
    seen = run_streamed(with_overrides(run), Engine(local, Streaming(with_overrides(run), Slowly())))
    assert written_files(run) == wanted
    assert before_the_last_map(seen) == set(STREAMED)


@pytest.mark.parametrize(("background", "can_start"), [("0.2", True), ("auto", False)])
def test_the_crf_waits_for_a_threshold_that_needs_all_maps(run, background, can_start):
    streaming = Streaming(with_overrides(run, f"crf.background={background}"), Slowly())
    assert (streaming._can_start("crf"), streaming._can_start("irnet-labels")) == (can_start, True)


@pytest.mark.usefixtures("eager")
def test_strict_stops_at_an_unreadable_image(run):
    with pytest.raises(VwlError, match=r"train_00003.*fix it"):
        run_streamed(run, Engine(local, Streaming(run, Slowly(), strict=True)), strict=True)


@pytest.mark.ray
@pytest.mark.timeout(600)
@pytest.mark.usefixtures("eager")
def test_on_ray_maps_are_made_and_refined_at_the_same_time(run, wanted):
    with session(None, cpus=2):
        seen = run_streamed(run, Engine(train, Streaming(run, map)))
    assert written_files(run) == wanted
    assert before_the_last_map(seen) > {"cam"}
