"""Mean-field inference of the dense CRF in NumPy arrays with kernels compiled by numba: the native implementation, on the CPU.

Q <- softmax(-U + sum over kernels of compat * D^-1/2 K D^-1/2 Q), from Q = softmax(-U); the kernels are those of
`vwl.crf.permutohedral`. Sums and products are rounded in pydensecrf's order, because ten iterations can magnify a difference in the
last digit ten thousand times where two labels are equally probable.
"""

from functools import lru_cache

import numpy as np

from vwl.config.recipe import CrfKernels
from vwl.crf.permutohedral import Lattice

_NO_LABEL = -1e30
"""Negative energy of unused SIMD lanes."""
_LARGE = 1 << 20
"""Number of pixels above which the spatial lattice is not cached: it takes 56 bytes per pixel."""


@lru_cache(maxsize=4)
def spatial_lattice(height: int, width: int, spatial: float) -> Lattice:
    """Return the lattice of the pixel positions, which is the same for all images of a size; the last few are cached."""
    return Lattice(np.empty((height, width, 0), np.uint8), spatial, 1)


class NumbaMeanField:
    """The dense CRF of one image without unary energies, for any number of labels."""

    def __init__(self, image: np.ndarray, kernels: CrfKernels) -> None:
        """Build the lattices of an image (H, W, 3) uint8.

        Raises:
            VwlError: a kernel is too narrow.
        """
        height, width, _ = image.shape
        self.iterations = kernels.iterations
        self.terms = []
        if kernels.gaussian_compat:
            make = spatial_lattice if height * width <= _LARGE else spatial_lattice.__wrapped__
            self.terms.append((make(height, width, kernels.gaussian_sxy), kernels.gaussian_compat))
        if kernels.bilateral_compat:
            self.terms.append((Lattice(image, kernels.bilateral_sxy, kernels.bilateral_srgb), kernels.bilateral_compat))

    def infer(self, unary: np.ndarray) -> np.ndarray:
        """Return probabilities (L, N) float32 for unary energies (L, N) float32."""
        from vwl.crf import lattice_kernels

        num_labels, num_pixels = unary.shape
        lanes = 2 if num_labels <= 2 else 4
        start = np.full((-(-num_labels // lanes), num_pixels, lanes), _NO_LABEL, np.float32)
        for label, own in enumerate(unary):
            np.negative(own, out=start[label // lanes, :, label % lanes])
        q, energies = np.empty_like(start), np.empty_like(start)
        lattice_kernels.softmax((0,) * lanes, q, start)
        largest = max((lattice for lattice, _ in self.terms), key=lambda lattice: lattice.num_vertices, default=None)
        scratch = largest.scratch(lanes) if largest else np.empty(0)
        for _ in range(self.iterations):
            energies[...] = start
            for source, target in zip(q, energies, strict=True):
                for lattice, compat in self.terms:
                    lattice.add_filtered(source.reshape(-1), target.reshape(-1), scratch, lanes, compat)
            lattice_kernels.softmax((0,) * lanes, q, energies)
        found = np.empty_like(unary)
        for label, own in enumerate(found):
            own[...] = q[label // lanes, :, label % lanes]
        return found
