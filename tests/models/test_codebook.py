import math

import numpy as np
import pytest
import torch

from vwl.config.recipe import Codebook as Settings
from vwl.models.codebook import Codebook

DIM, NUM_CODEWORDS = 6, 5


def book(**settings) -> Codebook:
    torch.manual_seed(1)
    return Codebook(Settings(num_codewords=NUM_CODEWORDS, **settings), DIM).double()


def features_of(num_images: int = 3, height: int = 4, width: int = 3) -> torch.Tensor:
    return torch.randn(num_images, DIM, height, width, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


def pixels_of(features: torch.Tensor) -> torch.Tensor:
    return features.permute(0, 2, 3, 1).reshape(-1, DIM)


def one_hot(assignments: torch.Tensor) -> torch.Tensor:
    """Return W (number of pixels, k); pixels assigned to no codeword have a row of zeros."""
    return torch.stack([(assignments.flatten() == j).double() for j in range(NUM_CODEWORDS)], dim=1)


class TestEncoding:
    def test_pixels_outside_count_in_no_part_of_the_encoding(self):
        features, valid = features_of(), torch.rand(3, 4, 3, generator=torch.Generator().manual_seed(3)) < 0.6
        encoding = book()(features, valid)
        assert torch.equal(encoding.assignments >= 0, valid)
        other = features.clone()
        other.permute(0, 2, 3, 1)[~valid] = 17.0
        for one, two in zip(encoding, book()(other, valid), strict=True):
            assert torch.equal(one, two)

    def test_an_image_that_is_all_padding_has_no_word_labels_and_an_empty_histogram(self):
        encoding = book()(features_of(2), torch.stack([torch.zeros(4, 3), torch.ones(4, 3)]).bool())
        assert encoding.labels[0].sum() == encoding.histogram[0].sum() == 0
        assert encoding.histogram[1].sum().item() == pytest.approx(1)
        assert torch.all(encoding.assignments[0] == -1)

    def test_the_last_codeword_and_no_codeword_have_different_labels(self):
        """Padding is marked -1, which as an index would be the last codeword."""
        codebook = book()
        features = codebook.codewords[-1].detach()[None, :, None, None].repeat(1, 1, 1, 2)
        assert codebook(features, torch.tensor([[[True, False]]])).labels.tolist() == [[0, 0, 0, 0, 1]]
        assert codebook(features, torch.tensor([[[False, False]]])).labels.tolist() == [[0, 0, 0, 0, 0]]

    def test_without_padding_marks_all_pixels_count(self):
        features = features_of()
        for one, two in zip(book()(features), book()(features, torch.ones(3, 4, 3).bool()), strict=True):
            torch.testing.assert_close(one, two)

    def test_a_mean_histogram_sums_to_one_and_a_summed_one_to_the_pixels(self):
        assert book().forward(features_of()).histogram.sum(1).tolist() == pytest.approx([1] * 3)
        assert book(histogram="sum").forward(features_of()).histogram.sum(1).tolist() == pytest.approx([12] * 3)

    def test_the_length_of_features_and_codewords_does_not_matter(self):
        codebook, longer = book(), book()
        with torch.no_grad():
            longer.codewords.mul_(torch.arange(1, NUM_CODEWORDS + 1)[:, None] * 100)
        torch.testing.assert_close(codebook(features_of()).histogram, longer(features_of() * 5).histogram)
        assert torch.equal(codebook(features_of()).assignments, longer(features_of() * 5).assignments)

    def test_a_pixel_with_zero_features_is_assigned_to_some_codeword_and_gives_no_nan(self):
        encoding = book()(torch.zeros(1, DIM, 1, 1, dtype=torch.float64))
        torch.testing.assert_close(encoding.histogram, torch.full((1, NUM_CODEWORDS), 1 / NUM_CODEWORDS, dtype=torch.float64))
        assert encoding.labels.sum() == 1

    def test_the_histograms_gradient_reaches_the_codewords_and_not_the_features(self):
        codebook, features = book(), features_of().requires_grad_()
        encoding = codebook(features)
        (encoding.histogram * torch.arange(NUM_CODEWORDS)).sum().backward()
        assert codebook.codewords.grad.abs().sum() > 0
        assert features.grad is None
        assert not encoding.labels.requires_grad

    def test_half_precision_features_are_encoded_in_the_codewords_precision(self):
        codebook = Codebook(Settings(num_codewords=NUM_CODEWORDS), DIM)
        assert codebook(features_of().bfloat16()).histogram.dtype == torch.float32

    def test_autocast_does_not_change_the_assignments(self):
        """Codewords and pixels that differ by less than bfloat16 resolves."""
        codebook = Codebook(Settings(num_codewords=100), DIM)
        with torch.no_grad():
            codebook.codewords.copy_(torch.ones(100, DIM) + 0.01 * torch.randn(100, DIM, generator=torch.Generator().manual_seed(4)))
        features = codebook.codewords.detach().T[None, :, None]
        with torch.autocast("cpu", torch.bfloat16):
            encoding = codebook(features)
        assert encoding.assignments.flatten().tolist() == list(range(100))
        torch.testing.assert_close(encoding.histogram, codebook(features).histogram, rtol=0, atol=0)


class TestMemoryBank:
    @pytest.mark.parametrize("padded", [False, True])
    def test_sums_are_the_dense_one_hot_product(self, padded):
        features, codebook = features_of(), book(strategy="memory")
        valid = torch.rand(3, 4, 3, generator=torch.Generator().manual_seed(3)) < (0.6 if padded else 2)
        assignments = codebook(features, valid).assignments
        sums, dense = codebook.assigned_sums(features, assignments), one_hot(assignments)
        torch.testing.assert_close(sums[:, :-1], dense.T @ pixels_of(features))
        assert torch.equal(sums[:, -1], dense.sum(0))
        assert sums[:, -1].sum() == valid.sum()

    def test_the_update_is_the_dense_matrix_product(self):
        features, codebook, rho = features_of(), book(strategy="memory", momentum=0.25), 0.25
        before, assignments = codebook.codewords.clone(), torch.arange(36).view(3, 4, 3) % NUM_CODEWORDS
        codebook.update(codebook.assigned_sums(features, assignments))
        dense = one_hot(assignments)
        inverse_degree = torch.diag(1 / dense.sum(0))
        torch.testing.assert_close(codebook.codewords, rho * inverse_degree @ dense.T @ pixels_of(features) + (1 - rho) * before)

    def test_sums_of_parts_add_up(self):
        features, codebook = features_of(4), book(strategy="memory")
        assignments = codebook(features).assignments
        parts = sum(codebook.assigned_sums(features[i : i + 1], assignments[i : i + 1]) for i in range(4))
        torch.testing.assert_close(parts, codebook.assigned_sums(features, assignments))

    @pytest.mark.parametrize(("unused_codewords", "factor"), [("keep", 1.0), ("decay", 0.9)])
    def test_a_codeword_without_pixels_stays_or_shrinks(self, unused_codewords, factor):
        codebook = book(strategy="memory", momentum=0.1, unused_codewords=unused_codewords)
        before = codebook.codewords.clone()
        codebook.update(codebook.assigned_sums(features_of(), torch.full((3, 4, 3), 2)))
        unused = [0, 1, 3, 4]
        torch.testing.assert_close(codebook.codewords[unused], factor * before[unused])
        torch.testing.assert_close(codebook.codewords[2], 0.1 * pixels_of(features_of()).mean(0) + 0.9 * before[2])

    def test_the_memory_bank_gets_no_gradient(self):
        codebook, features = book(strategy="memory"), features_of().requires_grad_()
        assert list(codebook.parameters()) == []
        assert not codebook.assigned_sums(features, codebook(features).assignments).requires_grad

    @pytest.mark.parametrize("strategy", ["memory", "learning"])
    def test_the_codewords_are_kept_in_checkpoints_and_the_usage_is_not(self, strategy):
        codebook = book(strategy=strategy)
        codebook.count_usage(codebook(features_of()).assignments)
        assert set(codebook.state_dict()) == {"codewords"}
        torch.manual_seed(9)
        other = Codebook(Settings(num_codewords=NUM_CODEWORDS, strategy=strategy), DIM).double()
        other.load_state_dict(codebook.state_dict())
        assert torch.equal(other.codewords, codebook.codewords)

    def test_learned_codewords_are_a_parameter_and_the_memory_bank_starts_equal_to_them(self):
        assert [name for name, _ in book(strategy="learning").named_parameters()] == ["codewords"]
        assert torch.equal(book(strategy="learning").codewords, book(strategy="memory").codewords)


class TestMetrics:
    def test_usage_counts_the_pixels_of_each_codeword_and_none_of_the_padding(self):
        codebook = book()
        codebook.count_usage(torch.tensor([[[0, 0, 3], [-1, -1, 3]]]))
        codebook.count_usage(torch.tensor([[[3, 4, -1]]]))
        assert codebook.usage.tolist() == [2, 0, 0, 3, 1]

    def test_metrics_of_a_small_case_by_hand(self):
        codebook = Codebook(Settings(num_codewords=3), 2)
        with torch.no_grad():
            codebook.codewords.copy_(torch.tensor([[2.0, 0.0], [0.0, 5.0], [1.0, 1.0]]))
        values = codebook.metrics(torch.tensor([6, 2, 0]))
        entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
        cosine = (0 + math.sqrt(0.5) + math.sqrt(0.5)) / 3
        assert values == pytest.approx(
            {"codewords_used": 2, "codewords_unused": 1, "codebook_perplexity": math.exp(entropy), "codebook_cosine": cosine}
        )

    def test_equal_usage_has_a_perplexity_of_k(self):
        assert book().metrics(torch.full((NUM_CODEWORDS,), 7))["codebook_perplexity"] == pytest.approx(NUM_CODEWORDS)

    def test_before_any_pixel_all_codewords_are_unused(self):
        values = book().metrics(torch.zeros(NUM_CODEWORDS, dtype=torch.int64))
        assert (values["codewords_used"], values["codewords_unused"]) == (0, NUM_CODEWORDS)
        assert all(np.isfinite(value) for value in values.values())

    def test_the_mean_cosine_of_a_single_codeword_is_zero(self):
        assert Codebook(Settings(num_codewords=1), 4).metrics(torch.tensor([3]))["codebook_cosine"] == 0
