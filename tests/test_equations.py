"""Every equation of the paper, (1) to (15): its transcription (`tests/equations.py`) against the package."""

import math
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from tests.equations import (
    eq1_class_activation,
    eq2_similarity,
    eq3_probability,
    eq4_assignments,
    eq5_frequency,
    eq6_new_codewords,
    eq7_moved,
    eq8_maximum,
    eq9_average,
    eq10_hybrid,
    eq11_classification,
    eq13_decov,
    word_label,
)
from tests.trainings import RECIPE, make_data, with_changes
from vwl.config.recipe import Codebook as Settings
from vwl.data.index import read_index
from vwl.maps.cam import class_activation
from vwl.models.codebook import Codebook
from vwl.models.hybrid_pooling import LEVELS, global_average, grid_maximum, hybrid_pooling
from vwl.models.losses import decov, soft_margin
from vwl.training.classifier import ClassifierTask

PIXELS, DIM, NUM_CODEWORDS, CLASSES = 12, 5, 4, 3


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def grid(features: np.ndarray) -> torch.Tensor:
    """Return features (..., h, w, d), as in the paper, as a tensor (B, d, h, w)."""
    return torch.from_numpy(np.moveaxis(features.reshape(-1, *features.shape[-3:]), -1, 1).copy())


def codebook(values: np.ndarray, **settings) -> Codebook:
    book = Codebook(Settings(num_codewords=len(values), **settings), values.shape[1]).double()
    with torch.no_grad():
        book.codewords.copy_(torch.from_numpy(values))
    return book


def test_equation_1_class_activation(rng):
    features, weight = rng.normal(size=(3, 4, DIM)), rng.normal(size=(CLASSES, DIM))
    maps = class_activation(grid(features), torch.from_numpy(weight))
    np.testing.assert_allclose(maps[0], eq1_class_activation(features, weight), atol=1e-12)
    assert (maps == 0).any()


@pytest.mark.parametrize("temperature", [0.3, 1.0, 20.0])
def test_equations_2_and_3_similarity_and_probability(rng, temperature):
    """An image of one pixel has that pixel's probabilities as its histogram."""
    features, codewords = rng.normal(size=(PIXELS, DIM)), rng.normal(size=(NUM_CODEWORDS, DIM))
    encoding = codebook(codewords, temperature=temperature)(grid(features[:, None, None]))
    np.testing.assert_allclose(encoding.histogram.detach(), eq3_probability(eq2_similarity(features, codewords), temperature), atol=1e-12)


def test_equation_4_and_the_word_label(rng):
    features, codewords = rng.normal(size=(2, 3, 4, DIM)), rng.normal(size=(3 * NUM_CODEWORDS, DIM))
    encoding = codebook(codewords)(grid(features))
    for image, found, label in zip(features, encoding.assignments, encoding.labels, strict=True):
        expected = eq4_assignments(eq3_probability(eq2_similarity(image.reshape(-1, DIM), codewords), 1.0))
        assert found.flatten().tolist() == expected
        assert label.tolist() == word_label(expected, len(codewords)).tolist()
        assert 0 in label  # a codeword that no pixel is assigned to


@pytest.mark.parametrize(("histogram", "factor"), [("mean", 1), ("sum", PIXELS)])
def test_equation_5_frequency(rng, histogram, factor):
    features, codewords = rng.normal(size=(2, 3, 4, DIM)), rng.normal(size=(NUM_CODEWORDS, DIM))
    encoding = codebook(codewords, histogram=histogram, temperature=2.0)(grid(features))
    for image, found in zip(features, encoding.histogram, strict=True):
        expected = factor * eq5_frequency(eq3_probability(eq2_similarity(image.reshape(-1, DIM), codewords), 2.0))
        np.testing.assert_allclose(found.detach(), expected, atol=1e-12)


