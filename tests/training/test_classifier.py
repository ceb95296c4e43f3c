from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainings import BATCH, make_data, metrics, tiny_spec, train_to_end, weights, with_changes
from vwl.data.index import read_index
from vwl.data.transforms import normalise, resize
from vwl.models.classifier import cells_inside
from vwl.training.build import build_task
from vwl.training.classifier import ClassifierTask, mean_average_precision
from vwl.training.task import Sample

STRATEGIES = ("learning", "memory")


@pytest.fixture(scope="module")
def index_path(tmp_path_factory) -> Path:
    return make_data(tmp_path_factory.mktemp("classifier"))


def task_of(index_path: Path, strategy: str = "learning", seed: int = 3, **settings) -> ClassifierTask:
    recipe = tiny_spec("classifier-L", index_path, index_path.parent).recipe
    codebook = {"strategy": strategy, **settings.pop("codebook", {})}
    classifier = with_changes(recipe.classifier, codebook=codebook, **settings)
    index = read_index(index_path)
    task = ClassifierTask(with_changes(recipe, classifier=classifier, seed=seed), index, index.split("train"), index.split("val"))
    task.model.double()
    return task


def batch_of(task: ClassifierTask, numbers: tuple[int, ...], epoch: int = 0) -> Sample:
    samples = [task.sample(number, epoch) for number in numbers]
    stacked = {key: torch.stack([sample[key] for sample in samples]) for key in samples[0]}
    return {key: value.double() if value.is_floating_point() else value for key, value in stacked.items()}


def pixels_inside(task: ClassifierTask, batch: Sample) -> torch.Tensor:
    with torch.no_grad():
        features = task.model.features(batch["images"])
    return features.permute(0, 2, 3, 1)[cells_inside(batch["valid"], features)]


class TestSamples:
    def test_they_depend_on_seed_epoch_and_image_only(self, index_path):
        task, again, other_seed = task_of(index_path), task_of(index_path), task_of(index_path, seed=4)
        again.rows = again.rows[::-1]
        there = [sample_key(task.sample(number, epoch)) for epoch in (0, 1) for number in range(8)]
        assert there == [sample_key(again.sample(7 - number, epoch)) for epoch in (0, 1) for number in range(8)]
        assert len(set(there)) == 16
        assert not set(there) & {sample_key(other_seed.sample(number, 0)) for number in range(8)}

    def test_they_are_crops_with_the_images_labels(self, index_path):
        task = task_of(index_path)
        padded = 0
        for number, row in enumerate(task.rows):
            sample = task.sample(number, 0)
            assert sample["images"].shape == (3, 64, 64)
            assert sample["images"].dtype == torch.float32
            assert [c + 1 for c in range(2) if sample["targets"][c]] == list(row.labels)
            assert torch.all(sample["images"][:, ~sample["valid"]] == 0)
            padded += bool((~sample["valid"]).any())
        assert padded

    def test_long_sides_are_drawn_from_the_closed_range(self, index_path):
        task = task_of(index_path, resize=(40, 42), crop=80)
        sides = {
            int(max(*sample["valid"].sum(0).max(dim=0, keepdim=True).values, sample["valid"].any(0).sum())) for sample in epochs(task, 6)
        }
        assert sides == {40, 41, 42}


def epochs(task: ClassifierTask, num: int) -> list[Sample]:
    return [task.sample(number, epoch) for epoch in range(num) for number in range(task.num_samples)]


def sample_key(sample: Sample) -> tuple[float, ...]:
    weights = torch.linspace(1, 2, sample["images"].numel())
    return (float((sample["images"].flatten() * weights).sum()), *sample["targets"].tolist(), int(sample["valid"].sum()))


