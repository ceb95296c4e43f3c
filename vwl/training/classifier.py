"""Training of the classifier, paper section 3.5 and Algorithm 1: samples, losses (Eqs. 11-15), memory bank, mAP on held-out images."""

from contextlib import suppress
from typing import Any

import numpy as np
import torch
from sklearn.metrics import average_precision_score

from vwl.config.recipe import Classifier as Settings
from vwl.config.recipe import Recam, Recipe
from vwl.data.index import Index, Row
from vwl.data.sampler import generator, steps_per_epoch
from vwl.data.transforms import long_side_scale, normalise, random_crop, random_hflip, resize, scaled_size
from vwl.errors import VwlError
from vwl.models.classifier import Classifier, cells_inside
from vwl.models.losses import decov, soft_margin
from vwl.training.distributed import PendingSum, all_reduce, device, rank, world_size
from vwl.training.linear_probe import fit_linear_probe
from vwl.training.map_scores import MapScores
from vwl.training.pretrained import load_pretrained
from vwl.training.task import Forward, Sample, Task


class ClassifierTask(Task):
    """Learns image labels and visual words together: Algorithm 1 of the paper.

    Each line of the algorithm, and the code that does it:

    | Algorithm 1 | here |
    |---|---|
    | initialise the network E and the codebook C | `__init__`; `init_codebook` fills a memory bank with features |
    | while training do | `vwl.training.loop` |
    | extract the features F = E(I) | `Classifier.features` |
    | word label y_word, Eqs. 2-4 | `Codebook.forward` |
    | pooled features f_gap and f_hp, Eqs. 9 and 10 | `Classifier.forward` |
    | if learning-based (VWL-L): word feature f_word, Eq. 5 | `Codebook.forward` |
    | -- loss, Eq. 15 (Eq. 12 and, as L_aux, Eqs. 13 and 14) | `terms` |
    | -- optimise E and C | `vwl.training.loop`; C is a parameter |
    | else memory bank (VWL-M): loss, Eq. 12 | `terms` |
    | -- optimise E | `vwl.training.loop`; C is a buffer |
    | -- reconstruct C', Eq. 6 | sums of features: `terms`; over workers: `start_codebook_reduce`; means: `Codebook.update` |
    | -- C <- rho C' + (1 - rho) C, Eq. 7 | `update_codebook` |

    Each L_cls in these losses is Eq. 11 (`vwl.models.losses.soft_margin`). Eq. 6 takes the features of this step's forward pass, before E
    is optimised.
    """

    name = "classifier"

    def __init__(self, recipe: Recipe, index: Index, rows: list[Row], held_out: list[Row]) -> None:
        """Build the seeded network for training `rows`; `held_out` rows are scored after each epoch."""
        self.settings = recipe.classifier
        self.index, self.rows, self.held_out = index, rows, held_out
        schedule = self.schedule(recipe)
        self.optimiser, self.batch_size, self.seed = schedule.optimiser, schedule.batch_size, recipe.seed
        self.num_samples, self.image_ids = len(rows), [row.image_id for row in rows]
        self.num_steps = schedule.epochs * steps_per_epoch(len(rows), self.batch_size)
        torch.manual_seed(recipe.seed)
        self.model: Classifier = self.network()
        self.scored_classes = None if recipe.evaluation.classes is None else index.class_ids(recipe.evaluation.classes)
        self._sums: torch.Tensor | None = None
        self._pending: PendingSum | None = None
        self._first_codewords: torch.Tensor | None = None

    def schedule(self, recipe: Recipe) -> Settings | Recam:
        """Return the section with the optimiser, batch size and epochs of the training."""
        return recipe.classifier

    def network(self) -> Classifier:
        """Return the network that the training starts from."""
        model = Classifier(self.settings, self.index.num_objects)
        if self.settings.image_bias:
            with torch.no_grad():
                model.image_head.bias.copy_(log_odds(torch.stack([self._targets(row) for row in self.rows])))
        load_pretrained(model, self.settings)
        return model

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the backbone's parameters and, at `head_lr_mult` times their learning rate, those of heads and codebook."""
        optimiser = self.optimiser
        pretrained = [p for p in self.model.backbone.parameters() if p.requires_grad]
        known = {id(p) for p in self.model.backbone.parameters()}
        added = [p for p in self.model.parameters() if id(p) not in known and p.requires_grad]
        rates = (optimiser.learning_rate, optimiser.learning_rate * optimiser.head_lr_mult)
        return [
            {"params": p, "lr": lr, "weight_decay": optimiser.weight_decay} for p, lr in zip((pretrained, added), rates, strict=True) if p
        ]

    def sample(self, number: int, epoch: int) -> Sample:
        """Return `images` (3, crop, crop), `targets` (C,) and `valid` (crop, crop) bool."""
        row = self.rows[number]
        rng = generator(self.seed, epoch, row.image_id)
        image = np.asarray(self.index.read_image(row))
        low, high = self.settings.resize
        scale = long_side_scale(image.shape, int(rng.integers(low, high + 1)))
        image = resize(image, *scaled_size(image.shape, scale))
        (image,) = random_hflip([image], rng)
        (crop,), valid = random_crop([image], [0], self.settings.crop, rng)
        backbone = self.model.backbone
        images = normalise(crop, backbone.mean, backbone.std, valid)
        return {"images": images, "targets": self._targets(row), "valid": torch.from_numpy(valid)}

    def _targets(self, row: Row) -> torch.Tensor:
        targets = torch.zeros(self.index.num_objects)
        targets[[label - 1 for label in row.labels]] = 1
        return targets

    def losses(self, forward: Forward, batch: Sample, counts: torch.Tensor, part: float) -> dict[str, torch.Tensor]:
        """Return the shares of the losses, see `terms`."""
        return self.terms(forward(batch["images"], self._valid(batch)), batch, counts, part)

    def terms(self, output: Any, batch: Sample, counts: torch.Tensor, part: float) -> dict[str, torch.Tensor]:
        """Return the shares of L_cls(p_img), L_cls(p_word), L_cls(p_w2i) and L_decov; their sum is Eq. 12 or, with all four, Eq. 15.

        `output` is the network's, a `ClassifierOutput`; the others are those of `losses`.
        """
        targets = batch["targets"]

        def share(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
            logits = logits.float() if logits.dtype == torch.bfloat16 else logits
            return soft_margin(logits, wanted.to(logits.dtype)).sum() / counts[0].to(logits.dtype)

        terms = {"image": share(output.image_logits, targets)}
        codebook = self.model.codebook
        if codebook is None:
            return terms
        weight = self.settings.word_weight
        terms["word"] = weight * share(output.word_logits, output.encoding.labels)  # with "image": Eq. 12
        codebook.count_usage(output.encoding.assignments)
        if self.settings.codebook.strategy == "learning":
            terms["word_to_image"] = weight * share(output.word_to_image_logits, targets)  # Eq. 14
            if self.settings.codebook.decov != "none":
                terms["decov"] = weight * part * decov(codebook.codewords, squared=self.settings.codebook.decov == "squared")  # Eq. 13
        else:
            sums = codebook.assigned_sums(output.features, output.encoding.assignments)  # Eq. 6
            self._sums = sums if self._sums is None else self._sums + sums
        return terms

    def _valid(self, batch: Sample) -> torch.Tensor:
        return torch.ones_like(batch["valid"]) if self.settings.codebook.assign_padding else batch["valid"]

    @torch.no_grad()
    def init_codebook(self, batches: list[Sample]) -> None:
        """Fill the memory bank with features of the first global batch, drawn with replacement, the same on all workers."""
        codebook = self.model.codebook
        if codebook is None or self.settings.codebook.strategy != "memory":
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
        drawn = torch.from_numpy(generator(self.seed, "first words").integers(0, int(sizes.sum()), len(codebook.codewords))).to(device())
        first = int(sizes[: rank()].sum())
        codewords = torch.zeros_like(codebook.codewords)
        own = (drawn >= first) & (drawn < first + len(mine))
        codewords[own] = mine[drawn[own] - first].to(codewords.dtype)
        codewords = all_reduce(codewords)
        if self.settings.codebook.init == "features":
            codebook.codewords.copy_(codewords)
        else:
            self._first_codewords = codewords

    def start_codebook_reduce(self) -> None:
        """Start the all-reduce of the sums of Eq. 6."""
        if self._sums is not None:
            self._pending, self._sums = PendingSum(self._sums), None

    def update_codebook(self) -> None:
        """Wait for the all-reduce and move the memory bank, Eq. 7."""
        codebook = self.model.codebook
        if self._pending is None or codebook is None:
            return
        sums, self._pending = self._pending.result(), None
        if self._first_codewords is not None:
            codebook.codewords.copy_(self._first_codewords)
            self._first_codewords = None
        else:
            codebook.update(sums)

    @torch.no_grad()
    def start(self) -> dict[str, float]:
        """Fit the linear probe, start the image-label head from it if the recipe says so, and return its scores as `probe_...`."""
        settings, head = self.settings, self.model.image_head
        if settings.linear_probe == "none":
            return {}
        shape = (head.out_features, head.in_features)
        probe = fit_linear_probe(self._pooled, len(self.rows), shape, settings.probe_l2, settings.image_bias)
        before = {name: value.clone() for name, value in head.state_dict().items()}
        head.weight.copy_(probe.weight)
        if settings.image_bias:
            head.bias.copy_(probe.bias)
        scores = {f"probe_{name}": value for name, value in self.evaluate().items()}
        if settings.linear_probe == "report":
            head.load_state_dict(before)
        return scores

    def _pooled(self, number: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return the pooled features (d,) and targets (C,) of a training image; none if it cannot be read."""
        row = self.rows[number]
        with suppress(VwlError):
            return self.model.pool(self._features(np.asarray(self.index.read_image(row))))[0], self._targets(row)
        return None

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """Return scores on the held-out images; those that cannot be read are left out and counted.

        `val_map` is the mean average precision over the classes that occur in them. If there are masks, `val_cam_*` are scores of the
        class activation maps at one scale, in percent: `miou`, `precision` and `recall` (means over object classes) at Otsu's threshold,
        and `best_miou` at the threshold that ground truth chooses. They show a training's course; nothing is chosen by them.
        """
        if not self.held_out:
            return {}
        # The last column says which images could be read.
        scores = torch.zeros(len(self.held_out), self.index.num_objects + 1, dtype=torch.float64, device=device())
        maps = MapScores(len(self.index.classes))
        for number in range(rank(), len(self.held_out), world_size()):
            with suppress(VwlError):
                scores[number, :-1] = self._score(self.held_out[number], maps)
                scores[number, -1] = 1
        scores = all_reduce(scores).cpu()
        read = scores[:, -1].bool()
        truth = torch.stack([self._targets(row) for row in self.held_out]).bool()
        result = {"val_map": mean_average_precision(scores[read, :-1].numpy(), truth[read].numpy())} if read.any() else {}
        result |= {f"val_cam_{name}": value for name, value in maps.over_workers(self.scored_classes).items()}
        return result if read.all() else {**result, "val_unreadable": float((~read).sum())}

    def _score(self, row: Row, maps: MapScores) -> torch.Tensor:
        """Return the image logits (C,), and add the maps of the image's labels to `maps` if it has a mask."""
        features = self._features(np.asarray(self.index.read_image(row)))
        if row.mask is not None:
            found = self.model.maps_of(features)[0, [label - 1 for label in row.labels]]
            with suppress(VwlError):  # a broken mask costs the maps' score this image; `vwl data check` lists it
                maps.add(found.float().cpu(), row.labels, self.index.read_mask(row))
        return self.model.image_head(self.model.pool(features))[0].double()

    def _features(self, image: np.ndarray) -> torch.Tensor:
        """Return the features (1, d, h, w) of an image (H, W, 3) at the mean size of training."""
        size = scaled_size(image.shape, long_side_scale(image.shape, sum(self.settings.resize) // 2))
        images = normalise(resize(image, *size), self.model.backbone.mean, self.model.backbone.std)[None]
        weight = self.model.image_head.weight
        return self.model.features(images.to(weight.device, weight.dtype).contiguous(memory_format=torch.channels_last))

    def accumulated_counts(self) -> dict[str, torch.Tensor]:
        """Return the pixels assigned to each codeword since the last call of `codebook_metrics`."""
        return {} if self.model.codebook is None else {"usage": self.model.codebook.usage}

    def codebook_metrics(self) -> dict[str, float]:
        """Return the metrics of `Codebook.metrics` over the steps since the last call."""
        codebook = self.model.codebook
        if codebook is None:
            return {}
        usage = all_reduce(codebook.usage.clone())
        codebook.usage.zero_()
        return codebook.metrics(usage)


def log_odds(targets: torch.Tensor) -> torch.Tensor:
    """Return the log odds (C,) of each class among images with targets (N, C) of 0 and 1; half an image is added to both counts."""
    positive = targets.sum(dim=0)
    return torch.log((positive + 0.5) / (len(targets) - positive + 0.5))


def mean_average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the mean over classes of the average precision; NaN if no class has a positive.

    Args:
        scores: (N, C), higher is more likely.
        truth: (N, C) bool; classes without a positive are left out.
    """
    values = [average_precision_score(positive, score) for score, positive in zip(scores.T, truth.T, strict=True) if positive.any()]
    return float(np.mean(values)) if values else float("nan")
