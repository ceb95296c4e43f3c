"""The same work through Ray as in this process: equal weights, equal bytes; and one line where it cannot be done."""

import signal
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.drills import SETTINGS, results
from tests.helpers import tiny_scenes
from tests.stages import STAGES
from vwl.config.files import load_recipe
from vwl.config.layout import Layout
from vwl.data.index import read_index, write_index
from vwl.engine import local, map, sums, train
from vwl.engine.base import Engine
from vwl.engine.session import session
from vwl.errors import VwlError
from vwl.evaluation.counts import MasksCount
from vwl.evaluation.sums import no_progress, sum_in_threads
from vwl.storage.folder import Folder
from vwl.storage.masks import encode_mask
from vwl.workflow.pipeline import run_stages
from vwl.workflow.run_folder import Run

pytestmark = [pytest.mark.ray, pytest.mark.timeout(900)]


ON_SIGTERM = signal.default_int_handler


@pytest.fixture(scope="module")
def ray_engine():
    before = signal.signal(signal.SIGTERM, ON_SIGTERM)
    with session(None, cpus=2):
        yield Engine(train, map, sums.sum_images)
    signal.signal(signal.SIGTERM, before)


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("engine")
    write_index(tiny_scenes(folder / "scenes", num_train=18, num_val=4), folder / "index.parquet")
    return folder / "index.parquet"


def new_run(index: Path, name: str, *overrides: str) -> Run:
    return Run.start(str(index.parent / name), load_recipe("demo", [*SETTINGS, *overrides]), str(index))


def quietly(run: Run, stages, engine: Engine, layout: Layout) -> list[tuple[str, int, int]]:
    seen = []
    run_stages(
        run,
        list(stages),
        engine,
        layout,
        lambda progress: seen.append((progress.stage, progress.done, progress.total)),
        lambda message: None,
    )
    return seen


def weights(run: Run, stage: str) -> dict[str, torch.Tensor]:
    return torch.load(Path(str(run.folder)) / stage / "weights.pt", weights_only=True)["model"]


def test_all_stages_on_ray_give_the_bytes_of_this_process(index, ray_engine):
    here, there = new_run(index, "local"), new_run(index, "ray")
    quietly(here, STAGES, Engine(local, local), Layout(cpus_per_worker=2))
    seen = quietly(there, STAGES, ray_engine, Layout(cpus_per_worker=2))
    assert {line[0] for line in seen} == set(STAGES)
    assert all(any(done == total for name, done, total in seen if name == stage) for stage in STAGES)
    for stage in ("classifier", "irnet", "segmenter"):
        for name, tensor in weights(here, stage).items():
            torch.testing.assert_close(weights(there, stage)[name], tensor, rtol=1e-4, atol=1e-6)
    ours, theirs = results(Path(str(there.folder))), results(Path(str(here.folder)))
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if ours[name] != theirs[name]] == []


def test_sums_on_ray_are_merged_in_order_and_end_with_the_first_wrong_image(index, ray_engine, monkeypatch):
    monkeypatch.setattr("vwl.evaluation.sums.PART_SIZE", 2)
    data = read_index(index)
    rows, masks = data.split("train"), Folder(index.parent / "masks")
    for row in rows:
        masks.write(f"{row.image_id}.png", encode_mask(np.roll(data.read_mask(row), 5), data.palette))
    count, seen = MasksCount(data, masks), []
    found = sums.sum_images(count, rows, seen.append)
    np.testing.assert_array_equal(found.counts, sum_in_threads(count, rows, no_progress).counts)
    assert seen == list(range(2, 19, 2))
    for wrong in (rows[11], rows[4]):
        masks.write(f"{wrong.image_id}.png", encode_mask(data.read_mask(wrong)[1:], data.palette))
    with pytest.raises(VwlError, match=f"^the mask of image {rows[4].image_id} "):
        sums.sum_images(count, rows, no_progress)


def test_two_workers_give_the_weights_of_one(index, ray_engine):
    one, two = (new_run(index, name, "classifier.codebook.strategy=learning") for name in ("one", "two"))
    quietly(one, ["classifier"], Engine(local, local), Layout(precision="float64"))
    quietly(two, ["classifier"], ray_engine, Layout(workers=2, precision="float64"))
    for name, tensor in weights(one, "classifier").items():
        np.testing.assert_allclose(weights(two, "classifier")[name], tensor, rtol=1e-7, atol=1e-12, err_msg=name)


def test_what_a_command_does_on_sigterm_is_not_rays(ray_engine):
    assert signal.getsignal(signal.SIGTERM) is ON_SIGTERM


def test_a_cluster_that_is_too_small_is_said_at_once(index, ray_engine):
    with pytest.raises(VwlError, match=r"needs 4 workers with 2 CPUs each and the cluster has slots for 1 \(its nodes: 2 CPUs\)"):
        quietly(new_run(index, "large"), ["classifier"], ray_engine, Layout(workers=4, cpus_per_worker=2))


def test_a_gpu_that_is_not_there_is_said_at_once(index, ray_engine):
    with pytest.raises(VwlError, match="GPUs"):
        quietly(new_run(index, "gpu"), ["classifier"], ray_engine, Layout(gpus_per_worker=1))


def test_a_users_mistake_in_a_worker_arrives_as_one_line(index, ray_engine, tmp_path):
    torch.save({"w": torch.zeros(2)}, tmp_path / "other.pth")
    run = new_run(index, "mistake", f"classifier.backbone.weights={tmp_path / 'other.pth'}")
    with pytest.raises(VwlError, match=r"other\.pth is of another network"):
        quietly(run, ["classifier"], ray_engine, Layout())


def test_a_stage_that_cannot_be_built_arrives_as_one_line(index, ray_engine):
    run = new_run(index, "broken")
    quietly(run, ["classifier"], Engine(local, local), Layout())
    (run.folder / "classifier").write("weights.pt", b"damaged")
    (run.folder / "classifier").delete("record.json")  # which would tell it before a worker starts
    with pytest.raises(VwlError, match=r"weights\.pt holds other objects"):
        quietly(run, ["cam"], ray_engine, Layout())