class TestParameters:
    def test_heads_and_codebook_learn_at_ten_times_the_rate(self, index_path):
        task = task_of(index_path)
        old, new = task.parameter_groups()
        rate = task.optimiser.learning_rate
        assert (old["lr"], new["lr"]) == (rate, 10 * rate)
        assert old["weight_decay"] == new["weight_decay"] == task.optimiser.weight_decay
        names = {id(parameter): name for name, parameter in task.model.named_parameters()}
        assert {names[id(p)] for p in new["params"]} == {
            "codebook.codewords",
            "image_head.weight",
            "word_head.weight",
            "word_to_image_head.weight",
        }
        assert all(names[id(p)].startswith("backbone.") and p.requires_grad for p in old["params"])
        assert len(old["params"]) + len(new["params"]) == sum(p.requires_grad for p in task.model.parameters())

    def test_a_bias_starts_at_the_log_odds_of_the_classes_and_is_learned(self, index_path, tmp_path):
        spec = tiny_spec("classifier-M", index_path, tmp_path, num_steps=2)
        settings = spec.recipe.classifier.model_copy(update={"image_bias": True})
        spec = replace(spec, recipe=spec.recipe.model_copy(update={"classifier": settings}))
        task = build_task(spec)
        index = task.index
        shown = [sum(label in row.labels for row in task.rows) for label in range(1, index.num_objects + 1)]
        expected = [np.log((n + 0.5) / (len(task.rows) - n + 0.5)) for n in shown]
        np.testing.assert_allclose(task.model.image_head.bias.detach().numpy(), expected, rtol=1e-6)
        assert len(set(shown)) > 1
        train_to_end(spec)
        assert not np.allclose(weights(tmp_path)["image_head.bias"].numpy(), expected)

    def test_the_memory_bank_is_not_a_parameter(self, index_path):
        names = {id(parameter): name for name, parameter in task_of(index_path, "memory").model.named_parameters()}
        assert "codebook.codewords" not in names.values()

    @pytest.mark.parametrize("frozen_stages", [1, 3])
    def test_frozen_stages_do_not_move_and_all_others_do(self, index_path, tmp_path, frozen_stages):
        spec = tiny_spec("classifier-L", index_path, tmp_path, num_steps=4)
        settings = spec.recipe.classifier.model_copy(update={"frozen_stages": frozen_stages})
        spec = replace(spec, recipe=spec.recipe.model_copy(update={"classifier": settings}))
        before = {name: value.double() for name, value in build_task(spec).model.state_dict().items()}
        task, _ = train_to_end(spec)
        frozen = tuple(f"backbone.net.{name}." for level in task.model.backbone.levels[:frozen_stages] for name in level)
        moved = {name for name, value in weights(tmp_path).items() if not torch.equal(value, before[name])}
        wanted = {name for name, _ in task.model.named_parameters() if not name.startswith(frozen)}
        assert moved == wanted
        assert any(name.startswith(frozen) for name in before)


class TestLosses:
    @pytest.mark.parametrize("strategy", STRATEGIES)
    def test_shares_of_any_split_add_up_to_the_loss_of_the_batch(self, index_path, strategy):
        task, numbers = task_of(index_path, strategy), (0, 3, 5, 6)
        whole = task.losses(task.model, batch_of(task, numbers), torch.tensor([4.0]).double(), part=1)
        parts = [task.losses(task.model, batch_of(task, (number,)), torch.tensor([4.0]).double(), part=1 / 4) for number in numbers]
        for name, value in whole.items():
            torch.testing.assert_close(sum(part[name] for part in parts), value)

    @pytest.mark.parametrize(
        ("settings", "terms"),
        [
            ({"strategy": "none"}, {"image"}),
            ({"strategy": "memory"}, {"image", "word"}),
            ({"strategy": "learning", "codebook": {"decov": "none"}}, {"image", "word", "word_to_image"}),
            ({"strategy": "learning"}, {"image", "word", "word_to_image", "decov"}),
        ],
    )
    def test_each_strategy_has_its_terms(self, index_path, settings, terms):
        task = task_of(index_path, **settings)
        assert set(task.losses(task.model, batch_of(task, (0,)), torch.tensor([1.0]), part=1)) == terms

    def test_half_precision_logits_have_their_losses_in_float32(self, index_path):
        task = task_of(index_path)
        task.model.float()
        batch = {key: value.float() if value.is_floating_point() else value for key, value in batch_of(task, (0, 1)).items()}
        with torch.autocast("cpu", torch.bfloat16):
            assert task.model(batch["images"]).image_logits.dtype == torch.bfloat16
            terms = task.losses(task.model, batch, torch.tensor([2.0]).double(), part=1)
        assert {term.dtype for term in terms.values()} == {torch.float32}


class TestMemoryBank:
    def test_it_starts_with_features_of_the_first_batch_and_none_of_its_padding(self, index_path):
        task = task_of(index_path, "memory", resize=(40, 40))
        batches = [batch_of(task, (0, 1)), batch_of(task, (2, 3))]
        assert not all(batch["valid"].all() for batch in batches)
        task.init_codebook(batches)
        pixels = torch.cat([pixels_inside(task, batch) for batch in batches])
        nearest = torch.cdist(task.model.codebook.codewords, pixels).min(dim=1)
        assert nearest.values.max() < 1e-9
        assert len(nearest.indices.unique()) > 4

    def test_the_split_of_the_first_batch_does_not_matter(self, index_path):
        banks = []
        for parts in (((0, 1, 2, 3),), ((0,), (1, 2), (3,))):
            task = task_of(index_path, "memory")
            task.init_codebook([batch_of(task, part) for part in parts])
            banks.append(task.model.codebook.codewords.clone())
        torch.testing.assert_close(*banks)

    def test_a_learning_based_codebook_starts_as_drawn(self, index_path):
        task = task_of(index_path)
        before = task.model.codebook.codewords.clone()
        task.init_codebook([batch_of(task, (0, 1))])
        assert torch.equal(task.model.codebook.codewords, before)

    def step(self, task: ClassifierTask, *batches: Sample) -> None:
        for number, batch in enumerate(batches):
            task.losses(task.model, batch, torch.tensor([4.0]).double(), part=1)
            if number == len(batches) - 1:
                task.start_codebook_reduce()
        task.update_codebook()

    def test_a_step_moves_it_once_by_the_sums_of_all_micro_batches(self, index_path):
        banks = []
        for parts in (((0, 1, 2, 3),), ((0,), (1, 2), (3,))):
            task = task_of(index_path, "memory")
            batches = [batch_of(task, part) for part in parts]
            task.init_codebook(batches)
            before = task.model.codebook.codewords.clone()
            self.step(task, *batches)
            banks.append(task.model.codebook.codewords.clone())
        assert not torch.equal(before, banks[0])
        torch.testing.assert_close(*banks)

    def test_the_published_code_assigns_the_first_step_to_gaussian_codewords_and_then_has_features(self, index_path):
        task = task_of(index_path, "memory", codebook={"init": "gaussian"}, frozen_stages=5)
        gaussian, batch = task.model.codebook.codewords.clone(), batch_of(task, (0, 1, 2, 3))
        task.init_codebook([batch])
        assert torch.equal(task.model.codebook.codewords, gaussian)
        self.step(task, batch)
        features = task_of(index_path, "memory", frozen_stages=5)
        features.init_codebook([batch])
        torch.testing.assert_close(task.model.codebook.codewords, features.model.codebook.codewords)  # and no trace of the first update
        self.step(task, batch)
        self.step(features, batch)
        torch.testing.assert_close(task.model.codebook.codewords, features.model.codebook.codewords)
        assert not torch.equal(task.model.codebook.codewords, gaussian)


