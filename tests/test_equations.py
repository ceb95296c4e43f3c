"""Every equation of the paper, (1) to (15), and Algorithm 1, as printed: loops over pixels, words and classes in NumPy against the package.

Where the print cannot be meant literally, the transcription says so: Eq. 6 (D), Eq. 11 (sign).
"""

import math
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tests.trainings import BATCH, RECIPE, STEPS_PER_EPOCH, make_data, metrics, weights
from vwl.data.index import read_index
from vwl.data.sampler import generator, global_batch
from vwl.losses import decov, soft_margin
from vwl.maps.cam import class_activation
from vwl.models import classifier as classifier_model
from vwl.models.codebook import Codebook
from vwl.models.hybrid_pooling import LEVELS, global_average, grid_maximum, hybrid_pooling
from vwl.recipe import Classifier as Settings
from vwl.recipe import Recipe
from vwl.store import Folder
from vwl.training import loop
from vwl.training.classifier import ClassifierTask
from vwl.training.distributed import Layout

PIXELS, DIM, WORDS, CLASSES = 12, 5, 4, 3

# The paper, transcribed. Features are (hw, d) for the words and (h, w, d) for the pooling, as there.


def eq1_class_activation(features: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """M_c of features (h, w, d) and the classifier (C, d), after the ReLU: (C, h, w)."""
    height, width, dim = features.shape
    maps = np.zeros((len(weight), height, width))
    for c in range(len(weight)):
        for y in range(height):
            for x in range(width):
                score = 0.0
                for i in range(dim):
                    score += weight[c, i] * features[y, x, i]
                maps[c, y, x] = max(score, 0)
    return maps


def eq2_similarity(features: np.ndarray, words: np.ndarray) -> np.ndarray:
    similarity = np.zeros((len(features), len(words)))
    for i, pixel in enumerate(features):
        for j, word in enumerate(words):
            similarity[i, j] = (pixel @ word) / (math.sqrt(pixel @ pixel) * math.sqrt(word @ word))
    return similarity


def eq3_probability(similarity: np.ndarray, temperature: float) -> np.ndarray:
    probability = np.zeros_like(similarity)
    for i in range(len(similarity)):
        total = sum(math.exp(temperature * s) for s in similarity[i])
        for j in range(similarity.shape[1]):
            probability[i, j] = math.exp(temperature * similarity[i, j]) / total
    return probability


def eq4_words(probability: np.ndarray) -> list[int]:
    return [int(np.argmax(row)) for row in probability]


def word_label(words: list[int], num_words: int) -> np.ndarray:
    return np.array([float(j in words) for j in range(num_words)])


def eq5_frequency(probability: np.ndarray) -> np.ndarray:
    return sum(probability) / len(probability)


def eq6_new_words(features: np.ndarray, words: list[int], num_words: int) -> tuple[np.ndarray, np.ndarray]:
    """C' and the pixels of each word. D is the matrix of counts: with the printed reciprocals D^-1 would multiply by them."""
    one_hot = np.eye(num_words)[words]
    counts = one_hot.sum(axis=0)
    degree = np.diag(np.where(counts > 0, counts, 1))
    return np.linalg.inv(degree) @ one_hot.T @ features, counts


def eq7_moved(words: np.ndarray, new_words: np.ndarray, momentum: float) -> np.ndarray:
    return momentum * new_words + (1 - momentum) * words


def eq8_maximum(features: np.ndarray, split: int) -> np.ndarray:
    """f_max of features (h, w, d) whose sides are divisible by `split`."""
    height, width, dim = features.shape[0] // split, features.shape[1] // split, features.shape[2]
    total = np.zeros(dim)
    for i in range(split):
        for j in range(split):
            total += features[i * height : (i + 1) * height, j * width : (j + 1) * width].reshape(-1, dim).max(axis=0)
    return total / split**2


def eq9_average(features: np.ndarray) -> np.ndarray:
    height, width, dim = features.shape
    total = np.zeros(dim)
    for i in range(height):
        for j in range(width):
            total += features[i, j]
    return total / (height * width)


def eq10_hybrid(features: np.ndarray, gap_weight: float) -> np.ndarray:
    return (sum(eq8_maximum(features, split) for split in (1, 2, 4)) + gap_weight * eq9_average(features)) / (gap_weight + 3)


def eq11_classification(logits: np.ndarray, target: np.ndarray) -> float:
    """L_cls with the minus sign that the print lacks: without it, training would drive the scores away from the labels."""
    total = 0.0
    for p, y in zip(logits, target, strict=True):
        total += y * math.log(math.exp(p) / (1 + math.exp(p))) + (1 - y) * math.log(1 / (1 + math.exp(p)))
    return -total / len(logits)


def eq13_decov(words: np.ndarray) -> float:
    """Of the covariance between words, summed (not averaged) over the feature dimensions."""
    covariance = np.zeros((len(words), len(words)))
    for i, one in enumerate(words):
        for j, other in enumerate(words):
            covariance[i, j] = sum((one - one.mean()) * (other - other.mean()))
    return 0.5 * (np.linalg.norm(covariance, "fro") ** 2 - np.linalg.norm(np.diag(covariance)) ** 2)


# The package against them.


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def grid(features: np.ndarray) -> torch.Tensor:
    """Features (..., h, w, d) of the paper as (B, d, h, w)."""
    return torch.from_numpy(np.moveaxis(features.reshape(-1, *features.shape[-3:]), -1, 1).copy())


def codebook(values: np.ndarray, **settings) -> Codebook:
    book = Codebook(Settings(num_words=len(values), **settings), values.shape[1]).double()
    with torch.no_grad():
        book.words.copy_(torch.from_numpy(values))
    return book


def test_equation_1_class_activation(rng):
    features, weight = rng.normal(size=(3, 4, DIM)), rng.normal(size=(CLASSES, DIM))
    maps = class_activation(grid(features), torch.from_numpy(weight))
    np.testing.assert_allclose(maps[0], eq1_class_activation(features, weight), atol=1e-12)
    assert (maps == 0).any()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 20.0])
