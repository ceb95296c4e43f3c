"""The codebook of visual words, paper section 3.3: similarity, soft histogram, word labels, and the memory bank.

It reads the backbone's last features and gives the classifier its word labels and, in the learning-based strategy, the histogram.
The codewords C (k, d) are a parameter (learning-based, VWL-L) or a buffer that follows the features (memory bank, VWL-M). Features are
detached, so that the histogram's gradient reaches the codewords only. Pixels outside `valid` are assigned to no codeword.

A codeword without pixels has label 0 in every image and gets no gradient from the word labels. In the memory bank it stays as it is
(`unused_codewords: keep`) or shrinks by 1 - rho (`decay`); its direction, which is all that similarity depends on, does not change.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from vwl.config.recipe import Codebook as Settings


class Encoding(NamedTuple):
    """A batch of images expressed in codewords.

    Attributes:
        histogram: f_word (B, k), Eq. 5, with gradient to the codewords.
        labels: y_word (B, k), 1 where some pixel of the image is assigned to the codeword.
        assignments: Y (B, h, w) int64, Eq. 4, the codeword of each pixel; -1 for none.
    """

    histogram: torch.Tensor
    labels: torch.Tensor
    assignments: torch.Tensor


class Codebook(nn.Module):
    """k codewords of d dimensions.

    Attributes:
        codewords: C (k, d), a parameter or, for the memory bank, a buffer.
        usage: (k,) int64, pixels assigned to each codeword since the last report; not in the state dict.
    """

    codewords: torch.Tensor
    usage: torch.Tensor

    def __init__(self, settings: Settings, dim: int) -> None:
        """Draw the codewords of `dim` dimensions from torch's global generator."""
        super().__init__()
        self.settings = settings
        codewords = torch.randn(settings.num_codewords, dim) * math.sqrt(2 / 6 / dim)
        if settings.strategy == "memory":
            self.register_buffer("codewords", codewords)
        else:
            self.codewords = nn.Parameter(codewords)
        self.register_buffer("usage", torch.zeros(settings.num_codewords, dtype=torch.int64), persistent=False)

    def forward(self, features: torch.Tensor, valid: torch.Tensor | None = None) -> Encoding:
        """Encode features (B, d, h, w).

        Args:
            features: the backbone's last features.
            valid: (B, h, w) bool, the pixels to assign; all, if none.
        """
        # bfloat16's 8 bits would decide which of the nearly parallel codewords wins.
        with torch.autocast(features.device.type, enabled=False):
            pixels = F.normalize(features.detach().flatten(2).transpose(1, 2).to(self.codewords.dtype), dim=2)
            similarity = pixels @ F.normalize(self.codewords, dim=1).T  # Eq. 2, (B, hw, k)
        probability = torch.softmax(self.settings.temperature * similarity, dim=2)  # Eq. 3
        assignments = similarity.detach().argmax(dim=2)  # Eq. 4: tau > 0 does not change the argmax
        if valid is None:
            histogram = probability.sum(dim=1)
            count = torch.full_like(histogram[:, :1], probability.shape[1])
        else:
            mask = valid.flatten(1)
            histogram = (probability * mask[:, :, None]).sum(dim=1)
            count = mask.sum(dim=1, keepdim=True).clamp(min=1).to(histogram.dtype)
            assignments = assignments.masked_fill(~mask, -1)
        if self.settings.histogram == "mean":
            histogram = histogram / count  # Eq. 5
        labels = torch.zeros_like(histogram).detach()
        slots = torch.cat([labels, labels[:, :1]], dim=1)  # the last column takes the pixels without a codeword
        labels = slots.scatter_(1, assignments.remainder(labels.shape[1] + 1), 1.0)[:, :-1]
        return Encoding(histogram, labels, assignments.view(features.shape[0], *features.shape[2:]))

    @torch.no_grad()
    def count_usage(self, assignments: torch.Tensor) -> None:
        """Add the pixels of `assignments` (any shape, int64) to `usage`."""
        slots = self._slots(assignments)
        self.usage += self.usage.new_zeros(len(self.usage) + 1).scatter_add_(0, slots, torch.ones_like(slots))[:-1]

    @torch.no_grad()
    def assigned_sums(self, features: torch.Tensor, assignments: torch.Tensor) -> torch.Tensor:
        """Return (k, d + 1): for each codeword the sum of the features assigned to it, and their number (W^T F and D of Eq. 6).

        The sums of workers and micro-batches add up, so that one all-reduce of this tensor makes the memory bank's update global.

        Args:
            features: F (B, d, h, w).
            assignments: Y (B, h, w) int64, -1 for none.
        """
        pixels = features.detach().permute(0, 2, 3, 1).flatten(0, 2).to(self.codewords.dtype)
        pixels = torch.cat([pixels, pixels.new_ones(len(pixels), 1)], dim=1)
        return pixels.new_zeros(len(self.codewords) + 1, pixels.shape[1]).index_add_(0, self._slots(assignments), pixels)[:-1]

    def _slots(self, assignments: torch.Tensor) -> torch.Tensor:
        """Return the codeword of each pixel (N,), and k for those without one: to leave them out, the host would wait for a GPU."""
        return assignments.flatten().remainder(len(self.codewords) + 1)

    @torch.no_grad()
    def update(self, sums: torch.Tensor) -> None:
        """Move the memory bank towards the mean features of each codeword, Eqs. 6 and 7.

        Args:
            sums: (k, d + 1), `assigned_sums` added up over the global batch.
        """
        rho, counts = self.settings.momentum, sums[:, -1:]
        means = sums[:, :-1] / counts.clamp(min=1)  # Eq. 6: C' = D^-1 W^T F, a mean per codeword
        moved = rho * means + (1 - rho) * self.codewords  # Eq. 7
        if self.settings.unused_codewords == "keep":
            moved = torch.where(counts > 0, moved, self.codewords)
        self.codewords.copy_(moved)

    @torch.no_grad()
    def metrics(self, usage: torch.Tensor) -> dict[str, float]:
        """Return codewords used and unused, perplexity of the usage, and the mean off-diagonal cosine of the codewords.

        Args:
            usage: (k,) int64, pixels assigned to each codeword, summed over workers.
        """
        share = usage.double() / usage.sum().clamp(min=1)
        unit = F.normalize(self.codewords.double(), dim=1)
        k = len(unit)
        used = int((usage > 0).sum())
        return {
            "codewords_used": used,
            "codewords_unused": k - used,
            "codebook_perplexity": float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum())),
            "codebook_cosine": float(((unit @ unit.T).sum() - unit.pow(2).sum()) / max(k * (k - 1), 1)),
        }
