"""The codebook of visual words (paper section 3.3): similarity, soft histogram, word labels, and the memory bank.

The words C (k, d) are a parameter (learning-based strategy) or a buffer that follows the features (memory bank). The
features are taken as constants: gradients of the histogram reach the words only. A pixel outside `valid` takes no word.
A word that no pixel takes has label 0 in every image, gets no gradient from the word labels, and, in the memory bank, stays
as it is (`absent_words: keep`) or shrinks by 1 - rho (`decay`); its direction, which is all that matching sees, is kept.
"""

import math
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from vwl.recipe import Classifier as Settings


class Encoding(NamedTuple):
    """What the codebook says of a batch.

    Attributes:
        histogram: f_word (B, k), Eq. 5, with gradient to the words.
        labels: y_word (B, k), 1 where some pixel of the image took the word.
        words: Y (B, h, w) int64, Eq. 4, -1 where no word was taken.
    """

    histogram: torch.Tensor
    labels: torch.Tensor
    words: torch.Tensor


class Codebook(nn.Module):
    """k words of d dimensions; `words` is a parameter or, for the memory bank, a buffer kept in checkpoints."""

    words: torch.Tensor
    usage: torch.Tensor

    def __init__(self, settings: Settings, dim: int) -> None:
        super().__init__()
        self.settings = settings
        words = torch.randn(settings.num_words, dim) * math.sqrt(2 / 6 / dim)
        if settings.words == "memory":
            self.register_buffer("words", words)
        else:
            self.words = nn.Parameter(words)
        self.register_buffer("usage", torch.zeros(settings.num_words, dtype=torch.int64), persistent=False)

    def forward(self, features: torch.Tensor, valid: torch.Tensor | None = None) -> Encoding:
        """Encode features (B, d, h, w); `valid` (B, h, w) bool marks pixels that take a word (all, if none)."""
        # Among thousands of nearly parallel features the 8 bits of bfloat16 would decide which word wins.
        with torch.autocast(features.device.type, enabled=False):
            pixels = F.normalize(features.detach().flatten(2).transpose(1, 2).to(self.words.dtype), dim=2)
            similarity = pixels @ F.normalize(self.words, dim=1).T  # Eq. 2, (B, hw, k)
        probability = torch.softmax(self.settings.temperature * similarity, dim=2)  # Eq. 3
        words = similarity.detach().argmax(dim=2)  # Eq. 4: tau > 0 does not change which word wins
        if valid is None:
            histogram = probability.sum(dim=1)
            count = torch.full_like(histogram[:, :1], probability.shape[1])
        else:
            mask = valid.flatten(1)
            histogram = (probability * mask[:, :, None]).sum(dim=1)
            count = mask.sum(dim=1, keepdim=True).clamp(min=1).to(histogram.dtype)
            words = words.masked_fill(~mask, -1)
        if self.settings.histogram == "mean":
            histogram = histogram / count  # Eq. 5
        labels = torch.zeros_like(histogram).detach()
        slots = torch.cat([labels, labels[:, :1]], dim=1)  # the last slot takes the pixels without a word
        labels = slots.scatter_(1, words.remainder(labels.shape[1] + 1), 1.0)[:, :-1]
        return Encoding(histogram, labels, words.view(features.shape[0], *features.shape[2:]))

    @torch.no_grad()
    def count_usage(self, words: torch.Tensor) -> None:
        """Add the pixels of words Y to the usage counts (codebook health)."""
        self.usage += torch.bincount(words[words >= 0], minlength=len(self.usage))

    @torch.no_grad()
    def sums(self, features: torch.Tensor, words: torch.Tensor) -> torch.Tensor:
        """Return (k, d + 1): for each word the sum of the features that took it, and their number (W^T F and D of Eq. 6).

        Sums of workers and micro-batches add up, so one all-reduce of this tensor makes the bank's update global.
        """
        pixels = features.detach().permute(0, 2, 3, 1).flatten(0, 2).to(self.words.dtype)
        taken = words.flatten() >= 0
        pixels = torch.cat([pixels, pixels.new_ones(len(pixels), 1)], dim=1)[taken]
        return pixels.new_zeros(len(self.words), pixels.shape[1]).index_add_(0, words.flatten()[taken], pixels)

    @torch.no_grad()
    def update(self, sums: torch.Tensor) -> None:
        """Move the bank towards the mean features of each word: Eq. 6 and 7, with `sums` over the whole global batch."""
        rho, counts = self.settings.bank_momentum, sums[:, -1:]
        new_words = sums[:, :-1] / counts.clamp(min=1)  # Eq. 6: C' = D^-1 W^T F, a mean per word
        moved = rho * new_words + (1 - rho) * self.words  # Eq. 7
        if self.settings.absent_words == "keep":
            moved = torch.where(counts > 0, moved, self.words)
        self.words.copy_(moved)

    @torch.no_grad()
    def health(self, usage: torch.Tensor) -> dict[str, float]:
        """Return words in use, dead words, perplexity of the usage (k,) and the mean off-diagonal cosine of the words."""
        share = usage.double() / usage.sum().clamp(min=1)
        unit = F.normalize(self.words.double(), dim=1)
        k = len(unit)
        in_use = int((usage > 0).sum())
        return {
            "words_in_use": in_use,
            "words_dead": k - in_use,
            "word_perplexity": float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum())),
            "word_cosine": float(((unit @ unit.T).sum() - unit.pow(2).sum()) / max(k * (k - 1), 1)),
        }
