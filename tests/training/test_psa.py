from pathlib import Path

import pytest
import torch

from tests.trainings import make_data, metrics, tiny_spec, train_to_end
from vwl.constants import IGNORE
from vwl.data.index import read_index
from vwl.models.affinity_loss import affinity_loss_sums, affinity_loss_terms, pair_feature_affinities, pair_labels
from vwl.training.build import build_task
from vwl.training.psa import PsaTask


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("psa"), num_val=0)


@pytest.fixture
def task(index_path) -> PsaTask:
    return build_task(tiny_spec("psa", index_path, index_path.parent))


def test_samples_depend_on_seed_epoch_and_image_only(index_path, task):
    again = build_task(tiny_spec("psa", index_path, index_path.parent))
    for number in range(8):
        first, second, other = task.sample(number, 0), again.sample(number, 0), task.sample(number, 1)
        assert torch.equal(first["images"], second["images"])
        assert torch.equal(first["labels"], second["labels"])
        assert not torch.equal(first["images"], other["images"])


def test_labels_lie_on_the_stride_8_grid(task):
    for number in range(8):
        sample = task.sample(number, 0)
        assert sample["images"].shape == (3, 64, 64)
        assert sample["labels"].shape == (8, 8)
        assert set(sample["labels"].unique().tolist()) <= {0, 1, 2, IGNORE}


def test_the_loss_of_a_step_is_that_of_its_batch(index_path, task):
    samples = [task.sample(number, 0) for number in range(4)]
    batch = {name: torch.stack([sample[name] for sample in samples]) for name in samples[0]}
    counts = task.counts(batch)
    found = sum(task.losses(task.model, batch, counts, 1.0).values())
    radius, num_classes = task.settings.radius, len(read_index(index_path).classes)
    pairs = pair_labels(batch["labels"], radius, num_classes)
    sums = affinity_loss_sums(pair_feature_affinities(task.model(batch["images"]), radius), pairs)
    assert float(found) == pytest.approx(float(sum(affinity_loss_terms(sums, counts))), rel=1e-6)


def test_backbone_and_head_have_their_own_learning_rates(task):
    backbone, head = task.parameter_groups()
    assert head["lr"] == pytest.approx(backbone["lr"] * task.optimiser.head_lr_mult)
    assert len(head["params"]) == 4
    assert all(parameter.requires_grad for parameter in backbone["params"])


def test_training_lowers_the_loss(index_path, tmp_path):
    train_to_end(tiny_spec("psa", index_path, tmp_path, 20))
    losses = [line["loss"] for line in metrics(tmp_path) if "loss" in line]
    assert sum(losses[-4:]) < sum(losses[:4])
