"""ReCAM's training: it goes on from the trained classifier, with its losses and one more."""

from pathlib import Path

import pytest
import torch

from tests.models.test_recam import features_written_out, loss_written_out
from tests.trainings import FLOAT64, make_data, metrics, tiny_spec, train_to_end, weights, with_changes
from vwl.errors import VwlError
from vwl.training.build import TrainSpec, build_task
from vwl.training.loop import Callbacks
from vwl.training.recam import RecamTask


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("recam"))


def task_of(index_path: Path, kind: str = "recam-L") -> RecamTask:
    task = build_task(tiny_spec(kind, index_path, index_path.parent))
    task.model.double()
    return task


def batch_of(task: RecamTask) -> dict[str, torch.Tensor]:
    samples = [task.sample(number, 0) for number in range(4)]
    stacked = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    return {name: value.double() if value.is_floating_point() else value for name, value in stacked.items()}


def with_weight(spec: TrainSpec, weight: float) -> TrainSpec:
    recam = with_changes(spec.recipe.recam, weight=weight)
    return TrainSpec(**{**vars(spec), "recipe": spec.recipe.model_copy(update={"recam": recam})})


@pytest.mark.parametrize("strategy", ["learning", "memory"])
def test_it_starts_from_the_trained_classifier(index_path, strategy):
    task = task_of(index_path, {"learning": "recam-L", "memory": "recam-M"}[strategy])
    trained = weights(index_path.parent / f"classifier-{strategy}")
    state = task.model.state_dict()
    assert state.keys() - trained.keys() == {"recam_head.weight"}
    assert all(torch.equal(state[name], value.to(state[name].dtype)) for name, value in trained.items())


def test_the_loss_of_a_step_has_the_softmax_cross_entropy_beside_those_of_the_classifier(index_path):
    task = task_of(index_path)
    batch = batch_of(task)
    batch["targets"][1] = 0  # a negative image counts in the mean
    found = task.losses(task.model, batch, task.counts(batch), 1.0)
    assert list(found) == ["image", "word", "word_to_image", "decov", "recam"]
    with torch.no_grad():
        features = features_written_out(task.model.features(batch["images"]), task.model.image_head.weight)
        expected = loss_written_out(features @ task.model.recam_head.weight.T, batch["targets"]).sum() / 4
    assert found["recam"].item() == pytest.approx(expected.item(), rel=1e-9)
    half = build_task(with_weight(tiny_spec("recam-L", index_path, index_path.parent), 0.5))
    half.model.double()
    assert half.losses(half.model, batch, half.counts(batch), 1.0)["recam"].item() == pytest.approx(expected.item() / 2, rel=1e-9)


def test_all_but_the_new_head_learn_at_the_lower_rate(index_path):
    task = task_of(index_path)
    known, new = task.parameter_groups()
    assert new["lr"] == pytest.approx(known["lr"] * task.optimiser.head_lr_mult)
    assert new["params"] == [task.model.recam_head.weight]
    trained = {id(parameter) for parameter in task.model.parameters() if parameter.requires_grad}
    assert {id(parameter) for parameter in (*known["params"], *new["params"])} == trained


def test_the_memory_bank_goes_on_from_that_of_the_classifier(index_path, tmp_path):
    train_to_end(tiny_spec("recam-M", index_path, tmp_path, 2))
    before, after = weights(index_path.parent / "classifier-memory"), weights(tmp_path)
    moved = (after["codebook.codewords"] - before["codebook.codewords"]).norm(dim=1) / before["codebook.codewords"].norm(dim=1)
    # two steps with rho = 0.1 towards features; a bank that starts anew would be features altogether
    cosine = torch.nn.functional.cosine_similarity(after["codebook.codewords"], before["codebook.codewords"].double())
    assert (moved > 0).any()
    assert (cosine > 0.99).any()


@pytest.mark.parametrize("kind", ["recam-L", "recam-M"])
def test_a_resumed_training_ends_with_the_same_bits(index_path, tmp_path, kind):
    asked = iter(range(1000))
    _, stopped = train_to_end(tiny_spec(kind, index_path, tmp_path / "cut"), FLOAT64, Callbacks(should_stop=lambda: next(asked) == 3))
    assert not stopped.finished
    train_to_end(tiny_spec(kind, index_path, tmp_path / "cut"))
    train_to_end(tiny_spec(kind, index_path, tmp_path / "whole"))
    assert metrics(tmp_path / "cut") == metrics(tmp_path / "whole")
    whole = weights(tmp_path / "whole")
    assert all(torch.equal(value, whole[name]) for name, value in weights(tmp_path / "cut").items())


def test_its_scores_are_of_the_new_maps_and_have_no_probe(index_path, tmp_path):
    task, result = train_to_end(tiny_spec("recam-L", index_path, tmp_path))
    assert {"val_map", "val_cam_miou"} <= set(result.scores)
    assert not any(name.startswith("probe") for name in result.scores)
    recam_scores = task.evaluate()
    with torch.no_grad():
        task.model.recam_head.weight.fill_(1)  # the product is then the classifier's own weight
    plain = task.evaluate()
    assert recam_scores["val_map"] == plain["val_map"]
    assert recam_scores["val_cam_best_miou"] != plain["val_cam_best_miou"]


def test_damaged_weights_of_the_classifier_are_named(index_path, tmp_path):
    spec = tiny_spec("recam-L", index_path, tmp_path)
    (tmp_path / "classifier").mkdir()
    (tmp_path / "classifier" / "weights.pt").write_bytes((index_path.parent / "classifier-learning" / "weights.pt").read_bytes()[:-99])
    with pytest.raises(VwlError, match=r"classifier/weights\.pt is damaged"):
        build_task(TrainSpec(**{**vars(spec), "reads": spec.folder / "classifier"}))
