"""What the trainings of both refiners share: samples of confident labels, and the affinity loss over pairs of cells (section 4.1)."""

from abc import abstractmethod
from typing import ClassVar

import numpy as np
import torch

from vwl.config.recipe import Irnet, Psa, Recipe
from vwl.constants import IGNORE
from vwl.data.index import Index, Rows
from vwl.data.sampler import generator, steps_per_epoch
from vwl.data.transforms import long_side_scale, normalise, random_crop, random_hflip, resize, resize_mask, scaled_size
from vwl.models.affinity_loss import affinity_loss_sums, affinity_loss_terms, pair_labels
from vwl.models.irnet import BoundaryNet
from vwl.models.psa import AffinityNet
from vwl.storage.folder import Folder
from vwl.storage.masks import decode_mask, read_result
from vwl.training.pretrained import load_pretrained
from vwl.training.task import Forward, Sample, Task


class AffinityTask(Task):
    """Learns affinities of pairs of cells: high between pixels of the same label, low between pixels of different labels.

    Attributes:
        stride: of the grid that pairs are taken from, pixels.
    """

    stride: ClassVar[int]
    settings: Irnet | Psa

    def __init__(self, recipe: Recipe, index: Index, rows: Rows, masks: Folder) -> None:
        """Build the seeded network for training `rows`, whose confident labels are PNG files in `masks`."""
        self.settings = getattr(recipe, self.name)
        self.index, self.rows, self.masks = index, rows, masks
        self.optimiser, self.batch_size, self.seed = self.settings.optimiser, self.settings.batch_size, recipe.seed
        self.num_samples, self.image_ids = len(rows), rows.image_ids
        self.num_steps = self.settings.epochs * steps_per_epoch(len(rows), self.batch_size)
        torch.manual_seed(recipe.seed)
        self.model = self.network()
        load_pretrained(self.model, self.settings)

    @abstractmethod
    def network(self) -> BoundaryNet | AffinityNet:
        """Return the network with random weights."""

    @abstractmethod
    def affinities(self, forward: Forward, images: torch.Tensor) -> torch.Tensor:
        """Return the affinities of all pairs, as `vwl.models.affinity_loss.pair_affinities`."""

    def rescale(self, rng: np.random.Generator) -> float:
        """Return the factor by which an image is resized, beside `long_side`."""
        return 1.0

    def sample(self, number: int, epoch: int) -> Sample:
        """Return `images` (3, crop, crop) and `labels` (ceil(crop / stride), ceil(crop / stride)) uint8."""
        row = self.rows[number]
        rng = generator(self.seed, epoch, row.image_id)
        image, mask = np.asarray(self.index.read_image(row)), decode_mask(read_result(self.masks, row.image_id), row.image_id)
        size = scaled_size(mask.shape, long_side_scale(mask.shape, self.settings.long_side) * self.rescale(rng))
        image, mask = random_hflip([resize(image, *size), resize_mask(mask, *size)], rng)
        (image, mask), valid = random_crop([image, mask], [0, IGNORE], self.settings.crop, rng)
        grid = -(-self.settings.crop // self.stride)
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
        affinities = self.affinities(forward, batch["images"])
        pairs = pair_labels(batch["labels"], self.settings.radius, len(self.index.classes))
        attract, repel = affinity_loss_terms(affinity_loss_sums(affinities, pairs), counts)
        return {"attract": attract, "repel": repel}
