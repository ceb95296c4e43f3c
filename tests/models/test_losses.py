import math

import pytest
import torch
from torch.nn import functional as F

from vwl.models.losses import decov, soft_margin


def test_the_soft_margin_loss_is_torchs():
    logits, targets = torch.randn(5, 7, dtype=torch.float64) * 5, torch.randint(0, 2, (5, 7)).double()
    torch.testing.assert_close(soft_margin(logits, targets), F.multilabel_soft_margin_loss(logits, targets, reduction="none"))


def test_zero_logits_have_a_loss_of_log_2():
    assert soft_margin(torch.zeros(1, 4), torch.tensor([[0.0, 1.0, 1.0, 0.0]])).item() == pytest.approx(math.log(2))


def test_logits_that_agree_with_the_labels_have_a_small_positive_loss():
    right = soft_margin(torch.tensor([[9.0, -9.0]]), torch.tensor([[1.0, 0.0]])).item()
    wrong = soft_margin(torch.tensor([[-9.0, 9.0]]), torch.tensor([[1.0, 0.0]])).item()
    assert 0 < right < 1e-3 < wrong


def test_extreme_logits_have_a_finite_loss():
    logits = torch.tensor([[1e4, -1e4]]).requires_grad_()
    loss = soft_margin(logits, torch.tensor([[0.0, 1.0]]))
    loss.sum().backward()
    assert loss.item() == pytest.approx(1e4)
    assert logits.grad.isfinite().all()


def test_uncorrelated_codewords_have_a_decov_of_zero():
    codewords = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0], [1.0, 1.0, -1.0, -1.0]])
    assert decov(codewords) == decov(codewords, squared=False) == 0


def test_decov_of_two_equal_codewords_by_hand():
    """Covariance [[2, 2], [2, 2]]: squared norms 16 and 8, plain ones 4 and sqrt 8."""
    codewords = torch.tensor([[1.0, -1.0], [1.0, -1.0]])
    assert decov(codewords).item() == pytest.approx(4)
    assert decov(codewords, squared=False).item() == pytest.approx(0.5 * (4 - math.sqrt(8)))


def test_decov_does_not_depend_on_the_mean_of_each_codeword():
    codewords = torch.randn(4, 9, dtype=torch.float64)
    for squared in (True, False):
        torch.testing.assert_close(decov(codewords, squared), decov(codewords + torch.arange(4)[:, None], squared))


@pytest.mark.parametrize("squared", [True, False])
def test_a_gradient_step_lowers_decov(squared):
    codewords = (torch.randn(4, 9, dtype=torch.float64) + torch.randn(9, dtype=torch.float64)).requires_grad_()
    before = decov(codewords, squared)
    before.backward()
    assert decov(codewords - 1e-4 * codewords.grad, squared) < before


@pytest.mark.parametrize("squared", [True, False])
def test_autocast_does_not_change_decov(squared):
    codewords = torch.randn(4, 9)
    with torch.autocast("cpu", torch.bfloat16):
        inside = decov(codewords, squared)
    assert torch.equal(inside, decov(codewords, squared))
