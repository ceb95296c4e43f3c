"""LPCAM (Chen and Sun, CVPR 2023): class activation maps from prototypes of local features instead of a classifier's weights.

The features inside and outside a class's maps are clustered. Clusters inside that the classifier is sure of are the class's prototypes;
clusters outside that it takes for the class to some degree are its context. A map is the mean cosine similarity to the prototypes minus
that to the context. Cosines with one feature add up, so that each class needs one vector, its direction (`direction`).
"""

from collections.abc import Sequence

import torch
from torch.nn import functional

_EPSILON = 1e-5
"""Added to the maximum that a map is divided by."""


def inside(maps: torch.Tensor, score: float) -> torch.Tensor:
    """Return (K, h, w) bool: the cells of maps (K, h, w) >= 0 whose score, relative to the map's maximum, exceeds `score`."""
    return maps / (maps.amax(dim=(1, 2), keepdim=True) + _EPSILON) > score


def class_probabilities(centres: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the probabilities (n, C) of centres (n, d): the softmax of the logits that the weights (C, d) give them."""
    return torch.softmax(centres @ weight.T, dim=1)


def chosen(
    probabilities: torch.Tensor, sizes: torch.Tensor, prototype_probability: float, context_probability: tuple[float, float]
) -> torch.Tensor:
    """Return (2, k) bool: which clusters inside a class's maps are prototypes, and which clusters outside are context.

    Args:
        probabilities: of the class, (2, k): of the centres of the clusters inside and outside.
        sizes: (2, k), features in each cluster; an empty one is never chosen.
        prototype_probability: what the probability of a prototype exceeds.
        context_probability: what the probability of context exceeds, and what it is below.
    """
    low, high = context_probability
    within = torch.stack([probabilities[0] > prototype_probability, (probabilities[1] > low) & (probabilities[1] < high)])
    return within & (sizes > 0)


def direction(prototypes: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
    """Return the direction (d,) of a class: its product with a feature of length 1 is the map's value there, before ReLU.

    Args:
        prototypes: (n, d), n >= 1.
        context: (m, d); with m = 0 nothing is subtracted.
    """
    towards = functional.normalize(prototypes, dim=1).mean(dim=0)
    return towards - functional.normalize(context, dim=1).mean(dim=0) if len(context) else towards


def similarity_maps(features: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Return the maps (B, C, h, w) with ReLU of features (B, d, h, w), by the directions (C, d) of the classes."""
    return functional.relu(functional.conv2d(functional.normalize(features, dim=1), directions[:, :, None, None]))


def without_prototypes(found: Sequence[bool], classes: Sequence[str]) -> str | None:
    """Return a line for the user on the object classes that have no prototypes; none if all have."""
    missing = [name for name, has in zip(classes, found, strict=True) if not has]
    if not missing:
        return None
    return f"no cluster is a prototype of {', '.join(missing)}: the maps of such a class are those of cam.method: weights"
