"""Training of PSA's affinity network (Ahn and Kwak 2018) with the affinity loss on confident labels; used with `refiner: psa`."""

from typing import Any

import numpy as np
import torch

from vwl.config.recipe import Recipe
from vwl.constants import IGNORE
from vwl.data.index import Index, Row
from vwl.data.sampler import generator, steps_per_epoch
from vwl.data.transforms import long_side_scale, normalise, random_crop, random_hflip, resize, resize_mask, scaled_size
from vwl.models.affinity_loss import affinity_loss_sums, affinity_loss_terms, pair_feature_affinities, pair_labels
from vwl.models.psa import AFFINITY_STRIDE, AffinityNet
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, read_result
from vwl.training.pretrained import load_pretrained
from vwl.training.task import Forward, Sample, Task


class PsaTask(Task):
    """Learns features that are alike for pixels of the same label and unlike for pixels of different labels.

    Published PSA also changes the colours of training images (brightness, contrast, saturation, hue) and scores labels by soft CRF
    probabilities averaged over 8 x 8 pixels; here the labels are those of the stage's masks.
    """

    name = "psa"

    def __init__(self, recipe: Recipe, index: Index, rows: list[Row], masks: Folder) -> None:
        """Build the seeded network for training `rows`, whose confident labels are PNG files in `masks`."""
        self.settings = recipe.psa
        self.index, self.rows, self.masks = index, rows, masks
        self.optimiser, self.batch_size, self.seed = self.settings.optimiser, self.settings.batch_size, recipe.seed
        self.num_samples, self.image_ids = len(rows), [row.image_id for row in rows]
        self.num_steps = self.settings.epochs * steps_per_epoch(len(rows), self.batch_size)
        torch.manual_seed(recipe.seed)
        self.model = AffinityNet(self.settings)
        load_pretrained(self.model, self.settings)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the backbone's parameters and, at `head_lr_mult` times their learning rate, those of the head."""
        rate, decay = self.optimiser.learning_rate, self.optimiser.weight_decay
        backbone = [parameter for parameter in self.model.backbone.parameters() if parameter.requires_grad]
        return [
            {"params": backbone, "lr": rate, "weight_decay": decay},
            {"params": self.model.new_parameters(), "lr": rate * self.optimiser.head_lr_mult, "weight_decay": decay},
        ]

    def sample(self, number: int, epoch: int) -> Sample:
        """Return `images` (3, crop, crop) and `labels` (ceil(crop / 8), ceil(crop / 8)) uint8."""
        row = self.rows[number]
        rng = generator(self.seed, epoch, row.image_id)
        image, mask = np.asarray(self.index.read_image(row)), decode_mask(read_result(self.masks, row.image_id), row.image_id)
        size = scaled_size(mask.shape, long_side_scale(mask.shape, self.settings.long_side))
        image, mask = random_hflip([resize(image, *size), resize_mask(mask, *size)], rng)
        (image, mask), valid = random_crop([image, mask], [0, IGNORE], self.settings.crop, rng)
        grid = -(-self.settings.crop // AFFINITY_STRIDE)
        backbone = self.model.backbone
        return {
            "images": normalise(image, backbone.mean, backbone.std, valid),
            "labels": torch.from_numpy(resize_mask(np.ascontiguousarray(mask), grid, grid).copy()),
        }

    def counts(self, batch: Sample) -> torch.Tensor:
        """Return the numbers (3,) of background, object and different pairs."""
        pairs = pair_labels(batch["labels"], self.settings.radius, len(self.index.classes))
        return torch.stack([kind.sum() for kind in pairs]).double()

    def losses(self, forward: Forward, batch: Sample, counts: torch.Tensor, part: float) -> dict[str, torch.Tensor]:
        """Return the shares of the affinity loss: same labels attract, different labels repel."""
        features = forward(batch["images"])
        pairs = pair_labels(batch["labels"], self.settings.radius, len(self.index.classes))
        sums = affinity_loss_sums(pair_feature_affinities(features, self.settings.radius), pairs)
        attract, repel = affinity_loss_terms(sums, counts)
        return {"attract": attract, "repel": repel}
