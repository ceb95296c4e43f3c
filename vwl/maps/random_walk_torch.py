"""The random walk of `vwl.maps.random_walk` on torch tensors, on a GPU or a CPU.

The same Chebyshev series of the same symmetric matrix. A product is a sum over each cell's neighbours with weights, which is what
torch.nn.functional.embedding_bag computes: one kernel, each sum in a fixed order, so that each call gives the same bits. cuSPARSE does not
promise that for its product of a CSR matrix with a dense one.
"""

import numpy as np
import torch
from torch.nn import functional as F

from vwl.errors import VwlError
from vwl.maps.affinity import pair_offsets, path
from vwl.maps.random_walk import chebyshev_coefficients

_MIN_WEIGHT = 1e-20
"""As in `vwl.maps.random_walk`, so that both walks have the same neighbours."""


@torch.inference_mode()
def walk(
    maps: np.ndarray,
    edge: np.ndarray,
    radius: int,
    exponent: float,
    steps: int,
    tolerance: float,
    device: torch.device,
    dtype: torch.dtype = torch.float32,
) -> np.ndarray:
    """Return maps (K, h, w) after the random walk, as `vwl.maps.random_walk.walk`, computed on `device`.

    Raises:
        VwlError: the exponent is not above 0.
        ValueError: maps and boundary map differ in size.
    """
    if maps.shape[1:] != edge.shape:
        raise ValueError(f"maps of {maps.shape[1:]} cells, boundary map of {edge.shape}")
    start = maps * (1 - edge.astype(np.float64))
    pairs = affinities(torch.from_numpy(np.ascontiguousarray(edge)).to(device, dtype), radius)
    return _walk(start, pairs, radius, exponent, steps, tolerance)


@torch.inference_mode()
def walk_by_affinities(
    maps: np.ndarray, pairs: np.ndarray, radius: int, exponent: float, steps: int, tolerance: float, device: torch.device
) -> np.ndarray:
    """Return maps (K, h, w) after a walk by given affinities, as `vwl.maps.random_walk.walk_by_affinities`, computed on `device`."""
    return _walk(maps, torch.from_numpy(pairs).to(device), radius, exponent, steps, tolerance)


def affinities(edge: torch.Tensor, radius: int) -> torch.Tensor:
    """Return IRNet's affinities (num_offsets, h, w) of a boundary map (h, w), as `vwl.maps.affinity.affinities`."""
    height, width = edge.shape
    offsets = pair_offsets(radius)
    found = edge.new_zeros(len(offsets), height, width)
    for out, (dy, dx) in zip(found, offsets, strict=True):
        left, right = max(0, -dx), width - max(0, dx)
        if dy < height and left < right:
            rows, columns = height - dy, right - left
            views = [edge[y : y + rows, left + x : left + x + columns] for y, x in path(dy, dx)]
            out[:rows, left:right] = 1 - torch.stack(views).amax(dim=0)
    return found


def _walk(maps: np.ndarray, pairs: torch.Tensor, radius: int, exponent: float, steps: int, tolerance: float) -> np.ndarray:
    if exponent <= 0:
        raise VwlError(f"exponent = {exponent} of the walk must be above 0; 10 in IRNet, 8 in PSA")
    weights, cells = _neighbours(torch.where(pairs < _MIN_WEIGHT ** (1 / exponent), 0, pairs).pow(exponent), radius)
    # In float64, as in the compiled form: an error of the degrees would enter every step with the same sign.
    inverse_root = weights.double().sum(dim=1).rsqrt()
    weights = weights * (inverse_root[:, None] * inverse_root[cells]).to(weights.dtype)
    start = torch.from_numpy(maps.astype(np.float64)).to(pairs.device).flatten(1)
    if start.numel():
        start += 1e-10 * start.amax(dim=1, keepdim=True).clamp(min=0)  # see `vwl.maps.random_walk`
    current = (start.to(weights.dtype) / inverse_root.to(weights.dtype)).T.contiguous()  # (h w, K)
    coefficients = chebyshev_coefficients(steps, tolerance).tolist()
    result, previous = current * coefficients[0], torch.zeros_like(current)
    for k, coefficient in enumerate(coefficients[1:], 1):
        product = F.embedding_bag(cells, current, mode="sum", per_sample_weights=weights)
        following = product if k == 1 else product.mul_(2).sub_(previous)
        result.add_(following, alpha=coefficient)
        current, previous = following, current
    found = (result.double() * inverse_root[:, None]).to(weights.dtype)
    return found.T.reshape(maps.shape).cpu().numpy()


def _neighbours(pairs: torch.Tensor, radius: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the weights (h w, 2 num_offsets + 1) of each cell's neighbours and itself, and their numbers; 0 and itself outside."""
    _, height, width = pairs.shape
    own = torch.arange(height * width, device=pairs.device).view(height, width)
    weights, cells = [torch.ones_like(pairs[0])], [own]
    for weight, (dy, dx) in zip(pairs, pair_offsets(radius), strict=True):
        left, right = max(0, -dx), width - max(0, dx)
        before, partner = torch.zeros_like(weight), own
        after = own
        if dy < height and left < right:
            here, there = (slice(0, height - dy), slice(left, right)), (slice(dy, height), slice(left + dx, right + dx))
            before[there] = weight[here]
            partner, after = own.clone(), own.clone()
            partner[there], after[here] = own[here], own[there]
        weights += [weight, before]
        cells += [after, partner]
    return torch.stack([w.flatten() for w in weights], dim=1), torch.stack([c.flatten() for c in cells], dim=1)
