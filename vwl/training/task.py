"""What the one training loop asks of a training: classifier, IRNet and segmenter are three answers to it."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import torch

from vwl.config.recipe import Optimiser

Sample = dict[str, torch.Tensor]
Forward = Callable[..., Any]


class Task(ABC):
    """Model, samples, losses and parameter groups of one training.

    Losses are returned as *shares*: a worker's micro-batch gives its sum divided by the count of the whole global batch, so
    that the shares of all workers and micro-batches add up to the loss, however the batch is split.

    Attributes:
        name: the stage's name.
        model: the network (an nn.Module).
        optimiser: its settings.
        batch_size: global batch, images.
        num_steps: steps of the whole training.
        num_samples: photographs to draw from.
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
    image_ids: list[str]

    @abstractmethod
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return SGD groups with their initial `lr` and `weight_decay`."""

    @abstractmethod
    def sample(self, number: int, epoch: int) -> Sample:
        """Return one augmented sample; depends on (seed, epoch, image) only. Called from several threads."""

    def counts(self, batch: Sample) -> torch.Tensor:
        """Return this micro-batch's contribution to the counts that losses are divided by; images, if not overridden."""
        return torch.tensor([float(len(next(iter(batch.values()))))], dtype=torch.float64)

    @abstractmethod
    def losses(self, forward: Forward, batch: Sample, counts: torch.Tensor, part: float) -> dict[str, torch.Tensor]:
        """Return this micro-batch's share of each loss term; their sum is optimised.

        Args:
            forward: the network, possibly wrapped for data-parallel training.
            batch: stacked samples.
            counts: `counts` summed over the global batch.
            part: 1 / (workers x micro-batches): the share of terms that depend on parameters only.
        """

    def init_codebook(self, batches: list[Sample]) -> None:
        """Prepare state from the first global batch; `batches` are this worker's micro-batches of it."""
        return

    def start_codebook_reduce(self) -> None:
        """Start sums over workers that can overlap with the backward pass; called before the step's last backward."""
        return

    def update_codebook(self) -> None:
        """Finish what `start_codebook_reduce` began; called after the optimiser's step."""
        return

    def evaluate(self) -> dict[str, float]:
        """Return scores on held-out photographs after an epoch; each worker does its share, all get the result."""
        return {}

    def accumulated_counts(self) -> dict[str, torch.Tensor]:
        """Return what `codebook_metrics` has counted since its last call: tensors that add up over workers, to be kept in checkpoints."""
        return {}

    def codebook_metrics(self) -> dict[str, float]:
        """Return figures to watch beside the losses; called on every worker at each logged step."""
        return {}
