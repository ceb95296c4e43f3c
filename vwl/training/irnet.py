"""The boundary network's training (IRNet; paper section 4.1, "CAMs refinement"): affinities of pixel pairs from confident labels."""

from typing import Any

import numpy as np
import torch

from vwl.config.recipe import Recipe
from vwl.constants import IGNORE, MAP_STRIDE
from vwl.data.index import Index, Row
from vwl.data.sampler import generator, steps_per_epoch
from vwl.data.transforms import long_side_scale, normalise, random_crop, random_hflip, resize, resize_mask, scaled_size
from vwl.maps.affinity import affinity_loss_sums, pair_affinities, pair_labels
from vwl.models.irnet import BoundaryNet
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask
from vwl.training.pretrained import load_backbone
from vwl.training.task import Forward, Sample, Task


class IrnetTask(Task):
    """Boundaries such that pairs of one label have a free path between them and pairs of two labels do not."""

    name = "irnet"

    def __init__(self, recipe: Recipe, index: Index, rows: list[Row], masks: Folder) -> None:
        """Build the network (seeded) over training `rows`, whose confident labels are PNG files in `masks`."""
        self.settings = recipe.irnet
        self.index, self.rows, self.masks = index, rows, masks
        self.optimiser, self.batch_size, self.seed = self.settings.optimiser, self.settings.batch_size, recipe.seed
        self.num_samples, self.image_ids = len(rows), [row.image_id for row in rows]
        self.num_steps = self.settings.epochs * steps_per_epoch(len(rows), self.batch_size)
        torch.manual_seed(recipe.seed)
        self.model = BoundaryNet(self.settings.backbone)
        load_backbone(self.model.backbone, self.settings.backbone)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the head's parameters; the backbone does not train."""
        rate = self.optimiser.learning_rate * self.optimiser.head_lr_mult
        return [{"params": self.model.new_parameters(), "lr": rate, "weight_decay": self.optimiser.weight_decay}]

    def sample(self, number: int, epoch: int) -> Sample:
        """Return `images` (3, crop, crop) and `labels` (crop / 4, crop / 4) uint8."""
        row = self.rows[number]
        rng = generator(self.seed, epoch, row.image_id)
        photo, mask = np.asarray(self.index.read_image(row)), decode_mask(self.masks.read(f"{row.image_id}.png"), row.image_id)
        low, high = self.settings.rescale
        size = scaled_size(mask.shape, long_side_scale(mask.shape, self.settings.long_side) * rng.uniform(low, high))
        photo, mask = random_hflip([resize(photo, *size), resize_mask(mask, *size)], rng)
        (photo, mask), valid = random_crop([photo, mask], [0, IGNORE], self.settings.crop, rng)
        grid = -(-self.settings.crop // MAP_STRIDE)
        backbone = self.model.backbone
        return {
            "images": normalise(photo, backbone.mean, backbone.std, valid),
            "labels": torch.from_numpy(resize_mask(np.ascontiguousarray(mask), grid, grid).copy()),
        }

    def counts(self, batch: Sample) -> torch.Tensor:
        """Return the numbers (3,) of background, object and different pairs."""
        pairs = pair_labels(batch["labels"], self.settings.radius, len(self.index.classes))
        return torch.stack([kind.sum() for kind in pairs]).double()

    def losses(self, forward: Forward, batch: Sample, counts: torch.Tensor, part: float) -> dict[str, torch.Tensor]:
        """Return the shares of the attracting and repelling halves of the affinity loss."""
        edge = torch.sigmoid(forward(batch["images"]).to(torch.promote_types(batch["images"].dtype, torch.float32)))
        pairs = pair_labels(batch["labels"], self.settings.radius, len(self.index.classes))
        sums, _ = affinity_loss_sums(pair_affinities(edge, self.settings.radius), pairs)
        background, objects, different = (sums / (counts + 1e-5)).unbind()
        return {"attract": (background + objects) / 4, "repel": different / 2}
