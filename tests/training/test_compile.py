"""A training whose network `torch.compile` has compiled gives the losses and weights of one that it has not."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.trainings import FLOAT64, make_data, metrics, tiny_spec, train_to_end, weights


@pytest.mark.drill
@pytest.mark.timeout(600)
def test_a_compiled_training_gives_the_same_numbers(tmp_path):
    index_path = make_data(tmp_path, num_val=0)
    train_to_end(tiny_spec("classifier-M", index_path, tmp_path / "plain", 3))
    torch._dynamo.reset()
    train_to_end(tiny_spec("classifier-M", index_path, tmp_path / "compiled", 3), replace(FLOAT64, compile=True))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 0
    losses = [[line["loss"] for line in metrics(tmp_path / name) if "loss" in line] for name in ("plain", "compiled")]
    np.testing.assert_allclose(*losses, rtol=1e-9)
    expected = weights(tmp_path / "plain")
    assert all(name in expected for name in weights(tmp_path / "compiled"))
    for name, value in weights(tmp_path / "compiled").items():
        torch.testing.assert_close(value, expected[name], rtol=1e-9, atol=1e-9)
