"""Without Ray: an interrupt is a request to save and leave, and the same work started again ends as if there had been none."""

import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainings import RECIPE, make_data, tiny_spec, weights
from vwl.config.layout import Layout
from vwl.data.index import read_index
from vwl.engine import local
from vwl.engine.base import Progress
from vwl.errors import Interrupted, VwlError
from vwl.inference.build import InferenceSpec
from vwl.inference.runner import Shard, unfinished
from vwl.storage.folder import Folder
from vwl.storage.score_maps import ScoreMap, write_maps

NUM_STEPS = 4


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("local"), num_val=0)


def fit(index_path, folder, report):
    return local.fit(tiny_spec("classifier-M", index_path, folder, NUM_STEPS), Layout(), report)


def interrupt_at(step):
    """A report that sends this process an interrupt at a step."""

    def report(progress):
        if progress.done == step:
            signal.raise_signal(signal.SIGINT)

    return report


def test_an_interrupted_training_is_saved_and_goes_on_to_the_same_weights(index_path, tmp_path):
    seen = []
    assert fit(index_path, tmp_path / "whole", lambda progress: seen.append((progress.stage, progress.done, progress.total))).finished
    assert seen == [("classifier", step, NUM_STEPS) for step in range(NUM_STEPS + 1)]

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(Interrupted, match="classifier stopped"):
        fit(index_path, tmp_path / "cut", interrupt_at(2))
    assert signal.getsignal(signal.SIGINT) is handler
    assert [path.name for path in (tmp_path / "cut/checkpoints").iterdir()] == ["step-00000002.pt"]
    assert not (tmp_path / "cut/weights.pt").exists()

    rest = []
    assert fit(index_path, tmp_path / "cut", lambda progress: rest.append(progress.done)).step == NUM_STEPS
    assert rest == [3, 4]
    ours, theirs = weights(tmp_path / "cut"), weights(tmp_path / "whole")
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_an_interrupt_that_the_report_raises_is_saved_like_ctrl_c(index_path, tmp_path):
    def report(progress):
        if progress.done == 2:
            raise KeyboardInterrupt

    with pytest.raises(Interrupted, match="classifier stopped"):
        fit(index_path, tmp_path / "cut", report)
    assert [path.name for path in (tmp_path / "cut/checkpoints").iterdir()] == ["step-00000002.pt"]


def test_processes_do_not_run_the_callers_script_again(tmp_path):
    """A script of a user has no `if __name__ == "__main__"`; a spawned process would import it."""
    (tmp_path / "script.py").write_text(
        "print('script')\n"
        "import math\n"
        "from concurrent.futures import ProcessPoolExecutor\n"
        "from multiprocessing import get_context\n"
        "from vwl.training.processes import without_main_module\n"
        "with ProcessPoolExecutor(1, get_context('spawn')) as pool:\n"
        "    with without_main_module():\n"
        "        root = pool.submit(math.sqrt, 4)\n"
        "    print(root.result())\n"
        "print(__file__)\n"
    )
    script = str(tmp_path / "script.py")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=False, cwd=Path(__file__).parents[2], timeout=300)
    assert done.stdout.splitlines() == ["script", "2.0", script], done.stderr


def test_an_interrupt_at_the_last_step_comes_too_late(index_path, tmp_path):
    assert fit(index_path, tmp_path / "run", interrupt_at(NUM_STEPS)).finished
    assert (tmp_path / "run/weights.pt").exists()


@pytest.fixture
def masks(index_path, tmp_path) -> tuple[InferenceSpec, list[Shard]]:
    """The masks stage on random maps of the eight scenes, and three shards of it."""
    rows, rng, run = read_index(index_path).rows, np.random.default_rng(0), Folder(tmp_path / "run")
    maps = [ScoreMap(row.image_id, row.labels, 16, 20, rng.random((len(row.labels), 4, 5)).astype(np.float16)) for row in rows]
    write_maps(run / "walk", "part-00000.parquet", maps)
    return InferenceSpec("masks", RECIPE, str(index_path), run, 0.5), [Shard(n, rows[3 * n : 3 * n + 3]) for n in range(3)]


def test_shards_are_done_one_after_another_and_counted_in_images(masks):
    spec, shards = masks
    seen = []
    local.run_shards(spec, shards[1:], 3, seen.append)
    assert seen == [Progress("masks", done, 8) for done in (3, 6, 8)]
    assert (spec.run / "masks" / "done").names() == ["00001.json", "00002.json"]
    assert (spec.run / "masks").names(".png") == [f"{row.image_id}.png" for shard in shards[1:] for row in shard.rows]


def test_an_interrupted_inference_keeps_its_finished_shards(masks):
    spec, shards = masks
    with pytest.raises(KeyboardInterrupt):
        local.run_shards(spec, shards, 0, interrupt_at(6))
    assert unfinished(shards, spec.run / "masks") == shards[2:]
    local.run_shards(spec, shards[2:], 6, lambda progress: None)
    assert len((spec.run / "masks").names(".png")) == 8


def test_many_shards_are_done_by_processes_with_the_same_bytes(masks, tmp_path):
    spec, shards = masks
    local.run_shards(spec, shards, 0, lambda progress: None)
    rows = [row for shard in shards for row in shard.rows]
    seen = []
    other = InferenceSpec(spec.stage, spec.recipe, spec.index_path, Folder(tmp_path / "other"), spec.threshold)
    shutil.copytree(Path(spec.run.path) / "walk", tmp_path / "other" / "walk")
    local.run_shards(other, [Shard(number, (row,)) for number, row in enumerate(rows)], 0, seen.append, max_processes=2)
    assert [progress.done for progress in seen] == list(range(9))
    for row in rows:
        name = f"{row.image_id}.png"
        assert (other.run / "masks").read(name) == (spec.run / "masks").read(name)


@pytest.mark.parametrize(("cpus", "gpus", "processes"), [(2, 0, 2), (16, 1, 4), (16, 2, 8), (2, 1, 2), (8, 8, 8)])
def test_processes_of_a_stage_share_the_gpus(cpus, gpus, processes):
    assert local.num_processes(cpus, gpus) == processes


def test_a_mistake_in_a_process_arrives_as_it_is(masks, tmp_path):
    spec, shards = masks
    one_each = [Shard(number, (row,)) for number, row in enumerate(row for shard in shards for row in shard.rows)]
    empty = InferenceSpec(spec.stage, spec.recipe, str(tmp_path / "gone.parquet"), spec.run, spec.threshold)
    with pytest.raises(VwlError, match=r"gone\.parquet"):
        local.run_shards(empty, one_each, 0, lambda progress: None, max_processes=2)
    strict = InferenceSpec(spec.stage, spec.recipe, spec.index_path, Folder(tmp_path / "without maps"), spec.threshold, strict=True)
    with pytest.raises(VwlError, match=r"^image .*: .* has no score map of image .*; fix it"):
        local.run_shards(strict, one_each, 0, lambda progress: None, max_processes=2)