def test_equations_2_and_3_similarity_and_probability(rng, temperature):
    """An image of one pixel has that pixel's probabilities as its histogram."""
    features, words = rng.normal(size=(PIXELS, DIM)), rng.normal(size=(WORDS, DIM))
    encoding = codebook(words, temperature=temperature)(grid(features[:, None, None]))
    np.testing.assert_allclose(encoding.histogram.detach(), eq3_probability(eq2_similarity(features, words), temperature), atol=1e-12)


def test_equation_4_and_the_word_label(rng):
    features, words = rng.normal(size=(2, 3, 4, DIM)), rng.normal(size=(3 * WORDS, DIM))
    encoding = codebook(words)(grid(features))
    for image, found, label in zip(features, encoding.words, encoding.labels, strict=True):
        expected = eq4_words(eq3_probability(eq2_similarity(image.reshape(-1, DIM), words), 1.0))
        assert found.flatten().tolist() == expected
        assert label.tolist() == word_label(expected, len(words)).tolist()
        assert 0 in label  # a word that no pixel took


@pytest.mark.parametrize(("histogram", "factor"), [("mean", 1), ("sum", PIXELS)])
def test_equation_5_frequency(rng, histogram, factor):
    features, words = rng.normal(size=(2, 3, 4, DIM)), rng.normal(size=(WORDS, DIM))
    encoding = codebook(words, histogram=histogram, temperature=2.0)(grid(features))
    for image, found in zip(features, encoding.histogram, strict=True):
        expected = factor * eq5_frequency(eq3_probability(eq2_similarity(image.reshape(-1, DIM), words), 2.0))
        np.testing.assert_allclose(found.detach(), expected, atol=1e-12)


@pytest.mark.parametrize("absent_words", ["keep", "decay"])
def test_equations_6_and_7_memory_bank(rng, absent_words):
    features, words = rng.normal(size=(2, 3, 4, DIM)), rng.normal(size=(2 * WORDS, DIM))
    book = codebook(words, words="memory", bank_momentum=0.3, absent_words=absent_words)
    taken = [3, 0, 3, 5] * 6  # words 1, 2, 4, 6 and 7 are taken by no pixel
    book.update(book.sums(grid(features), torch.tensor(taken).view(2, 3, 4)))
    new_words, counts = eq6_new_words(features.reshape(-1, DIM), taken, len(words))
    expected = eq7_moved(words, new_words, 0.3)
    if absent_words == "keep":
        expected[counts == 0] = words[counts == 0]
    np.testing.assert_allclose(book.words, expected, atol=1e-12)
    directions = F.cosine_similarity(book.words, torch.from_numpy(words)).numpy()
    np.testing.assert_allclose(directions[counts == 0], 1, atol=1e-12)


