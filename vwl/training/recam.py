"""Training of ReCAM: the classifier goes on from its trained weights, with a softmax over classes beside its own losses."""

from typing import Any

import torch

from vwl.config.recipe import Recam, Recipe
from vwl.data.index import Index, Rows
from vwl.models.recam import ReactivatedClassifier, softmax_loss
from vwl.models.weights import load_weights
from vwl.storage.folder import Folder
from vwl.training.checkpoint import load
from vwl.training.classifier import ClassifierTask
from vwl.training.loop import WEIGHTS
from vwl.training.task import Forward, Sample


class RecamTask(ClassifierTask):
    """Learns to tell each class of an image from all others by the features within its map.

    The classifier's losses, those of the visual words among them, and its memory bank go on as in its own training. An image without
    positive classes counts in the classifier's losses, and adds 0 to the softmax cross entropy, whose mean is over all images of a batch;
    the new head learns nothing from it. A class that no image shows is only ever a wrong answer of the new head.
    """

    name = "recam"
    model: ReactivatedClassifier

    def __init__(self, recipe: Recipe, index: Index, rows: Rows, held_out: Rows, trained: Folder) -> None:
        """Take the folder of the classifier's weights; the others as in `ClassifierTask`."""
        self.trained, self.weight = trained, recipe.recam.weight
        super().__init__(recipe, index, rows, held_out)

    def schedule(self, recipe: Recipe) -> Recam:
        """Return the section with the optimiser, batch size and epochs of the training."""
        return recipe.recam

    def network(self) -> ReactivatedClassifier:
        """Return the trained classifier with a random new head.

        Raises:
            VwlError: the weights are damaged.
        """
        model = ReactivatedClassifier(self.settings, self.index.num_objects)
        load_weights(model, load(self.trained, WEIGHTS)["model"], self.trained.uri_of(WEIGHTS))
        return model

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the classifier's parameters and, at `head_lr_mult` times their learning rate, those of the new head."""
        rate, decay, head = self.optimiser.learning_rate, self.optimiser.weight_decay, self.model.recam_head.weight
        known = [parameter for parameter in self.model.parameters() if parameter.requires_grad and parameter is not head]
        return [
            {"params": known, "lr": rate, "weight_decay": decay},
            {"params": [head], "lr": rate * self.optimiser.head_lr_mult, "weight_decay": decay},
        ]

    def losses(self, forward: Forward, batch: Sample, counts: torch.Tensor, part: float) -> dict[str, torch.Tensor]:
        """Return the shares of the classifier's losses and of the softmax cross entropy."""
        output = forward(batch["images"], self._valid(batch))
        logits = output.class_logits.float() if output.class_logits.dtype == torch.bfloat16 else output.class_logits
        loss = softmax_loss(logits, batch["targets"].to(logits.dtype)).sum() / counts[0].to(logits.dtype)
        return {**self.terms(output.classifier, batch, counts, part), "recam": self.weight * loss}

    def init_codebook(self, batches: list[Sample]) -> None:
        """Keep the memory bank of the trained classifier."""
        return

    def start(self) -> dict[str, float]:
        """Return no scores: the linear probe is the floor of the classifier's own training."""
        return {}
