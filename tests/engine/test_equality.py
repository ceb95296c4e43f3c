"""The number of workers changes only the time: real Ray Train workers on two nodes, 20 steps of each training."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.engine.equality import LAYOUTS, folder_of
from tests.ray_cluster import NodeProcesses
from tests.trainings import BATCH, KINDS, make_data, metrics, weights

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1600)]
STEPS = 20
RELATIVE = {"float64": 1e-9, "float32": 1e-4}
COUNTED = {"float64": 0.0, "float32": 0.05}
"""Percentage points by which scores of maps may differ: in float32 a rounding moves some pixels across the threshold."""
OTHERS = [
    (workers, micro, precision) for workers, layouts in LAYOUTS.items() for micro, precision in layouts if (workers, micro) != (1, BATCH)
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory) -> Path:
    """A folder with every training in every layout, done on a head without CPUs and two nodes with two each."""
    folder = tmp_path_factory.mktemp("equality")
    index_path = make_data(folder)
    root = Path(__file__).parents[2]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(root))
        with NodeProcesses(token=False) as cluster:
            cluster.add_node(cpus=2)
            cluster.add_node(cpus=2)
            command = [sys.executable, "-m", "tests.engine.equality", cluster.gcs, str(index_path), str(folder), str(STEPS)]
            done = subprocess.run(command, cwd=root, env=cluster.driver_environment(), capture_output=True, text=True, timeout=1500)
            assert done.returncode == 0, done.stderr[-3000:]
    return folder


def counted(line: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in line.items() if name.startswith("val_cam_")}


def assert_same_training(one: Path, other: Path, precision: str) -> None:
    lines, others, relative = metrics(one), metrics(other), RELATIVE[precision]
    assert len(lines) == len(others) >= STEPS
    for line, expected in zip(lines, others, strict=True):
        assert line == pytest.approx(expected | (counted(line) if COUNTED[precision] else {}), rel=relative)
        assert counted(line) == pytest.approx(counted(expected), rel=relative, abs=COUNTED[precision])
    state, expected_state = weights(one), weights(other)
    assert state.keys() == expected_state.keys()
    for name, value in state.items():
        # a weight near zero is a difference of larger numbers: the tensor's own size is the measure
        size = float(expected_state[name].abs().max()) if value.is_floating_point() else 0
        torch.testing.assert_close(
            value, expected_state[name], rtol=relative, atol=relative * size, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize(("workers", "micro_batch", "precision"), OTHERS)
@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_gives_the_losses_and_weights_of_one_worker_with_the_whole_batch(trained, kind, workers, micro_batch, precision):
    layout = folder_of(trained, kind, workers, micro_batch, precision)
    assert_same_training(layout, folder_of(trained, kind, 1, BATCH, precision), precision)


@pytest.mark.parametrize("kind", KINDS)
def test_all_workers_end_with_the_same_bits(trained, kind):
    first, *others = (torch.load(folder_of(trained, kind, 4, 1, "float64") / f"rank-{r}.pt", weights_only=True) for r in range(4))
    assert all(torch.equal(value, other[name]) for other in others for name, value in first.items())


def test_four_workers_were_on_two_nodes(trained):
    assert len({path.read_text() for path in (trained / "nodes-4").iterdir()}) == 2


@pytest.mark.parametrize("kind", KINDS)
def test_the_trainings_compared_do_learn(trained, kind):
    losses = [line["loss"] for line in metrics(folder_of(trained, kind, 1, BATCH, "float64")) if "loss" in line]
    assert len(losses) == STEPS
    assert losses[0] != pytest.approx(losses[-1], rel=1e-3)


def test_a_memory_bank_that_is_not_summed_over_workers_gives_other_codewords(trained):
    whole = folder_of(trained, "classifier-M", 1, BATCH, "float64")
    with pytest.raises(AssertionError):
        assert_same_training(trained / "bank-not-summed", whole, "float32")
    assert not torch.allclose(weights(trained / "bank-not-summed")["codebook.codewords"], weights(whole)["codebook.codewords"], rtol=1e-3)
