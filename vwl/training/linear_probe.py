"""A linear probe: logistic regression of the image labels on the pooled features of a network that is not trained.

It is the floor of a classifier's training, whose features should classify better than the pre-trained ones, and a start for its
image-label head ("linear probing, then fine-tuning", Kumar et al., ICLR 2022). Each worker holds the features of its own blocks of images.
The sums over a block are computed on one worker and added up in the order of the blocks, so that the result does not depend on the number
of workers.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy.optimize import minimize
from torch.nn import functional

from vwl.training.distributed import all_reduce, device, rank, world_size

NUM_BLOCKS = 32
"""Blocks that the images are divided into."""
MAX_IMAGES = 20_000
"""Images that a probe is fitted to, spread evenly over the data set; more change it little and would fill the workers' memory."""
_MAX_ITERATIONS = 500
_GRADIENT_TOLERANCE = 1e-8


def below_probe(scores: Mapping[str, float]) -> str | None:
    """Return a line for the user if a training ended with worse scores on held-out images than the linear probe it started with."""
    for name, described in (("val_map", "mAP"), ("val_cam_miou", "mIoU of the maps")):
        ended, floor = scores.get(name), scores.get(f"probe_{name}")
        if ended is not None and floor is not None and ended < floor:
            factor = 100 if name == "val_map" else 1
            return (
                f"{described} on held-out images is {factor * ended:.1f}, below the {factor * floor:.1f} of a linear probe on the features "
                "before the training: lower classifier.optimiser.learning_rate, or use classifier.linear_probe=init"
            )
    return None


@dataclass(frozen=True)
class LinearProbe:
    """A fitted classifier.

    Attributes:
        weight: (C, d) float64.
        bias: (C,) float64; zeros if it was fitted without.
    """

    weight: torch.Tensor
    bias: torch.Tensor


def fit_linear_probe(
    read: Callable[[int], tuple[torch.Tensor, torch.Tensor] | None], num_images: int, shape: tuple[int, int], l2: float, with_bias: bool
) -> LinearProbe:
    """Fit a logistic regression for each class; called by all workers, which get the same result.

    It minimises the mean over images of the sum over classes of the binary cross-entropy, plus l2 / 2 times the squared norm of the
    weights (not of the bias), by L-BFGS from zero.

    Args:
        read: returns the pooled features (d,) and the targets (C,) of an image by its number, or none for one that cannot be read.
        num_images: images of the data set.
        shape: C and d.
        l2: weight of the penalty.
        with_bias: fit a bias as well.
    """
    blocks = _read_blocks(read, num_images)
    count = all_reduce(torch.tensor([float(sum(len(targets) for _, targets in blocks.values()))], dtype=torch.float64, device=device()))
    num_classes, dim = shape

    def split(flat: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return weight (C, d) and bias (C,)."""
        table = flat.view(num_classes, dim + 1)
        return table[:, :dim], table[:, dim]

    def sums(flat: torch.Tensor) -> torch.Tensor:
        """Return (C, d + 2): gradients of weight and bias and the loss, summed over all images."""
        table = torch.zeros(NUM_BLOCKS, num_classes, dim + 2, dtype=torch.float64)
        weight, bias = split(flat)
        for number, (features, targets) in blocks.items():
            logits = features @ weight.T + bias
            residual = torch.sigmoid(logits) - targets
            table[number, :, :dim] = residual.T @ features
            table[number, :, dim] = residual.sum(dim=0)
            table[number, :, dim + 1] = (functional.softplus(logits) - targets * logits).sum(dim=0)
        return all_reduce(table.to(device())).cpu().sum(dim=0)

    def objective(flat: np.ndarray) -> tuple[float, np.ndarray]:
        asked = torch.from_numpy(flat)
        _from_worker_0(torch.cat([asked, asked.new_zeros(1)]))
        total = sums(asked) / count.cpu()
        weight, _ = split(asked)
        gradient = total[:, : dim + 1].clone()
        gradient[:, :dim] += l2 * weight
        if not with_bias:
            gradient[:, dim] = 0
        return float(total[:, dim + 1].sum() + l2 / 2 * weight.square().sum()), gradient.flatten().numpy()

    size = num_classes * (dim + 1)
    if rank() == 0:
        options = {"maxiter": _MAX_ITERATIONS, "gtol": _GRADIENT_TOLERANCE, "ftol": 0.0}
        found = minimize(objective, np.zeros(size), jac=True, method="L-BFGS-B", options=options).x
        result = _from_worker_0(torch.cat([torch.from_numpy(found), torch.ones(1, dtype=torch.float64)]))
    else:  # answer worker 0 until it has finished: the minimiser's own arithmetic may differ between machines
        result = _from_worker_0(torch.zeros(size + 1, dtype=torch.float64))
        while not result[-1]:
            sums(result[:-1])
            result = _from_worker_0(torch.zeros(size + 1, dtype=torch.float64))
    return LinearProbe(*split(result[:-1]))


def _read_blocks(
    read: Callable[[int], tuple[torch.Tensor, torch.Tensor] | None], num_images: int
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Return features (n, d) and targets (n, C), float64, of this worker's blocks by number."""
    used = np.linspace(0, num_images, min(num_images, MAX_IMAGES), endpoint=False).astype(int)
    blocks = {}
    for number, images in enumerate(np.array_split(used, NUM_BLOCKS)):
        samples = [sample for image in images if (sample := read(int(image))) is not None] if number % world_size() == rank() else []
        if samples:
            features, targets = (torch.stack([part.double().cpu() for part in parts]) for parts in zip(*samples, strict=True))
            blocks[number] = (features, targets)
    return blocks


def _from_worker_0(values: torch.Tensor) -> torch.Tensor:
    """Return worker 0's values on all workers."""
    return all_reduce((values if rank() == 0 else torch.zeros_like(values)).to(device())).cpu()
