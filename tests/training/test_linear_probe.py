"""The linear probe is the optimum of its objective, the same at any number of workers, and a floor or a start for the classifier."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import distributed, multiprocessing

from tests.trainings import FLOAT64, make_data, metrics, tiny_spec, train_to_end, weights, with_changes
from vwl.training.build import TrainSpec, build_task
from vwl.training.linear_probe import LinearProbe, below_probe, fit_linear_probe
from vwl.training.loop import Callbacks

NUM_IMAGES, NUM_CLASSES, DIM = 90, 3, 7


def sample(number: int) -> tuple[torch.Tensor, torch.Tensor] | None:
    """Features and targets of an image; image 5 cannot be read."""
    rng = np.random.default_rng(number)
    features = rng.normal(size=DIM)
    targets = (features[:NUM_CLASSES] + rng.normal(size=NUM_CLASSES) > 0.4).astype(float)
    return None if number == 5 else (torch.from_numpy(features), torch.from_numpy(targets))


def fitted(l2: float = 0.01, with_bias: bool = True) -> LinearProbe:
    return fit_linear_probe(sample, NUM_IMAGES, (NUM_CLASSES, DIM), l2, with_bias)


@pytest.mark.parametrize("with_bias", [True, False])
@pytest.mark.parametrize("l2", [0.003, 0.3])
def test_it_is_scikit_learns_logistic_regression(l2, with_bias):
    features, targets = (np.stack(part) for part in zip(*filter(None, map(sample, range(NUM_IMAGES))), strict=True))
    probe = fitted(l2, with_bias)
    for c in range(NUM_CLASSES):
        reference = LogisticRegression(C=1 / (l2 * len(features)), fit_intercept=with_bias, tol=1e-10, max_iter=10_000)
        reference.fit(features, targets[:, c])
        np.testing.assert_allclose(probe.weight[c], reference.coef_[0], rtol=1e-4, atol=1e-5)
        np.testing.assert_allclose(probe.bias[c], reference.intercept_[0] if with_bias else 0, rtol=1e-4, atol=1e-5)


def fit_as_worker(rank: int, world_size: int, folder: str) -> None:
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting-{world_size}", rank=rank, world_size=world_size)
    np.save(f"{folder}/{world_size}-{rank}.npy", np.column_stack([fitted().weight, fitted().bias]))
    distributed.destroy_process_group()


@pytest.mark.parametrize("world_size", [2, 4])
def test_all_workers_get_the_probe_of_one_worker(tmp_path, world_size):
    multiprocessing.spawn(fit_as_worker, (world_size, str(tmp_path)), nprocs=world_size)
    alone = fitted()
    for rank in range(world_size):
        np.testing.assert_array_equal(np.load(tmp_path / f"{world_size}-{rank}.npy"), np.column_stack([alone.weight, alone.bias]))


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("probe"))


def spec_with(index_path: Path, folder: Path, **settings) -> TrainSpec:
    spec = tiny_spec("classifier-L", index_path, folder)
    changed = with_changes(spec.recipe.classifier, **settings)
    return TrainSpec(**{**vars(spec), "recipe": spec.recipe.model_copy(update={"classifier": changed})})


def test_the_head_starts_from_the_probe(index_path, tmp_path):
    task = build_task(spec_with(index_path, tmp_path, linear_probe="init", image_bias=True, probe_l2=0.1))
    task.model.double()
    features, targets = [], []
    for row in task.rows:
        with torch.no_grad():
            whole = task._features(np.asarray(task.index.read_image(row)))
            features.append(task.model.pool(whole)[0].numpy())
        targets.append([c in row.labels for c in (1, 2)])
    scores = task.start()
    for c, head in enumerate(zip(task.model.image_head.weight.detach(), task.model.image_head.bias.detach(), strict=True)):
        reference = LogisticRegression(C=1 / (0.1 * len(features)), tol=1e-10, max_iter=10_000).fit(features, np.array(targets)[:, c])
        np.testing.assert_allclose(head[0], reference.coef_[0], rtol=1e-3, atol=1e-5)
        np.testing.assert_allclose(head[1], reference.intercept_[0], rtol=1e-3, atol=1e-5)
    assert scores == {f"probe_{name}": value for name, value in task.evaluate().items()}


def test_a_reported_probe_leaves_the_training_as_it_is(index_path, tmp_path):
    ended = {}
    for kind in ("none", "report"):
        train_to_end(spec_with(index_path, tmp_path / kind, linear_probe=kind))
        ended[kind] = weights(tmp_path / kind)
    assert all(torch.equal(ended["none"][name], ended["report"][name]) for name in ended["none"])


def test_its_scores_are_kept_over_a_resume(index_path, tmp_path):
    asked = iter(range(1000))
    spec = spec_with(index_path, tmp_path, linear_probe="report")
    _, stopped = train_to_end(spec, FLOAT64, Callbacks(should_stop=lambda: next(asked) == 3))
    assert not stopped.finished
    _, result = train_to_end(spec)
    assert result.scores["probe_val_map"] == stopped.scores["probe_val_map"] == metrics(tmp_path)[0]["probe_val_map"]
    assert {"val_map", "val_cam_miou", "probe_val_cam_miou"} <= set(result.scores)


def test_without_epochs_the_classifier_is_the_probe(index_path, tmp_path):
    spec = spec_with(index_path, tmp_path, linear_probe="init", epochs=0)
    task, result = train_to_end(spec)
    assert (result.finished, result.step) == (True, 0)
    assert result.scores["val_map"] == result.scores["probe_val_map"]
    assert torch.equal(weights(tmp_path)["image_head.weight"].double(), task.model.image_head.weight.double())


@pytest.mark.parametrize(
    ("scores", "part"),
    [
        (
            {"val_map": 0.5, "probe_val_map": 0.567, "val_cam_miou": 40.0, "probe_val_cam_miou": 39.0},
            "mAP on held-out images is 50.0, below the 56.7",
        ),
        (
            {"val_map": 0.6, "probe_val_map": 0.5, "val_cam_miou": 40.0, "probe_val_cam_miou": 44.2},
            "mIoU of the maps on held-out images is 40.0, below",
        ),
    ],
)
def test_a_training_that_ends_below_its_probe_is_reported(scores, part):
    line = below_probe(scores)
    assert line is not None
    assert part in line
    assert "learning_rate" in line


@pytest.mark.parametrize(
    "scores", [{}, {"val_map": 0.5}, {"val_map": 0.5, "probe_val_map": 0.5, "val_cam_miou": 2.0, "probe_val_cam_miou": 1.0}]
)
def test_one_that_does_not_is_not(scores):
    assert below_probe(scores) is None