@pytest.mark.parametrize("size", [(4, 4), (8, 4), (12, 16)])
def test_equations_8_to_10_hybrid_pooling(rng, size):
    features = rng.normal(size=(*size, DIM))
    for split in LEVELS:
        np.testing.assert_allclose(grid_maximum(grid(features), split)[0], eq8_maximum(features, split), atol=1e-12)
    np.testing.assert_allclose(global_average(grid(features))[0], eq9_average(features), atol=1e-12)
    for gap_weight in (0, 2, 3.5):
        np.testing.assert_allclose(hybrid_pooling(grid(features), gap_weight)[0], eq10_hybrid(features, gap_weight), atol=1e-12)


def test_equation_11_classification_loss(rng):
    logits, targets = rng.normal(size=(6, CLASSES)) * 4, rng.integers(0, 2, (6, CLASSES)).astype(float)
    losses = soft_margin(torch.from_numpy(logits), torch.from_numpy(targets))
    np.testing.assert_allclose(losses, [eq11_classification(p, y) for p, y in zip(logits, targets, strict=True)], atol=1e-12)
    reference = F.multilabel_soft_margin_loss(torch.from_numpy(logits), torch.from_numpy(targets))
    torch.testing.assert_close(losses.mean(), reference)


def test_equation_13_decov(rng):
    words = rng.normal(size=(WORDS, DIM))
    assert decov(torch.from_numpy(words)).item() == pytest.approx(eq13_decov(words), rel=1e-12)


def test_a_fresh_codebook_has_the_spread_and_the_decov_of_the_published_one():
    torch.manual_seed(0)
    words = Codebook(Settings(num_words=256), 2048).words.detach().double()
    assert words.std().item() == pytest.approx(0.012758, rel=0.005)
    assert decov(words, squared=False).item() == pytest.approx(0.1607, rel=0.01)
    assert decov(words, squared=True).item() == pytest.approx(1.767, rel=0.02)
    true_covariance = words / math.sqrt(2047)
    assert decov(true_covariance, squared=True).item() == pytest.approx(4.2e-7, rel=0.02)


# The losses of the whole network: Eqs. 12, 14 and 15.


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("equations"), num_val=0)


def tiny_task(index_path: Path, **settings) -> ClassifierTask:
    recipe = RECIPE.model_copy(update={"classifier": RECIPE.classifier.model_copy(update={"num_words": WORDS, **settings})})
    index = read_index(index_path)
    return ClassifierTask(recipe, index, list(index.rows), [])


def batch_of(rng: np.random.Generator, num_images: int = 3) -> dict[str, torch.Tensor]:
    """Random images whose right half is padding in the first of them."""
    valid = torch.ones(num_images, 64, 64, dtype=torch.bool)
    valid[0, :, 32:] = False
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]).double()[:num_images]
    return {"images": torch.from_numpy(rng.normal(size=(num_images, 3, 64, 64))), "targets": targets, "valid": valid}


