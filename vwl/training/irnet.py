"""Training of the boundary network (IRNet; paper section 4.1, "CAMs refinement") with the affinity loss on confident labels."""

from typing import Any

import numpy as np
import torch

from vwl.config.recipe import Recipe
from vwl.constants import IGNORE, MAP_STRIDE
from vwl.data.index import Index, Row
from vwl.data.sampler import generator, steps_per_epoch
from vwl.data.transforms import long_side_scale, normalise, random_crop, random_hflip, resize, resize_mask, scaled_size
from vwl.models.affinity_loss import affinity_loss_sums, affinity_loss_terms, pair_affinities, pair_labels
from vwl.models.irnet import BoundaryNet
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, read_result
from vwl.training.pretrained import load_pretrained
from vwl.training.task import Forward, Sample, Task


class IrnetTask(Task):
    """Learns boundaries between pixels of different labels: no boundary on the path between pixels of the same label."""

    name = "irnet"

    def __init__(self, recipe: Recipe, index: Index, rows: list[Row], masks: Folder) -> None:
        """Build the seeded network for training `rows`, whose confident labels are PNG files in `masks`."""
        self.settings = recipe.irnet
        self.index, self.rows, self.masks = index, rows, masks
        self.optimiser, self.batch_size, self.seed = self.settings.optimiser, self.settings.batch_size, recipe.seed
        self.num_samples, self.image_ids = len(rows), [row.image_id for row in rows]
        self.num_steps = self.settings.epochs * steps_per_epoch(len(rows), self.batch_size)
        torch.manual_seed(recipe.seed)
        self.model = BoundaryNet(self.settings.backbone)
        load_pretrained(self.model, self.settings)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the parameters of the head; the backbone does not train."""
        rate = self.optimiser.learning_rate * self.optimiser.head_lr_mult
        return [{"params": self.model.new_parameters(), "lr": rate, "weight_decay": self.optimiser.weight_decay}]

    def sample(self, number: int, epoch: int) -> Sample:
        """Return `images` (3, crop, crop) and `labels` (crop / 4, crop / 4) uint8."""
        row = self.rows[number]
        rng = generator(self.seed, epoch, row.image_id)
        image, mask = np.asarray(self.index.read_image(row)), decode_mask(read_result(self.masks, row.image_id), row.image_id)
        low, high = self.settings.rescale
        size = scaled_size(mask.shape, long_side_scale(mask.shape, self.settings.long_side) * rng.uniform(low, high))
        image, mask = random_hflip([resize(image, *size), resize_mask(mask, *size)], rng)
        (image, mask), valid = random_crop([image, mask], [0, IGNORE], self.settings.crop, rng)
        grid = -(-self.settings.crop // MAP_STRIDE)
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
        edge = torch.sigmoid(forward(batch["images"]).to(torch.promote_types(batch["images"].dtype, torch.float32)))
        pairs = pair_labels(batch["labels"], self.settings.radius, len(self.index.classes))
        sums = affinity_loss_sums(pair_affinities(edge, self.settings.radius), pairs)
        attract, repel = affinity_loss_terms(sums, counts)
        return {"attract": attract, "repel": repel}