@pytest.mark.parametrize("unused_codewords", ["keep", "decay"])
def test_equations_6_and_7_memory_bank(rng, unused_codewords):
    features, codewords = rng.normal(size=(2, 3, 4, DIM)), rng.normal(size=(2 * NUM_CODEWORDS, DIM))
    book = codebook(codewords, strategy="memory", momentum=0.3, unused_codewords=unused_codewords)
    assignments = [3, 0, 3, 5] * 6  # codewords 1, 2, 4, 6 and 7 have no pixels
    book.update(book.assigned_sums(grid(features), torch.tensor(assignments).view(2, 3, 4)))
    new_codewords, counts = eq6_new_codewords(features.reshape(-1, DIM), assignments, len(codewords))
    expected = eq7_moved(codewords, new_codewords, 0.3)
    if unused_codewords == "keep":
        expected[counts == 0] = codewords[counts == 0]
    np.testing.assert_allclose(book.codewords, expected, atol=1e-12)
    directions = F.cosine_similarity(book.codewords, torch.from_numpy(codewords)).numpy()
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
    codewords = rng.normal(size=(NUM_CODEWORDS, DIM))
    assert decov(torch.from_numpy(codewords)).item() == pytest.approx(eq13_decov(codewords), rel=1e-12)


def test_a_fresh_codebook_has_the_spread_and_the_decov_of_the_published_one():
    torch.manual_seed(0)
    codewords = Codebook(Settings(num_codewords=256), 2048).codewords.detach().double()
    assert codewords.std().item() == pytest.approx(0.012758, rel=0.005)
    assert decov(codewords, squared=False).item() == pytest.approx(0.1607, rel=0.01)
    assert decov(codewords, squared=True).item() == pytest.approx(1.767, rel=0.02)
    true_covariance = codewords / math.sqrt(2047)
    assert decov(true_covariance, squared=True).item() == pytest.approx(4.2e-7, rel=0.02)


# The losses of the whole network: Eqs. 12, 14 and 15.


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("equations"), num_val=0)


def tiny_task(index_path: Path, **settings) -> ClassifierTask:
    codebook = {"num_codewords": NUM_CODEWORDS, **settings.pop("codebook", {})}
    recipe = with_changes(RECIPE, classifier=with_changes(RECIPE.classifier, codebook=codebook, **settings))
    index = read_index(index_path)
    return ClassifierTask(recipe, index, index.rows, index.rows[:0])


def batch_of(rng: np.random.Generator, num_images: int = 3) -> dict[str, torch.Tensor]:
    """Return a batch of random images; the right half of the first one is padding."""
    valid = torch.ones(num_images, 64, 64, dtype=torch.bool)
    valid[0, :, 32:] = False
    targets = torch.tensor([[1.0, 0.0], [1.0, 1.0], [0.0, 1.0]]).double()[:num_images]
    return {"images": torch.from_numpy(rng.normal(size=(num_images, 3, 64, 64))), "targets": targets, "valid": valid}


def losses_of(task: ClassifierTask, batch: dict[str, torch.Tensor]) -> dict[str, float]:
    counts = torch.tensor([len(batch["targets"])], dtype=torch.float64)
    return {name: value.item() for name, value in task.losses(task.model.double(), batch, counts, part=1.0).items()}


def transcribed_losses(task: ClassifierTask, batch: dict[str, torch.Tensor], cells: list[np.ndarray]) -> dict[str, float]:
    """Return the loss terms computed from the features F of a batch; `cells` (h, w) bool of each image are assigned to codewords."""
    model = task.model.double()
    with torch.no_grad():
        features = model.features(batch["images"]).permute(0, 2, 3, 1).numpy()
    codewords, temperature = model.codebook.codewords.detach().numpy(), task.settings.codebook.temperature
    learning = task.settings.codebook.strategy == "learning"
    terms = {"image": 0.0, "word": 0.0, **({"word_to_image": 0.0} if learning else {})}
    for image, target, inside in zip(features, batch["targets"].numpy(), cells, strict=True):
        pooled = eq10_hybrid(image, task.settings.gap_weight)
        probability = eq3_probability(eq2_similarity(image[inside], codewords), temperature)
        label = word_label(eq4_assignments(probability), len(codewords))
        terms["image"] += eq11_classification(model.image_head.weight.detach().numpy() @ pooled, target)
        terms["word"] += eq11_classification(model.word_head.weight.detach().numpy() @ eq9_average(image), label)
        if learning:
            scores = model.word_to_image_head.weight.detach().numpy() @ eq5_frequency(probability)
            terms["word_to_image"] += eq11_classification(scores, target)
    terms = {name: value / len(features) for name, value in terms.items()}
    return {**terms, "decov": eq13_decov(codewords)} if learning else terms