def losses_of(task: ClassifierTask, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    counts = torch.tensor([len(batch["targets"])], dtype=torch.float64)
    return {name: value.item() for name, value in task.losses(task.model.double(), batch, counts, part=1.0).items()}


def transcribed_losses(task: ClassifierTask, batch: dict[str, torch.Tensor], cells: list[np.ndarray]) -> dict[str, float]:
    """The loss terms from the features F of a batch; `cells` (h, w) bool of each image take words."""
    model = task.model.double()
    with torch.no_grad():
        features = model.features(batch["images"]).permute(0, 2, 3, 1).numpy()
    words, temperature = model.codebook.words.detach().numpy(), task.settings.temperature
    learning = task.settings.words == "learning"
    terms = {"image": 0.0, "word": 0.0, **({"word_to_image": 0.0} if learning else {})}
    for image, target, inside in zip(features, batch["targets"].numpy(), cells, strict=True):
        pooled = eq10_hybrid(image, task.settings.gap_weight)
        probability = eq3_probability(eq2_similarity(image[inside], words), temperature)
        label = word_label(eq4_words(probability), len(words))
        terms["image"] += eq11_classification(model.image_head.weight.detach().numpy() @ pooled, target)
        terms["word"] += eq11_classification(model.word_head.weight.detach().numpy() @ eq9_average(image), label)
        if learning:
            scores = model.word_to_image_head.weight.detach().numpy() @ eq5_frequency(probability)
            terms["word_to_image"] += eq11_classification(scores, target)
    terms = {name: value / len(features) for name, value in terms.items()}
    return {**terms, "decov": eq13_decov(words)} if learning else terms


EVERYWHERE, LEFT = np.ones((4, 4), bool), np.arange(4)[None].repeat(4, 0) < 2


def test_equation_12_the_loss_with_a_memory_bank(index_path, rng):
    task, batch = tiny_task(index_path, words="memory"), batch_of(rng)
    losses = losses_of(task, batch)
    assert set(losses) == {"image", "word"}
    assert losses == pytest.approx(transcribed_losses(task, batch, [LEFT, EVERYWHERE, EVERYWHERE]), rel=1e-12)


def test_equations_14_and_15_the_loss_of_the_learning_based_strategy(index_path, rng):
    task, batch = tiny_task(index_path, words="learning", temperature=3.0), batch_of(rng)
    losses, expected = losses_of(task, batch), transcribed_losses(task, batch, [LEFT, EVERYWHERE, EVERYWHERE])
    assert losses["word_to_image"] + losses["decov"] == pytest.approx(expected["word_to_image"] + expected["decov"], rel=1e-12)  # Eq. 14
    assert losses == pytest.approx(expected, rel=1e-12)
    assert sum(losses.values()) == pytest.approx(sum(expected.values()), rel=1e-12)  # Eq. 15


def test_padding_takes_words_where_the_recipe_says_so(index_path, rng):
    task, batch = tiny_task(index_path, padding_takes_words=True), batch_of(rng)
    losses = losses_of(task, batch)
    assert losses == pytest.approx(transcribed_losses(task, batch, [EVERYWHERE] * 3), rel=1e-12)
    assert losses["word_to_image"] != pytest.approx(losses_of(tiny_task(index_path), batch)["word_to_image"], rel=1e-9)


def test_tau_changes_the_histogram_and_never_the_word_labels(index_path, rng):
    batch, encodings, losses = batch_of(rng), [], []
    for temperature in (0.1, 1.0, 50.0):
        task = tiny_task(index_path, temperature=temperature)
        losses.append(losses_of(task, batch))
        with torch.no_grad():
            encodings.append(task.model(batch["images"], batch["valid"]).encoding)
    for one, other in pairwise(encodings):
        assert torch.equal(one.words, other.words)
        assert torch.equal(one.labels, other.labels)
        assert not torch.allclose(one.histogram, other.histogram, rtol=1e-6)
    assert len({loss["word"] for loss in losses}) == 1
    assert len({loss["word_to_image"] for loss in losses}) == 3


def test_tau_has_no_effect_at_all_on_the_losses_with_a_memory_bank(index_path, rng):
    batch = batch_of(rng)
    assert len({tuple(losses_of(tiny_task(index_path, words="memory", temperature=tau), batch).values()) for tau in (0.1, 1.0, 50.0)}) == 1


def test_without_words_the_loss_is_that_of_the_image_labels(index_path, rng):
    task, batch = tiny_task(index_path, words="none", pooling="gap"), batch_of(rng)
    with torch.no_grad():
        features = task.model.double().features(batch["images"]).permute(0, 2, 3, 1).numpy()
    weight = task.model.image_head.weight.detach().numpy()
    expected = [eq11_classification(weight @ eq9_average(f), y) for f, y in zip(features, batch["targets"].numpy(), strict=True)]
    assert losses_of(task, batch) == pytest.approx({"image": np.mean(expected)}, rel=1e-12)


# Algorithm 1: whole trainings, with gradients by central differences of the transcribed loss.


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
    """F (h, w, d) of the patches' colours (h, w, 3)."""
    return np.maximum(patches @ theta.T, 0)


def algorithm1_loss(params: Params, words: np.ndarray, batch: list[tuple[np.ndarray, np.ndarray, np.ndarray]], codes: list) -> float:
    """Eq. 15 (Eq. 12 without `word_to_image_head`); `codes` are the features that the codebook sees, constants to the gradient."""
    learning = "word_to_image_head" in params
    words = params.get("words", words)
    total = 0.0
    for (patches, inside, target), code in zip(batch, codes, strict=True):
        features = patch_features(params["theta"], patches)
        probability = eq3_probability(eq2_similarity(code[inside], words), 1.0)
        total += eq11_classification(params["image_head"] @ eq10_hybrid(features, 2.0), target)
        label = word_label(eq4_words(probability), len(words))
        total += eq11_classification(params["word_head"] @ eq9_average(features), label)
        if learning:
            total += eq11_classification(params["word_to_image_head"] @ eq5_frequency(probability), target)
    return total / len(batch) + (eq13_decov(words) if learning else 0)


def central_differences(params: Params, loss) -> Params:
    gradients = {name: np.zeros_like(values) for name, values in params.items()}
    for name, values in params.items():
        for place in np.ndindex(values.shape):
            kept, step = values[place], 1e-5
            values[place] = kept + step
            above = loss(params)
            values[place] = kept - step
            gradients[name][place] = (above - loss(params)) / (2 * step)
            values[place] = kept
    return gradients


def algorithm1(task: ClassifierTask, num_steps: int) -> Iterator[tuple[float, Params, np.ndarray]]:
    """Train as the paper prints it; after each step give its loss, the parameters and the words."""
    settings, model = task.settings, task.model
    rate, momentum = settings.optimiser.learning_rate, settings.optimiser.momentum
    state = {name: value.double().numpy().copy() for name, value in model.state_dict().items()}
    params = {"theta": state["backbone.theta"], "image_head": state["image_head.weight"], "word_head": state["word_head.weight"]}
    words = state["codebook.words"]
    if settings.words == "learning":
        params |= {"words": words, "word_to_image_head": state["word_to_image_head.weight"]}
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
        if step == 0 and settings.words == "memory":
            words = seen[generator(task.seed, "first words").integers(0, len(seen), len(words))]
        taken = eq4_words(eq2_similarity(seen, words))

        def loss(values: Params, words=words, batch=batch, codes=codes) -> float:
            return algorithm1_loss(values, words, batch, codes)

        value, gradients = loss(params), central_differences(params, loss)
        for name, values in params.items():
            factor = 1 if name == "theta" else 10
            decay = (1 - step / num_steps) ** 0.9
            velocity[name] = momentum * velocity[name] + gradients[name] + settings.optimiser.weight_decay * values
            values -= rate * factor * decay * velocity[name]
        if settings.words == "memory":
            new_words, counts = eq6_new_words(seen, taken, len(words))
            words = np.where(counts[:, None] > 0, eq7_moved(words, new_words, settings.bank_momentum), words)
        yield value, params, words


@pytest.mark.parametrize("words", ["learning", "memory"])
def test_algorithm_1(index_path, tmp_path, monkeypatch, words):
    monkeypatch.setattr(classifier_model, "build_backbone", lambda *_, **__: Patches())
    monkeypatch.setattr(loop, "LOG_EVERY", 1)
    optimiser = Settings().optimiser.model_copy(update={"learning_rate": 0.05, "weight_decay": 0.01})
    settings = Settings(
        words=words, num_words=WORDS, batch_size=BATCH, crop=64, resize=(48, 96), epochs=2, bank_momentum=0.2, optimiser=optimiser
    )
    index = read_index(index_path)
    task = ClassifierTask(Recipe(classifier=settings), index, list(index.rows), [])
    expected = list(algorithm1(task, num_steps=2 * STEPS_PER_EPOCH))
    loop.train(task, Layout(micro_batch=2, precision="float64"), Folder(tmp_path), "equations")
    assert [line["loss"] for line in metrics(tmp_path)] == pytest.approx([value for value, _, _ in expected], rel=1e-8)
    trained, (_, params, last_words) = weights(tmp_path), expected[-1]
    for name, values in params.items():
        name = {"theta": "backbone.theta", "words": "codebook.words"}.get(name, f"{name}.weight")
        np.testing.assert_allclose(trained[name], values, rtol=1e-6, atol=1e-8, err_msg=name)
    np.testing.assert_allclose(trained["codebook.words"], last_words, rtol=1e-6, atol=1e-8)
