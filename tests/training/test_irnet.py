from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainings import make_data, metrics, tiny_spec, train_to_end, weights
from vwl.constants import IGNORE
from vwl.data.index import read_index
from vwl.models.affinity_loss import affinity_loss_sums, affinity_loss_terms, pair_affinities, pair_labels
from vwl.storage.folder import Folder
from vwl.training.build import build_task
from vwl.training.irnet import IrnetTask
from vwl.training.task import Sample

RADIUS = 5


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("irnet"), num_val=0)


@pytest.fixture
def task(index_path) -> IrnetTask:
    return task_of(index_path)


def task_of(index_path: Path, seed: int = 3) -> IrnetTask:
    recipe = tiny_spec("irnet", index_path, index_path.parent).recipe.model_copy(update={"seed": seed})
    index = read_index(index_path)
    return IrnetTask(recipe, index, index.rows, Folder(index_path.parent / "scenes" / "masks"))


def batch_of(task: IrnetTask, *numbers: int) -> Sample:
    samples = [task.sample(number, 0) for number in numbers]
    return {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}


def sample_key(sample: Sample) -> tuple[float, float]:
    weights = torch.linspace(1, 2, sample["images"].numel())
    return float((sample["images"].flatten() * weights).sum()), float((sample["labels"].flatten() * weights[: 16 * 16]).sum())


def test_samples_depend_on_seed_epoch_and_image_only(index_path, task):
    again, other_seed = task_of(index_path), task_of(index_path, seed=4)
    again.rows = again.rows[::-1]
    there = [sample_key(task.sample(number, epoch)) for epoch in (0, 1) for number in range(8)]
    assert there == [sample_key(again.sample(7 - number, epoch)) for epoch in (0, 1) for number in range(8)]
    assert len(set(there)) == 16
    assert not set(there) & {sample_key(other_seed.sample(number, 0)) for number in range(8)}


def test_labels_lie_on_the_stride_4_grid_under_their_pixels(task):
    padded = 0
    for number in range(8):
        sample = task.sample(number, 0)
        assert sample["images"].shape == (3, 64, 64)
        assert sample["labels"].shape == (16, 16)
        assert set(sample["labels"].unique().tolist()) <= {0, 1, 2, IGNORE}
        unknown = (sample["images"] == 0).all(dim=0)[2::4, 2::4]
        assert torch.equal(unknown, sample["labels"] == IGNORE)
        padded += bool(unknown.any())
    assert padded


def test_the_loss_is_the_affinity_loss_of_the_whole_batch(task):
    batch = batch_of(task, 0, 1, 2, 3)
    terms = task.losses(task.model, batch, task.counts(batch), part=1)
    edge = torch.sigmoid(task.model(batch["images"]))
    pairs = pair_labels(batch["labels"], RADIUS, 3)
    counts = torch.stack([mask.sum() for mask in pairs]).double()
    assert counts.min() > 0
    torch.testing.assert_close(task.counts(batch), counts)
    expected = sum(affinity_loss_terms(affinity_loss_sums(pair_affinities(edge, RADIUS), pairs), counts))
    torch.testing.assert_close(terms["attract"] + terms["repel"], expected)


def test_shares_of_any_split_add_up_to_the_loss_of_the_batch(task):
    batch, parts = batch_of(task, 0, 1, 2, 3), [batch_of(task, 0), batch_of(task, 1, 2), batch_of(task, 3)]
    counts = task.counts(batch)
    torch.testing.assert_close(sum(task.counts(part) for part in parts), counts)
    whole = task.losses(task.model, batch, counts, part=1)
    for name, value in whole.items():
        shares = sum(task.losses(task.model, part, counts, part=1 / 3)[name] for part in parts)
        torch.testing.assert_close(shares, value, rtol=1e-5, atol=1e-7)


def test_a_batch_without_any_known_pixel_has_no_loss_and_no_gradient(task):
    batch = batch_of(task, 0)
    batch["labels"].fill_(IGNORE)
    loss = sum(task.losses(task.model, batch, task.counts(batch), part=1).values())
    loss.backward()
    assert loss == 0
    assert all(torch.all(parameter.grad == 0) for parameter in task.model.new_parameters())


def test_only_the_head_is_optimised(task):
    (group,) = task.parameter_groups()
    assert {id(p) for p in group["params"]} == {id(p) for p in task.model.new_parameters()}
    assert group["lr"] == 0.1
    assert group["weight_decay"] == 1e-4


def test_training_moves_all_of_the_head_and_nothing_of_the_backbone(index_path, tmp_path):
    spec = tiny_spec("irnet", index_path, tmp_path)
    before = {name: value.double() for name, value in build_task(spec).model.state_dict().items()}
    task, _ = train_to_end(spec)
    moved = {name for name, value in weights(tmp_path).items() if not torch.equal(value, before[name])}
    assert moved == {name for name, _ in task.model.named_parameters() if not name.startswith("backbone.")}


def test_boundaries_are_learned(index_path, tmp_path):
    train_to_end(tiny_spec("irnet", index_path, tmp_path, num_steps=40))
    losses = [line["loss"] for line in metrics(tmp_path)]
    assert np.mean(losses[-4:]) < 0.95 * np.mean(losses[:4])
