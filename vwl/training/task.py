"""The interface between the training loop and the three trainings: classifier, IRNet and segmenter."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch

from vwl.config.recipe import Optimiser

Sample = dict[str, torch.Tensor]
Forward = Callable[..., Any]


class Task(ABC):
    """Model, samples, losses and parameter groups of one training.

    Losses are returned as *shares*: the sum over a micro-batch divided by the count of the whole global batch. The shares of all
    workers and micro-batches add up to the loss, however the batch is split.

    Attributes:
        name: the stage's name.
        model: the network (an nn.Module).
        optimiser: its settings.
        batch_size: global batch, images.
        num_steps: steps of the whole training.
        num_samples: training images.
        seed: of sampling and augmentation.
        image_ids: of the samples, for error messages.
    """

    name: ClassVar[str]
    model: Any
    optimiser: Optimiser
    batch_size: int
    num_steps: int
    num_samples: int
    seed: int
    image_ids: Sequence[str]

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return SGD groups with their initial `lr` and `weight_decay`."""

    @abstractmethod
    def sample(self, number: int, epoch: int) -> Sample:
        """Return an augmented sample, which depends on (seed, epoch, image id) only. Called from several threads."""

    def counts(self, batch: Sample) -> torch.Tensor:
        """Return a micro-batch's part of the counts that losses are divided by; by default its number of images."""
        first = next(iter(batch.values()))
        return torch.full((1,), float(len(first)), dtype=torch.float64, device=first.device)

    @abstractmethod
    def losses(self, forward: Forward, batch: Sample, counts: torch.Tensor, part: float) -> dict[str, torch.Tensor]:
        """Return a micro-batch's share of each loss term; their sum is minimised.

        Args:
            forward: the network, possibly wrapped for data-parallel training.
            batch: stacked samples.
            counts: `counts` summed over the global batch.
            part: 1 / (workers x micro-batches): the share of terms that depend on parameters only.
        """

    def start(self) -> dict[str, float]:
        """Prepare the model before the first step of a new training, on all workers; return scores it starts from, to be kept."""
        return {}

    def notes(self) -> list[str]:
        """Return lines for the user on the result, which its manifest keeps."""
        return []

    def init_codebook(self, batches: list[Sample]) -> None:
        """Fill the memory bank from the first global batch, before the first step; `batches` are this worker's micro-batches of it."""
        return

    def start_codebook_reduce(self) -> None:
        """Start the all-reduce of the memory bank's sums; called before the step's last backward pass, which it overlaps with."""
        return

    def update_codebook(self) -> None:
        """Wait for the all-reduce and update the memory bank; called after the optimiser's step."""
        return

    def evaluate(self) -> dict[str, float]:
        """Return scores on held-out images, after an epoch; each worker scores its part, and all return the result."""
        return {}

    def accumulated_counts(self) -> dict[str, torch.Tensor]:
        """Return the tensors that `codebook_metrics` counts with; they add up over workers and are kept in checkpoints."""
        return {}

    def codebook_metrics(self) -> dict[str, float]:
        """Return metrics of the codebook since the last call; called on every worker at each logged step."""
        return {}
