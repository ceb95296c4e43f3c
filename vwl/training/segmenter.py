"""Training of the segmentation model: DeepLabV2 on pseudo masks (paper section 4.1, "Segmentation network")."""

from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from vwl.config.recipe import Recipe
from vwl.constants import IGNORE
from vwl.data.index import Index, Rows
from vwl.data.sampler import generator
from vwl.data.transforms import long_side_scale, normalise, random_crop, random_hflip, resize, resize_mask, scaled_size
from vwl.models.deeplab import DeepLabV2
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, read_result
from vwl.training.pretrained import load_pretrained
from vwl.training.task import Forward, Sample, Task


class SegmenterTask(Task):
    """Learns pseudo masks. The loss is the mean, over the input scales and their maximum, of the cross entropy of labelled pixels."""

    name = "segmenter"

    def __init__(self, recipe: Recipe, index: Index, rows: Rows, masks: Folder) -> None:
        """Build the seeded network for training `rows`, whose pseudo masks are PNG files in `masks`."""
        self.settings = recipe.segmenter
        self.index, self.rows, self.masks = index, rows, masks
        self.optimiser, self.batch_size, self.seed = self.settings.optimiser, self.settings.batch_size, recipe.seed
        self.num_samples, self.image_ids = len(rows), rows.image_ids
        self.num_steps = self.settings.iterations
        torch.manual_seed(recipe.seed)
        self.model = DeepLabV2(self.settings, len(index.classes))
        load_pretrained(self.model, self.settings)
        self._sizes = self._logit_sizes()

    def _logit_sizes(self) -> list[tuple[int, int]]:
        crop = self.settings.crop
        with torch.no_grad():
            return [(out.shape[-2], out.shape[-1]) for out in self.model(torch.zeros(1, 3, crop, crop))]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return backbone, ASPP weights (at `head_lr_mult` times the learning rate) and ASPP biases (at twice that, without decay)."""
        rate, factor, decay = self.optimiser.learning_rate, self.optimiser.head_lr_mult, self.optimiser.weight_decay
        return [
            {"params": self.model.backbone_parameters(), "lr": rate, "weight_decay": decay},
            {"params": self.model.aspp_weights(), "lr": rate * factor, "weight_decay": decay},
            {"params": self.model.aspp_biases(), "lr": rate * factor * 2, "weight_decay": 0.0},
        ]

    def sample(self, number: int, epoch: int) -> Sample:
        """Return `images` (3, crop, crop) and `labels` (crop, crop) uint8, 255 where unknown."""
        row = self.rows[number]
        rng = generator(self.seed, epoch, row.image_id)
        image, mask = np.asarray(self.index.read_image(row)), decode_mask(read_result(self.masks, row.image_id), row.image_id)
        factor = self.settings.rescale[int(rng.integers(len(self.settings.rescale)))]
        size = scaled_size(mask.shape, long_side_scale(mask.shape, self.settings.long_side) * factor)
        image, mask = random_hflip([resize(image, *size), resize_mask(mask, *size)], rng)
        (image, mask), valid = random_crop([image, mask], [0, IGNORE], self.settings.crop, rng)
        backbone = self.model.backbone
        return {"images": normalise(image, backbone.mean, backbone.std, valid), "labels": torch.from_numpy(np.ascontiguousarray(mask))}

    def _targets(self, labels: torch.Tensor) -> list[torch.Tensor]:
        """Return the labels (B, h, w) int64 at the size of each output of the network (nearest pixel)."""
        resized = []
        for height, width in self._sizes:
            rows = ((torch.arange(height, device=labels.device) + 0.5) * labels.shape[1] / height).long()
            columns = ((torch.arange(width, device=labels.device) + 0.5) * labels.shape[2] / width).long()
            resized.append(labels[:, rows][:, :, columns].long())
        return resized

    def counts(self, batch: Sample) -> torch.Tensor:
        """Return the number of labelled pixels at the size of each output."""
        return torch.stack([(targets != IGNORE).sum() for targets in self._targets(batch["labels"])]).double()

    def losses(self, forward: Forward, batch: Sample, counts: torch.Tensor, part: float) -> dict[str, torch.Tensor]:
        """Return the shares of the mean over outputs of the mean cross entropy."""
        outputs = forward(batch["images"])
        terms = []
        for logits, targets, count in zip(outputs, self._targets(batch["labels"]), counts, strict=True):
            logits = logits.float() if logits.dtype == torch.bfloat16 else logits
            terms.append(F.cross_entropy(logits, targets, ignore_index=IGNORE, reduction="sum") / count.clamp(min=1).to(logits.dtype))
        return {"segmentation": torch.stack(terms).mean()}
