"""Algorithm 1: whole trainings as printed, with gradients by central differences of the transcribed loss, against the package."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests import equations as paper
from tests.trainings import BATCH, STEPS_PER_EPOCH, make_data, metrics, weights
from vwl.config.layout import Layout
from vwl.config.recipe import Backbone, Codebook, Recipe
from vwl.config.recipe import Classifier as Settings
from vwl.data.index import read_index
from vwl.data.sampler import generator, global_batch
from vwl.models import classifier as classifier_model
from vwl.storage.folder import Folder
from vwl.training import loop
from vwl.training.classifier import ClassifierTask

DIM, NUM_CODEWORDS = 5, 4


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("algorithm1"), num_val=0)


class Patches(nn.Module):
    """The smallest network E(I, theta): the mean colour of each 16 x 16 patch, one linear layer, a ReLU."""

    mean, std, channels = (0.5, 0.5, 0.5), (0.25, 0.25, 0.25), (DIM,)

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.randn(DIM, 3))

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        return [F.relu(F.conv2d(F.avg_pool2d(images, 16), self.theta[:, :, None, None]))]


Params = dict[str, np.ndarray]


def patch_features(theta: np.ndarray, patches: np.ndarray) -> np.ndarray:
    """Return F (h, w, d) of the patches' colours (h, w, 3)."""
    return np.maximum(patches @ theta.T, 0)


def algorithm1_loss(params: Params, codewords: np.ndarray, batch: list[tuple[np.ndarray, np.ndarray, np.ndarray]], codes: list) -> float:
    """Return the loss, Eq. 15 (Eq. 12 without `word_to_image_head`); `codes` are the features that the codebook sees, constants to the gradient."""
    learning = "word_to_image_head" in params
    codewords = params.get("codewords", codewords)
    total = 0.0
    for (patches, inside, target), code in zip(batch, codes, strict=True):
        features = patch_features(params["theta"], patches)
        probability = paper.eq3_probability(paper.eq2_similarity(code[inside], codewords), 1.0)
        total += paper.eq11_classification(params["image_head"] @ paper.eq10_hybrid(features, 2.0), target)
        label = paper.word_label(paper.eq4_assignments(probability), len(codewords))
        total += paper.eq11_classification(params["word_head"] @ paper.eq9_average(features), label)
        if learning:
            total += paper.eq11_classification(params["word_to_image_head"] @ paper.eq5_frequency(probability), target)
    return total / len(batch) + (paper.eq13_decov(codewords) if learning else 0)


def central_differences(params: Params, loss) -> Params:
    gradients = {name: np.zeros_like(values) for name, values in params.items()}
    for name, values in params.items():
        for index in np.ndindex(values.shape):
            kept, step = values[index], 1e-5
            values[index] = kept + step
            above = loss(params)
            values[index] = kept - step
            gradients[name][index] = (above - loss(params)) / (2 * step)
            values[index] = kept
    return gradients


def algorithm1(task: ClassifierTask, num_steps: int) -> Iterator[tuple[float, Params, np.ndarray]]:
    """Train as the paper prints it; after each step, yield its loss, the parameters and the codewords."""
    settings, model = task.settings, task.model
    rate, momentum = settings.optimiser.learning_rate, settings.optimiser.momentum
    state = {name: value.double().numpy().copy() for name, value in model.state_dict().items()}
    params = {"theta": state["backbone.theta"], "image_head": state["image_head.weight"], "word_head": state["word_head.weight"]}
    codewords = state["codebook.codewords"]
    if settings.codebook.strategy == "learning":
        params |= {"codewords": codewords, "word_to_image_head": state["word_to_image_head.weight"]}
    velocity = {name: np.zeros_like(values) for name, values in params.items()}
    for step in range(num_steps):
        epoch, numbers = global_batch(task.seed, step, task.num_samples, task.batch_size)
        batch = []
        for sample in (task.sample(int(number), epoch) for number in numbers):
            patches = F.avg_pool2d(sample["images"].double(), 16).permute(1, 2, 0).numpy()
            inside = F.avg_pool2d(sample["valid"][None].double(), 16)[0].numpy() >= 0.5
            batch.append((patches, inside, sample["targets"].double().numpy()))
        codes = [patch_features(params["theta"], patches) for patches, _, _ in batch]
        seen = np.concatenate([code[inside] for code, (_, inside, _) in zip(codes, batch, strict=True)])
        if step == 0 and settings.codebook.strategy == "memory":
            codewords = seen[generator(task.seed, "first words").integers(0, len(seen), len(codewords))]
        assignments = paper.eq4_assignments(paper.eq2_similarity(seen, codewords))

        def loss(values: Params, codewords=codewords, batch=batch, codes=codes) -> float:
            return algorithm1_loss(values, codewords, batch, codes)

        value, gradients = loss(params), central_differences(params, loss)
        for name, values in params.items():
            factor = 1 if name == "theta" else 10
            decay = (1 - step / num_steps) ** 0.9
            velocity[name] = momentum * velocity[name] + gradients[name] + settings.optimiser.weight_decay * values
            values -= rate * factor * decay * velocity[name]
        if settings.codebook.strategy == "memory":
            new_codewords, counts = paper.eq6_new_codewords(seen, assignments, len(codewords))
            codewords = np.where(counts[:, None] > 0, paper.eq7_moved(codewords, new_codewords, settings.codebook.momentum), codewords)
        yield value, params, codewords


@pytest.mark.parametrize("strategy", ["learning", "memory"])
def test_algorithm_1(index_path, tmp_path, monkeypatch, strategy):
    monkeypatch.setattr(classifier_model, "build_backbone", lambda *_, **__: Patches())
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    optimiser = Settings().optimiser.model_copy(update={"learning_rate": 0.05, "weight_decay": 0.01})
    codebook = Codebook(strategy=strategy, num_codewords=NUM_CODEWORDS, momentum=0.2)
    settings = Settings(
        backbone=Backbone(weights="none"), codebook=codebook, batch_size=BATCH, crop=64, resize=(48, 96), epochs=2, optimiser=optimiser
    )
    index = read_index(index_path)
    task = ClassifierTask(Recipe(classifier=settings), index, index.rows, index.rows[:0])
    expected = list(algorithm1(task, num_steps=2 * STEPS_PER_EPOCH))
    loop.train(task, Layout(micro_batch=2, precision="float64"), Folder(tmp_path), "equations")
    assert [line["loss"] for line in metrics(tmp_path)] == pytest.approx([value for value, _, _ in expected], rel=1e-8)
    trained, (_, params, last_codewords) = weights(tmp_path), expected[-1]
    for name, values in params.items():
        name = {"theta": "backbone.theta", "codewords": "codebook.codewords"}.get(name, f"{name}.weight")
        np.testing.assert_allclose(trained[name], values, rtol=1e-6, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(trained["codebook.codewords"], last_codewords, rtol=1e-6, atol=1e-8)