class TestScores:
    def test_mean_average_precision_by_hand(self):
        scores = np.array([[0.9, 0.1, 5], [0.8, 0.9, 6], [0.7, 0.2, 7], [0.6, 0.3, 8]])
        truth = np.array([[1, 0, 0], [0, 1, 0], [1, 0, 0], [0, 1, 0]], bool)
        # class 1: positives at ranks 1 and 3; class 2: at ranks 1 and 2; class 3 has none and does not count
        assert mean_average_precision(scores, truth) == pytest.approx((((1 / 1 + 2 / 3) / 2) + 1) / 2)

    def test_the_worst_order_has_the_smallest_precision(self):
        assert mean_average_precision(np.array([[4.0], [3.0], [2.0], [1.0]]), np.array([[0], [0], [0], [1]], bool)) == 1 / 4

    def test_mean_average_precision_is_the_mean_precision_at_the_positives_in_order_of_score(self):
        rng = np.random.default_rng(0)
        scores, truth = rng.permutation(80 * 4).reshape(80, 4).astype(float), rng.random((80, 4)) < 0.3
        values = []
        for score, positive in zip(scores.T, truth.T, strict=True):
            hits = positive[np.argsort(-score)]
            values.append((np.cumsum(hits) / np.arange(1, len(hits) + 1))[hits].mean())
        assert mean_average_precision(scores, truth) == pytest.approx(np.mean(values), rel=1e-12)

    def test_equal_scores_count_as_one_rank(self):
        assert mean_average_precision(np.zeros((4, 1)), np.array([[1], [0], [0], [0]], bool)) == 1 / 4

    def test_without_any_positive_there_is_no_score(self):
        assert np.isnan(mean_average_precision(np.zeros((3, 2)), np.zeros((3, 2), bool)))

    def test_held_out_images_are_scored_whole_at_the_middle_size(self, index_path):
        task = task_of(index_path)
        scores = []
        with torch.no_grad():
            for row in task.held_out:
                image = np.asarray(task.index.read_image(row))
                factor = 72 / max(image.shape[:2])
                image = resize(image, round(image.shape[0] * factor), round(image.shape[1] * factor))
                images = normalise(image, task.model.backbone.mean, task.model.backbone.std)[None].double()
                scores.append(task.model(images).image_logits[0].numpy())
        truth = np.array([[c in row.labels for c in (1, 2)] for row in task.held_out])
        assert task.evaluate()["val_map"] == mean_average_precision(np.stack(scores), truth)

    def test_without_held_out_images_there_is_no_score(self, index_path):
        task = task_of(index_path)
        task.held_out = []
        assert task.evaluate() == {}

    def test_codebook_metrics_are_of_the_steps_since_the_last_call(self, index_path):
        task = task_of(index_path, "memory")
        batch = batch_of(task, (0, 1))
        task.losses(task.model, batch, torch.tensor([2.0]).double(), part=1)
        assert task.accumulated_counts()["usage"].sum() == len(pixels_inside(task, batch))
        assert task.codebook_metrics()["codewords_used"] > 0
        assert task.codebook_metrics()["codewords_used"] == 0

    def test_a_network_without_a_codebook_has_no_codebook_metrics(self, index_path):
        task = task_of(index_path)
        assert set(task.codebook_metrics()) == {"codewords_used", "codewords_unused", "codebook_perplexity", "codebook_cosine"}
        task.model.codebook = None
        assert task.codebook_metrics() == task.accumulated_counts() == {}


def test_a_classifier_learns_two_kinds_of_animals(index_path, tmp_path):
    train_to_end(tiny_spec("classifier-L", index_path, tmp_path, num_steps=24))
    losses = [line["loss_image"] for line in metrics(tmp_path) if "loss" in line]
    assert len(losses) * BATCH == 24 * BATCH
    assert np.mean(losses[-4:]) < 0.8 * np.mean(losses[:4])
