"""Losses of the classifier, paper section 3.5: multi-label soft margin (Eq. 11) and DeCov (Eq. 13)."""

import torch
from torch.nn import functional as F


def soft_margin(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the multi-label soft margin loss (B,) of each image: Eq. 11 with the minus sign that the paper's print lacks.

    Args:
        logits: (B, L).
        targets: (B, L) of 0 and 1.
    """
    return -(targets * F.logsigmoid(logits) + (1 - targets) * F.logsigmoid(-logits)).mean(dim=1)


def decov(codewords: torch.Tensor, squared: bool = True) -> torch.Tensor:
    """Return the DeCov loss, Eq. 13: the off-diagonal covariance of the codewords.

    The covariance is taken between codewords over the feature dimensions, each codeword centred by its own mean, and is not divided
    by d - 1 (which would make the loss 7 orders of magnitude smaller). It is computed in the codewords' precision, also under autocast.

    Args:
        codewords: C, (k, d) float.
        squared: squared norms as in Eq. 13; the published code (`reference-*` recipes) has plain norms.

    Returns:
        A scalar.
    """
    centred = codewords - codewords.mean(dim=1, keepdim=True)
    with torch.autocast(codewords.device.type, enabled=False):
        covariance = centred @ centred.T
    if squared:
        return 0.5 * (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum())
    return 0.5 * (torch.linalg.matrix_norm(covariance) - torch.linalg.vector_norm(covariance.diagonal()))