EVERYWHERE, LEFT = np.ones((4, 4), bool), np.arange(4)[None].repeat(4, 0) < 2


def test_equation_12_the_loss_with_a_memory_bank(index_path, rng):
    task, batch = tiny_task(index_path, codebook={"strategy": "memory"}), batch_of(rng)
    losses = losses_of(task, batch)
    assert set(losses) == {"image", "word"}
    assert losses == pytest.approx(transcribed_losses(task, batch, [LEFT, EVERYWHERE, EVERYWHERE]), rel=1e-12)


def test_equations_14_and_15_the_loss_of_the_learning_based_strategy(index_path, rng):
    task, batch = tiny_task(index_path, codebook={"temperature": 3.0}), batch_of(rng)
    losses, expected = losses_of(task, batch), transcribed_losses(task, batch, [LEFT, EVERYWHERE, EVERYWHERE])
    assert losses["word_to_image"] + losses["decov"] == pytest.approx(expected["word_to_image"] + expected["decov"], rel=1e-12)  # Eq. 14
    assert losses == pytest.approx(expected, rel=1e-12)
    assert sum(losses.values()) == pytest.approx(sum(expected.values()), rel=1e-12)  # Eq. 15


def test_padding_is_assigned_to_codewords_if_the_recipe_says_so(index_path, rng):
    task, batch = tiny_task(index_path, codebook={"assign_padding": True}), batch_of(rng)
    losses = losses_of(task, batch)
    assert losses == pytest.approx(transcribed_losses(task, batch, [EVERYWHERE] * 3), rel=1e-12)
    assert losses["word_to_image"] != pytest.approx(losses_of(tiny_task(index_path), batch)["word_to_image"], rel=1e-9)


def test_tau_changes_the_histogram_and_never_the_word_labels(index_path, rng):
    batch, encodings, losses = batch_of(rng), [], []
    for temperature in (0.1, 1.0, 50.0):
        task = tiny_task(index_path, codebook={"temperature": temperature})
        losses.append(losses_of(task, batch))
        with torch.no_grad():
            encodings.append(task.model(batch["images"], batch["valid"]).encoding)
    for one, other in pairwise(encodings):
        assert torch.equal(one.assignments, other.assignments)
        assert torch.equal(one.labels, other.labels)
        assert not torch.allclose(one.histogram, other.histogram, rtol=1e-6)
    assert len({loss["word"] for loss in losses}) == 1
    assert len({loss["word_to_image"] for loss in losses}) == 3


def test_tau_has_no_effect_at_all_on_the_losses_with_a_memory_bank(index_path, rng):
    batch = batch_of(rng)
    tasks = [tiny_task(index_path, codebook={"strategy": "memory", "temperature": tau}) for tau in (0.1, 1.0, 50.0)]
    assert len({tuple(losses_of(task, batch).values()) for task in tasks}) == 1


def test_without_a_codebook_the_loss_is_that_of_the_image_labels(index_path, rng):
    task, batch = tiny_task(index_path, codebook={"strategy": "none"}, pooling="gap"), batch_of(rng)
    with torch.no_grad():
        features = task.model.double().features(batch["images"]).permute(0, 2, 3, 1).numpy()
    weight = task.model.image_head.weight.detach().numpy()
    expected = [eq11_classification(weight @ eq9_average(f), y) for f, y in zip(features, batch["targets"].numpy(), strict=True)]
    assert losses_of(task, batch) == pytest.approx({"image": np.mean(expected)}, rel=1e-12)
