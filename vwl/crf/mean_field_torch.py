"""Mean-field inference of the dense CRF on torch tensors, for a batch of images, on a GPU or a CPU.

The lattice of `vwl.crf.permutohedral` is built by sorting instead of hashing; the steps and their order are the same. Vertices of all
images of a batch are numbered together, so that the batch is filtered at once. Sums over pixels are segment sums in a fixed order
without atomic additions, so that each call gives the same bits.
"""

import torch

from vwl.config.recipe import CrfKernels
from vwl.crf.permutohedral import feature_scales, vertex_numbers


class TorchMeanField:
    """The dense CRF of a batch of images without unary energies, for any number of labels."""

    def __init__(self, images: torch.Tensor, kernels: CrfKernels) -> None:
        """Build the lattices of images (B, H, W, 3) uint8 on their device.

        Raises:
            VwlError: a kernel is too narrow.
        """
        terms = (
            (images[..., :0], kernels.gaussian_sxy, 1.0, kernels.gaussian_compat),
            (images, kernels.bilateral_sxy, kernels.bilateral_srgb, kernels.bilateral_compat),
        )
        self.iterations = kernels.iterations
        self.terms = [(_Lattice(pixels, spatial, colour), compat) for pixels, spatial, colour, compat in terms if compat]

    @torch.inference_mode()
    def infer(self, unary: torch.Tensor) -> torch.Tensor:
        """Return probabilities (B, L, H, W) float32 for unary energies (B, L, H, W) float32."""
        start = -unary.permute(0, 2, 3, 1).reshape(-1, unary.shape[1])
        q = torch.softmax(start, dim=1)
        for _ in range(self.iterations):
            energies = start
            for lattice, compat in self.terms:
                energies = energies + compat * lattice.filtered(q)
            q = torch.softmax(energies, dim=1)
        return q.reshape(unary.shape[0], *unary.shape[2:], -1).permute(0, 3, 1, 2).contiguous()


class _Lattice:
    """The filter of a batch of images and one kernel, as `vwl.crf.permutohedral.Lattice`; P is the number of pixels of all images."""

    def __init__(self, images: torch.Tensor, spatial: float, colour: float) -> None:
        size, device = images.shape[3] + 3, images.device
        lowest, strides, num_numbers = vertex_numbers(tuple(images.shape[1:]), spatial, colour)
        steps = torch.from_numpy(strides).to(device)
        keys, self.weights = _simplices(_features(images, spatial, colour), torch.from_numpy(lowest).to(device), steps)
        image = torch.arange(len(images), device=device).repeat_interleave(images.shape[1] * images.shape[2])
        numbers, self.offsets = torch.unique(keys + image[:, None] * num_numbers, return_inverse=True)
        self.neighbours = [_neighbours(numbers, int(strides.sum() - size * strides[axis])) for axis in range(size)]
        # the entries of `offsets` in the order of vertices
        order = torch.sort(self.offsets.flatten(), stable=True).indices
        self.pixels, self.shares = order // size, self.weights.flatten()[order, None]
        self.counts = torch.bincount(self.offsets.flatten(), minlength=len(numbers))
        self.alpha = torch.tensor(1 / (1 + 2.0 ** (1 - size)), device=device)
        self.norms = torch.ones(len(keys), 1, device=device)
        self.norms = (1 / torch.sqrt(self.filtered(self.norms).double() + 1e-20)).float()

    def filtered(self, values: torch.Tensor) -> torch.Tensor:
        """Return (P, L) values filtered by the kernel normalised symmetrically."""
        held = torch.segment_reduce((self.norms * values)[self.pixels] * self.shares, "sum", lengths=self.counts, axis=0)
        for before, after in self.neighbours:
            padded = torch.cat([held, held.new_zeros(1, held.shape[1])])
            held = held + 0.5 * (padded[before] + padded[after])
        total = torch.zeros_like(values)
        for weight, vertex in zip((self.weights * self.alpha).T, self.offsets.T, strict=True):
            total = total + weight[:, None] * held[vertex]
        return self.norms * total


def _features(images: torch.Tensor, spatial: float, colour: float) -> list[torch.Tensor]:
    """Return the d features of each pixel, (P,) float32."""
    batch, height, width, _ = images.shape
    # divided by a tensor: CUDA multiplies by the reciprocal of a Python number, which rounds differently
    distance, grey = (torch.tensor(unit, dtype=torch.float32, device=images.device) for unit in (spatial, colour))
    rows = torch.arange(height, dtype=torch.float32, device=images.device)[:, None] / distance
    columns = torch.arange(width, dtype=torch.float32, device=images.device) / distance
    positions = [position.expand(batch, height, width).reshape(-1) for position in (columns, rows)]
    return positions + [channel.reshape(-1).float() / grey for channel in images.unbind(3)]


def _simplices(features: list[torch.Tensor], lowest: torch.Tensor, strides: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the numbers (P, d + 1) int64 of the vertices around each pixel and its barycentric weights (P, d + 1) float32."""
    d, size = len(features), len(features) + 1
    elevated, total = [], torch.zeros_like(features[0])
    for j, scale in reversed(list(enumerate(feature_scales(d).tolist(), 1))):
        scaled = features[j - 1] * scale
        elevated.append(total - j * scaled)
        total = total + scaled
    points = torch.stack([total, *reversed(elevated)], dim=1)
    inverse = torch.tensor(1 / size, device=points.device)
    rounded = torch.round(points * inverse)
    apart = points - rounded * size
    rank = torch.zeros_like(apart, dtype=torch.int64)
    for j in range(d):
        for k in range(j + 1, size):
            less = (apart[:, j] < apart[:, k]).long()
            rank[:, j] += less
            rank[:, k] += 1 - less
    # a vertex off the plane is moved back along the coordinates that were rounded most
    rank += rounded.sum(dim=1, keepdim=True).long()
    turns = (rank < 0).long() - (rank > d).long()
    rank += turns * size
    share = torch.empty_like(apart).scatter_(1, rank, (apart - turns * size) * inverse)
    step = torch.empty_like(rank).scatter_(1, rank, (strides.sum() - strides * size).expand_as(rank))
    weights = [1 + share[:, d] - share[:, 0]]
    keys = [(((rounded[:, :d].long() + turns[:, :d]) * size - lowest) * strides[:d]).sum(dim=1)]
    for k in range(1, size):
        weights.append(share[:, d - k] - share[:, size - k])
        keys.append(keys[-1] + step[:, size - k])
    return torch.stack(keys, dim=1), torch.stack(weights, dim=1)


def _neighbours(numbers: torch.Tensor, delta: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the vertices (M,) before and after each one along an axis, M for none; `numbers` (M,) is sorted."""
    num = len(numbers)
    position = torch.searchsorted(numbers, numbers + delta).clamp(max=num - 1)
    after = torch.where(numbers[position] == numbers + delta, position, num)
    before = torch.full((num + 1,), num, device=numbers.device)
    before[after] = torch.arange(num, device=numbers.device)
    return before[:-1], after
