"""The classifier's training (paper section 3.5, Algorithm 1): samples, losses of Eqs. 11-15, the memory bank's update, mAP."""

from contextlib import suppress
from typing import Any

import numpy as np
import torch

from vwl.data.index import Index, Row
from vwl.data.sampler import generator, steps_per_epoch
from vwl.data.transforms import long_side_scale, normalise, random_crop, random_mirror, resize, scaled_size
from vwl.errors import VwlError
from vwl.losses import decov, soft_margin
from vwl.models.classifier import Classifier, cells_inside
from vwl.recipe import Recipe
from vwl.training.distributed import PendingSum, all_reduce, device, rank, world_size
from vwl.training.task import Forward, Sample, Task


class ClassifierTask(Task):
    """Image labels and visual words, learned together."""

    name = "classifier"

    def __init__(self, recipe: Recipe, index: Index, rows: list[Row], held_out: list[Row]) -> None:
        """Build the network (seeded) over training `rows`; `held_out` rows are scored after each epoch."""
        self.settings = recipe.classifier
        self.index, self.rows, self.held_out = index, rows, held_out
        self.optimiser, self.batch_size, self.seed = self.settings.optimiser, self.settings.batch_size, recipe.seed
        self.num_samples, self.image_ids = len(rows), [row.image_id for row in rows]
        self.num_steps = self.settings.epochs * steps_per_epoch(len(rows), self.batch_size)
        torch.manual_seed(recipe.seed)
        self.model: Classifier = Classifier(self.settings, index.num_objects)
        if self.settings.image_bias:
            with torch.no_grad():
                self.model.image_head.bias.copy_(log_odds(torch.stack([self._targets(row) for row in rows])))
        self._sums: torch.Tensor | None = None
        self._pending: PendingSum | None = None
        self._first_words: torch.Tensor | None = None

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the pre-trained parameters and, at `head_factor` times their rate, heads and codebook."""
        optimiser = self.optimiser
        old = [p for p in self.model.backbone.parameters() if p.requires_grad]
        known = {id(p) for p in self.model.backbone.parameters()}
        new = [p for p in self.model.parameters() if id(p) not in known and p.requires_grad]
        rates = (optimiser.learning_rate, optimiser.learning_rate * optimiser.head_factor)
        return [{"params": p, "lr": rate, "weight_decay": optimiser.weight_decay} for p, rate in zip((old, new), rates, strict=True) if p]

    def sample(self, number: int, epoch: int) -> Sample:
        """Return `images` (3, crop, crop), `targets` (C,) and `valid` (crop, crop) bool."""
        row = self.rows[number]
        rng = generator(self.seed, epoch, row.image_id)
        photo = np.asarray(self.index.read_image(row))
        low, high = self.settings.resize
        scale = long_side_scale(photo.shape, int(rng.integers(low, high + 1)))
        photo = resize(photo, *scaled_size(photo.shape, scale))
        (photo,) = random_mirror([photo], rng)
        (crop,), valid = random_crop([photo], [0], self.settings.crop, rng)
        backbone = self.model.backbone
        images = normalise(crop, backbone.mean, backbone.std, valid)
        return {"images": images, "targets": self._targets(row), "valid": torch.from_numpy(valid)}

    def _targets(self, row: Row) -> torch.Tensor:
        targets = torch.zeros(self.index.num_objects)
        targets[[label - 1 for label in row.labels]] = 1
        return targets

    def losses(self, forward: Forward, batch: Sample, counts: torch.Tensor, part: float) -> dict[str, torch.Tensor]:
        """Return the shares of L_cls(p_img), L_cls(p_word), L_cls(p_w2i) and L_decov."""
        output = forward(batch["images"], self._valid(batch))
        targets = batch["targets"]

        def share(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            logits = logits.float() if logits.dtype == torch.bfloat16 else logits
            return soft_margin(logits, wanted.to(logits.dtype)).sum() / counts[0].to(logits.dtype)

        terms = {"image": share(output.image, targets)}
        book = self.model.codebook
        if book is None:
            return terms
        terms["word"] = share(output.word, output.encoding.labels)  # Eq. 12
        book.count_usage(output.encoding.words)
        if self.settings.words == "learning":
            terms["word_to_image"] = share(output.word_to_image, targets)  # Eq. 14
            if self.settings.decov != "none":
                terms["decov"] = part * decov(book.words, squared=self.settings.decov == "squared")  # Eq. 13
        else:
            sums = book.sums(output.features, output.encoding.words)  # Eq. 6
            self._sums = sums if self._sums is None else self._sums + sums
        return terms

    def _valid(self, batch: Sample) -> torch.Tensor:
        return torch.ones_like(batch["valid"]) if self.settings.padding_takes_words else batch["valid"]

    @torch.no_grad()
    def before_training(self, batches: list[Sample]) -> None:
        """Draw the bank's first words among the pixels of the first global batch, with replacement, alike on all workers."""
        book = self.model.codebook
        if book is None or self.settings.words != "memory":
            return
        pixels = []
        for batch in batches:
            features = self.model.features(batch["images"])
            inside = cells_inside(self._valid(batch), features)
            pixels += [f.flatten(1).T[m.flatten()] for f, m in zip(features, inside, strict=True)]
        mine = torch.cat(pixels)
        sizes = torch.zeros(world_size(), dtype=torch.int64, device=device())
        sizes[rank()] = len(mine)
        sizes = all_reduce(sizes)
        drawn = torch.from_numpy(generator(self.seed, "first words").integers(0, int(sizes.sum()), len(book.words))).to(device())
        first = int(sizes[: rank()].sum())
        words = torch.zeros_like(book.words)
        own = (drawn >= first) & (drawn < first + len(mine))
        words[own] = mine[drawn[own] - first].to(words.dtype)
        words = all_reduce(words)
        if self.settings.bank_start == "features":
            book.words.copy_(words)
        else:
            self._first_words = words

    def exchange(self) -> None:
        """Start the one sum over workers of all words' features and counts."""
        if self._sums is not None:
            self._pending, self._sums = PendingSum(self._sums), None

    def after_step(self) -> None:
        """Move the bank by the global sums (Algorithm 1, last lines)."""
        book = self.model.codebook
        if self._pending is None or book is None:
            return
        sums, self._pending = self._pending.result(), None
        if self._first_words is not None:
            book.words.copy_(self._first_words)
            self._first_words = None
        else:
            book.update(sums)

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return the mean average precision over the classes that held-out photographs show.

        Photographs that cannot be read are left out and counted: nothing is learned from them, and inference lists them.
        """
        if not self.held_out:
            return {}
        # The last column tells which photographs could be read.
        scores = torch.zeros(len(self.held_out), self.index.num_objects + 1, dtype=torch.float64, device=device())
        for number in range(rank(), len(self.held_out), world_size()):
            with suppress(VwlError):
                scores[number, :-1] = self._score(self.held_out[number])
                scores[number, -1] = 1
        scores = all_reduce(scores).cpu()
        read = scores[:, -1].bool()
        truth = torch.stack([self._targets(row) for row in self.held_out]).bool()
        found = {"val_map": mean_average_precision(scores[read, :-1].numpy(), truth[read].numpy())} if read.any() else {}
        return found if read.all() else {**found, "val_unreadable": float((~read).sum())}

    def _score(self, row: Row) -> torch.Tensor:
        photo = np.asarray(self.index.read_image(row))
        size = scaled_size(photo.shape, long_side_scale(photo.shape, sum(self.settings.resize) // 2))
        images = normalise(resize(photo, *size), self.model.backbone.mean, self.model.backbone.std)[None]
        weight = self.model.image_head.weight
        images = images.to(weight.device, weight.dtype).contiguous(memory_format=torch.channels_last)
        return self.model(images).image[0].double()

    def tallies(self) -> dict[str, torch.Tensor]:
        """Return the pixels that took each word."""
        return {} if self.model.codebook is None else {"usage": self.model.codebook.usage}

    def health(self) -> dict[str, float]:
        """Return the codebook's health over the steps since the last call."""
        book = self.model.codebook
        if book is None:
            return {}
        usage = all_reduce(book.usage.clone())
        book.usage.zero_()
        return book.health(usage)


def log_odds(targets: torch.Tensor) -> torch.Tensor:
    """Return the log odds (C,) of each class among photographs with targets (N, C) of 0 and 1, each counted half more than it is."""
    positive = targets.sum(dim=0)
    return torch.log((positive + 0.5) / (len(targets) - positive + 0.5))


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean over classes (with a positive) of average precision.

    Args:
        scores: (N, C), higher is more likely.
        truth: (N, C) bool.
    """
    values = []
    for score, positive in zip(scores.T, truth.T, strict=True):
        if positive.any():
            hits = positive[np.argsort(-score, kind="stable")]
            precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
            values.append(precision[hits].mean())
    return float(np.mean(values)) if values else float("nan")
