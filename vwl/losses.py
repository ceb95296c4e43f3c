"""Losses of the classifier (paper section 3.5), each as a sum or per image, so that a global batch can be split anywhere."""

import torch
from torch.nn import functional as F


def soft_margin(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return the multi-label soft margin loss (B,) of each image: Eq. 11 with the minus sign that the paper's print lacks.

    Args:
        logits: (B, L).
        targets: (B, L) of 0 and 1.
    """
    return -(targets * F.logsigmoid(logits) + (1 - targets) * F.logsigmoid(-logits)).mean(dim=1)


def decov(words: torch.Tensor, squared: bool = True) -> torch.Tensor:
    """Return the DeCov loss, Eq. 13: what the words (k, d) share with each other.

    The covariance is taken between words over the feature dimensions, each word centred by its own mean, and not divided by
    d - 1 (which would make the term 7 orders smaller and useless). It keeps the words' precision under autocast.

    Args:
        words: the codebook C.
        squared: Eq. 13 has squared norms; the published code (recipe `reference`) has plain ones.
    """
    centred = words - words.mean(dim=1, keepdim=True)
    with torch.autocast(words.device.type, enabled=False):
        covariance = centred @ centred.T
    if squared:
        return 0.5 * (covariance.pow(2).sum() - covariance.diagonal().pow(2).sum())
    return 0.5 * (torch.linalg.matrix_norm(covariance) - torch.linalg.vector_norm(covariance.diagonal()))
