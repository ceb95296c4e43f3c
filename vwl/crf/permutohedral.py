"""The permutohedral lattice: Gaussian filtering of an image's pixels by position and colour in linear time (Adams et al. 2010).

Each pixel's features lie in a simplex of the lattice; its values are spread over the simplex's vertices (splat), the vertices are
blurred along each axis, and the pixel takes up what its vertices hold then (slice). This is the costly part of the dense CRF; it
depends only on the image and is built once for all filters, labels and iterations.
"""

import numpy as np

from vwl.errors import VwlError


class Lattice:
    """The filter of one image and one kernel.

    Attributes:
        num_vertices: M.
        offsets: (N * (d + 1),) int32, the vertices round each of the N pixels.
        weights: (N * (d + 1),) float32, each pixel's share in them.
        neighbours: (d + 1, M + 1, 2) int32, the vertices beside each one along each axis; M where there is none.
    """

    def __init__(self, image: np.ndarray, spatial: float, colour: float) -> None:
        """Build the lattice.

        Args:
            image: (H, W, 3) uint8 image; (H, W, 0): a filter of positions only.
            spatial: standard deviation in pixels.
            colour: standard deviation in grey levels.

        Raises:
            VwlError: the kernel is so narrow that the vertices cannot be numbered.
        """
        from vwl.crf import lattice_kernels

        size = image.shape[2] + 3
        self.corners = (0,) * size
        scales = feature_scales(size - 1)
        lowest, strides, _ = vertex_numbers(image.shape, spatial, colour)
        self.offsets, self.weights, keys = lattice_kernels.simplices(
            self.corners, np.ascontiguousarray(image), np.float32(spatial), np.float32(colour), scales, strides, lowest
        )
        self.num_vertices = len(keys)
        self.neighbours = np.empty((size, len(keys) + 1, 2), np.int32)
        order = keys.argsort()
        keys = keys[order]
        for axis, found in enumerate(self.neighbours):
            lattice_kernels.neighbours(keys, order, strides.sum() - size * strides[axis], found)
        del keys, order  # as long as the image
        num = image.shape[0] * image.shape[1]
        self.norms, degrees = np.ones(num, np.float32), np.zeros(num, np.float32)
        self.add_filtered(self.norms, degrees, self.scratch(1), 1)
        self.norms = (1 / np.sqrt(degrees + 1e-20)).astype(np.float32)

    def scratch(self, lanes: int) -> np.ndarray:
        """Return an array for `add_filtered`; it serves lattices of fewer vertices as well."""
        return np.empty((2, (self.num_vertices + 1) * lanes), np.float32)

    def add_filtered(self, source: np.ndarray, target: np.ndarray, scratch: np.ndarray, lanes: int, strength: float = 1) -> None:
        """Add `strength` times the filtered `source` to `target`, both (N * lanes,) float32, a row of lanes a pixel.

        `scratch` comes from the method of that name, for as many lanes.
        """
        from vwl.crf import lattice_kernels

        row, (values, other) = (0,) * lanes, scratch[:, : (self.num_vertices + 1) * lanes]
        lattice_kernels.splat(row, self.corners, values, source, self.offsets, self.weights, self.norms)
        other[-lanes:] = 0  # the neighbour that is not there
        for found in self.neighbours:
            lattice_kernels.blur(row, other, values, found[:-1])
            values, other = other, values
        # the blur's gain
        alpha = np.float32(1 / (1 + 2.0 ** (1 - len(self.corners))))
        lattice_kernels.slice_add(row, self.corners, target, values, self.offsets, self.weights, alpha, self.norms, np.float32(strength))


def feature_scales(num_features: int) -> np.ndarray:
    """Return the scale of each feature (d,) float32 at which the filter's standard deviation is 1."""
    indices = np.arange(1, num_features + 1)
    return (1 / np.sqrt(indices * (indices + 1)) * np.float32(np.sqrt(2 / 3) * (num_features + 1)).astype(float)).astype(np.float32)


def vertex_numbers(shape: tuple[int, ...], spatial: float, colour: float) -> tuple[np.ndarray, np.ndarray, int]:
    """Return how vertices are numbered: the sum over the first d coordinates of (coordinate - least) * stride.

    Args:
        shape: (H, W, d - 2) of the image.
        spatial: standard deviation in pixels.
        colour: standard deviation in grey levels.

    Returns:
        the least coordinates (d,) int64; the strides (d + 1,) int64, 0 for the last; above all numbers, those of neighbours included.

    Raises:
        VwlError: there are 2^62 numbers or more.
    """
    scales = feature_scales(shape[2] + 2)
    num_features = len(scales)
    highest = np.array([shape[1] / spatial, shape[0] / spatial, *[255 / colour] * shape[2]]) * scales
    above = np.append(highest[::-1].cumsum()[::-1], 0)  # coordinate j: the sum of the features after it, less j times its own
    room = 3 * (num_features + 1)
    lowest = np.floor(-np.arange(num_features) * np.append(0, highest)[:num_features]).astype(np.int64) - room
    counts = [int(top) - int(low) + room + 1 for low, top in zip(lowest, np.ceil(above[:num_features]), strict=True)]
    strides = [1]
    for count in reversed(counts):
        strides.insert(0, strides[0] * count)
    if strides[0] >= 2**62:
        raise VwlError(
            f"a dense CRF kernel of {spatial} pixels and {colour} grey levels is too narrow for an image of {shape[1]} x {shape[0]}: "
            "make its sxy or srgb larger, or take implementation: pydensecrf"
        )
    return lowest, np.array([*strides[1:], 0], np.int64), strides[0]
