"""The effect of tau (Eq. 3): it never changes the assignments (Eq. 4), so it acts through the word-to-image loss only."""

from dataclasses import replace

import pytest
import torch

from tests.trainings import make_data, metrics, tiny_spec, train_to_end, weights, with_changes
from vwl.config.recipe import Codebook as Settings
from vwl.models.codebook import Codebook

TEMPERATURES = (0.6, 1.2)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_data(tmp_path_factory.mktemp("data"), num_val=0)


def trained(data, folder, kind, temperature, num_steps):
    spec = tiny_spec(kind, data, folder, num_steps)
    settings = with_changes(spec.recipe.classifier, codebook={"temperature": temperature})
    train_to_end(replace(spec, recipe=with_changes(spec.recipe, classifier=settings)))
    return folder


def test_tau_does_not_change_the_assignments():
    torch.manual_seed(0)
    features, codewords = torch.randn(2, 8, 5, 6), torch.randn(16, 8)
    low, high = (Codebook(Settings(num_codewords=16, temperature=t), 8) for t in TEMPERATURES)
    for book in (low, high):
        book.codewords.data.copy_(codewords)
    low, high = low(features), high(features)
    assert torch.equal(low.assignments, high.assignments)
    assert torch.equal(low.labels, high.labels)
    assert not torch.allclose(low.histogram, high.histogram)


def test_with_the_learning_based_codebook_tau_changes_the_word_to_image_loss_only(data, tmp_path):
    # After the first step the weights differ, and with them everything; so the first step's losses are compared.
    low, high = (metrics(trained(data, tmp_path / str(t), "classifier-L", t, num_steps=2))[0] for t in TEMPERATURES)
    losses = [name for name in low if name.startswith("loss_")]
    assert set(losses) == {"loss_image", "loss_word", "loss_word_to_image", "loss_decov"}
    assert [name for name in losses if low[name] != high[name]] == ["loss_word_to_image"]


def test_with_the_memory_bank_tau_changes_nothing_at_all(data, tmp_path):
    low, high = (trained(data, tmp_path / str(t), "classifier-M", t, num_steps=4) for t in TEMPERATURES)
    assert metrics(low) == metrics(high)
    ours, theirs = weights(low), weights(high)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []


def test_with_the_learning_based_codebook_tau_changes_the_trained_codewords(data, tmp_path):
    low, high = (weights(trained(data, tmp_path / str(t), "classifier-L", t, num_steps=4)) for t in TEMPERATURES)
    assert not torch.equal(low["codebook.codewords"], high["codebook.codewords"])
